//! Runs a script of lorax, which turns a tree into that of an installer.
//!
//! The script is the template `path` of the build root, below `/usr/share/lorax/templates.d` unless it is absolute,
//! rendered by the build root's `python3` and Mako. Known are lorax's commands `append`, `install`, `mkdir`, `move`,
//! `remove`, `removefrom`, `removekmod`, `removepkg`, `replace`, `runcmd`, `symlink` and `systemctl`. What would touch
//! `/boot` or the database of RPM is left out: later stages need both.
//!
//! ```json
//! {
//!   "type": "org.osbuild.lorax-script",
//!   "options": { "path": "99-generic/runtime-postinstall.tmpl", "product": { "name": "Fedora", "version": "42" } }
//! }
//! ```

use osbc_module_api::*;

use crate::trees::build_root;
use crate::trees::lorax::{self, Script};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.lorax-script",
    revision: 2,
    capabilities: &[],
    requires: &[
        Requirement::Tool("python3"),
        Requirement::MayCall("rpm"),
        Requirement::MayCall("systemctl"),
        Requirement::Named(|options| options["path"].as_str().map(template).into_iter().collect()),
    ],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"path": 1}}"#,
        r#"{"options": {"path": "a", "product": {"nick": "x"}}}"#,
        r#"{"options": {"path": "a", "branding": {"release": 1}}}"#,
        r#"{"options": {"path": "a", "arch": "x"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const TEMPLATES: &str = "/usr/share/lorax/templates.d";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The template's path.
    path: String,
    /// The architecture, for the template.
    #[serde(default = "x86_64")]
    basearch: String,
    /// The directory for libraries, for the template.
    #[serde(default = "lib64")]
    libdir: String,
    /// The product, for the template.
    #[serde(default)]
    product: Product,
    /// Whose pictures the template takes.
    #[serde(default)]
    branding: Branding,
}

fn x86_64() -> String {
    "x86_64".to_owned()
}

fn lib64() -> String {
    "lib64".to_owned()
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Product {
    /// Its name.
    name: String,
    /// Its version.
    version: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Branding {
    /// The package of the release, e.g. `fedora-release`.
    release: Option<String>,
    /// The package of the logos, e.g. `fedora-logos`.
    logos: Option<String>,
}

/// Where a build root has the template that is named so.
fn template(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{TEMPLATES}/{path}") }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { path, basearch, libdir, product, branding } = cx.options()?;
    let template = template(&path);
    let directory = template.rsplit_once('/').map_or(TEMPLATES, |(directory, _)| directory);
    let values = json!({
        "root": cx.tree.path_for_tools("/")?.to_string_lossy(),
        "basearch": basearch,
        "configdir": format!("{directory}/config_files"),
        "libdir": libdir,
        "product": {"name": product.name, "version": product.version},
        "branding": {"release": branding.release, "logos": branding.logos},
    });
    let script = lorax::render(cx, &template, &values)?;
    Script::new(cx, &build_root::here()?).run(&script)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    /// Runs lines instead of a template, with a small build root.
    static LINES: ModuleDef = ModuleDef {
        entry: Entry::Stage(|cx| {
            let directory = tempfile::tempdir().unwrap();
            let root = Tree::open(directory.path()).unwrap();
            root.create_dir_all("usr/share/x", 0o755).unwrap();
            root.write("usr/share/x/a.conf", "a").unwrap();
            root.write("usr/share/x/b.conf", "b").unwrap();
            let lines: Vec<Vec<String>> = serde_json::from_value(cx.options.clone()).unwrap();
            Script::new(cx, &root).run(&lines)
        }),
        ..MODULE
    };

    #[test]
    fn commands_change_the_tree() {
        let case = Case::new(&LINES)
            .file("etc/a", "x=1\ny=1\n")
            .file("etc/.hidden", "")
            .file("lib/modules/6.1/kernel/sound/a/b.ko", "")
            .file("lib/modules/6.1/kernel/sound/virtio_snd.ko", "")
            .file("var/lib/rpm/db", "");
        let lines = json!([
            ["mkdir", "/a/b", "/c"],
            ["install", "/usr/share/x/*.conf", "/c"],
            ["append", "/new/file", "one\\ntwo"],
            ["move", "/new/file", "/c"],
            ["replace", "^(.)=1", "\\1=$2", "/etc/*"],
            ["symlink", "target", "/c/a.conf"],
            ["-remove", "/var/lib/rpm/*"],
            ["remove", "/nowhere", "/a"],
            ["removekmod", "sound", "--allbut", "virtio"],
            ["runcmd", "rm", "-r", "/boot"],
            ["-install", "/usr/none", "/c"],
        ]);
        let done = case.run(lines).ok();
        assert_eq!((done.text("c/b.conf").as_str(), done.text("c/file").as_str()), ("b", "one\ntwo\n"));
        assert_eq!(done.text("etc/a"), "x=$2\ny=$2\n");
        assert_eq!(done.link("c/a.conf"), "target");
        assert!(!done.tree.exists("a").unwrap() && done.tree.exists("var/lib/rpm/db").unwrap());
        let modules = done.tree.read_dir("lib/modules/6.1/kernel/sound").unwrap();
        assert_eq!(modules, ["a", "virtio_snd.ko"]);
        assert!(!done.tree.exists("lib/modules/6.1/kernel/sound/a/b.ko").unwrap());
    }

    #[test]
    fn a_command_that_fails_is_named() {
        for (line, reason) in [
            (
                json!(["install", "/usr/none", "/c"]),
                "the script's line `install /usr/none /c` failed: the build root has nothing",
            ),
            (json!(["move", "/a"]), "the script's line `move /a` failed: it has the wrong arguments"),
            (json!(["-explode"]), "the script's command `explode` is not known"),
            (
                json!(["replace", "a", "b", "/none"]),
                "the script's line `replace a b /none` failed: there is no file /none",
            ),
        ] {
            let done = Case::new(&LINES).run(json!([line]));
            assert!(done.err().starts_with(reason), "{}", done.err());
        }
    }

    #[test]
    fn the_template_must_be_in_the_build_root() {
        for (path, place) in [("none.tmpl", "/usr/share/lorax/templates.d/none.tmpl"), ("/none.tmpl", "/none.tmpl")] {
            let done = Case::new(&MODULE).run(json!({ "path": path }));
            assert!(done.err().starts_with(&format!("cannot read {place}: ")), "{}", done.err());
        }
    }
}
