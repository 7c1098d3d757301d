//! Configures where and how containers are stored.
//!
//! Writes the TOML file `filename`: the settings are merged into those of the file, where it is there, and these into
//! those of `filebase`, a file of the build root. Comments of either are lost.
//!
//! ```json
//! {
//!   "type": "org.osbuild.containers.storage.conf",
//!   "options": {
//!     "filename": "/etc/containers/storage.conf",
//!     "comment": ["Images come with the system."],
//!     "config": { "storage": { "driver": "overlay", "options": { "additionalimagestores": ["/usr/share/containers"] } } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::toml::Table;
use crate::trees::build_root;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.containers.storage.conf",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Named(|options| {
        let base = options["filebase"].as_str();
        base.map(|base| format!("/{}", base.trim_start_matches('/'))).into_iter().collect()
    })],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {}}}"#,
        r#"{"options": {"config": {"storage": {}}}}"#,
        r#"{"options": {"config": {"storage": {"driver": "ext4"}}}}"#,
        r#"{"options": {"filename": "/etc/x", "config": {"storage": {"driver": "vfs"}}}}"#,
        r#"{"options": {"config": {"storage": {"options": {}}}}}"#,
        r#"{"options": {"config": {"storage": {"options": {"pull_options": {"use_hard_links": true}}}}}}"#,
        r#"{"options": {"config": {"storage": {"transient_store": "true"}}}}"#,
        r#"{"options": {"config": {"engine": {}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &build_root::here()?)),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file.
    #[serde(default)]
    filename: Filename,
    /// The file of the build root that it is based on.
    filebase: Option<String>,
    /// Lines of comment at its beginning.
    #[serde(default)]
    comment: Vec<String>,
    /// The settings.
    config: InOrder<Config>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
enum Filename {
    #[default]
    #[serde(rename = "/etc/containers/storage.conf")]
    System,
    #[serde(rename = "/usr/share/containers/storage.conf")]
    Vendor,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    storage: Option<Storage>,
}

/// The storage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Storage {
    /// The driver.
    driver: Option<Driver>,
    /// Where images and layers lie.
    graphroot: Option<String>,
    /// Where what lasts as long as the system runs lies.
    runroot: Option<String>,
    /// Whether containers last no longer than the system runs.
    transient_store: Option<bool>,
    /// Settings of the driver.
    options: Option<StorageOptions>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Driver {
    Overlay,
    Vfs,
    Devmapper,
    Aufs,
    Btrfs,
    Zfs,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct StorageOptions {
    /// Further directories with images, which are only read.
    additionalimagestores: Option<Vec<String>>,
    /// How images are pulled.
    pull_options: Option<PullOptions>,
    /// Settings of the driver `overlay`.
    overlay: Option<Overlay>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct PullOptions {
    /// Whether parts that are there are not pulled.
    enable_partial_images: Option<YesOrNo>,
    /// Whether files that are there are linked to.
    use_hard_links: Option<YesOrNo>,
    /// Whether images are brought into a form of which parts can be pulled.
    convert_images: Option<YesOrNo>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum YesOrNo {
    True,
    False,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Overlay {
    /// Options of the mounts.
    mountopt: Option<String>,
}

const INTRO: [&str; 5] = [
    "This file is the configuration file for all tools that",
    "use the containers/storage library.",
    "See 'man 5 containers-storage.conf' for more information.",
    "This file was created by osbuild.",
    "\n",
];

fn run(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    let Options { filename, filebase, comment, config } = cx.options()?;
    comment.iter().try_for_each(|line| one_line::line("comment", line).map(drop))?;
    let file = match filename {
        Filename::System => "etc/containers/storage.conf",
        Filename::Vendor => "usr/share/containers/storage.conf",
    };
    let mut settings = match filebase.filter(|base| !base.is_empty()) {
        Some(base) => parse_file(root, &base)?,
        None => Table::default(),
    };
    let there = if cx.tree.exists(file)? { parse_file(&cx.tree, file)? } else { Table::default() };
    for more in [there, Table::from_json(&config.entries)?] {
        settings.merge(more.only("storage"));
    }
    let comment = INTRO.into_iter().chain(comment.iter().map(String::as_str)).map(|line| format!("# {line}"));
    let comment = comment.collect::<Vec<_>>().join("\n");
    cx.tree.write(file, format!("{comment}\n\n{}", settings.text()))
}

fn parse_file(tree: &Tree, path: &str) -> Result<Table, Error> {
    Table::parse(&tree.read_to_string(path)?).map_err(|error| Error::failed(format!("{path} cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "etc/containers/storage.conf";
    const START: &str = "# This file is the configuration file for all tools that\n# use the containers/storage \
                         library.\n# See 'man 5 containers-storage.conf' for more information.\n# This file was \
                         created by osbuild.\n# \n";

    static TEST: ModuleDef = ModuleDef {
        entry: Entry::Stage(|cx| {
            let directory = tempfile::tempdir().unwrap();
            let root = Tree::open(directory.path()).unwrap();
            root.write("base.conf", "top = 1\n[storage]\ndriver = \"vfs\"\nrunroot = \"/a\"\n").unwrap();
            run(cx, &root)
        }),
        ..MODULE
    };

    #[test]
    fn settings_are_merged_into_the_file_and_this_into_its_base() {
        let config = json!({"storage": {"driver": "btrfs", "options": {"overlay": {"mountopt": "x"}}}});
        let case =
            Case::new(&TEST).file(FILE, "other = 2\n[storage]\n# c\nrunroot = \"/b\"\n[storage.options]\nz = 1\n");
        let options = json!({"filebase": "/base.conf", "comment": ["Mine."], "config": config});
        let done = case.run(options).ok();
        let expected = "\n# Mine.\n\ntop = 1\n\n[storage]\ndriver = \"btrfs\"\nrunroot = \"/b\"\n\n[storage.options]\nz = 1\n\n\
                        [storage.options.overlay]\nmountopt = \"x\"\n";
        assert_eq!(done.text(FILE), format!("{START}{expected}"));
    }

    #[test]
    fn the_file_is_created_but_not_its_directory() {
        let options = json!({"config": {"storage": {"transient_store": true}}});
        let done = Case::new(&TEST).dir("etc/containers").run(options.clone()).ok();
        assert_eq!(done.text(FILE), format!("{START}\n\n[storage]\ntransient_store = true\n"));
        assert!(Case::new(&TEST).run(options.clone()).err().starts_with("cannot write /etc/containers/storage.conf"));
        let done = Case::new(&TEST).file(FILE, "[").run(options);
        assert!(done.err().starts_with("etc/containers/storage.conf cannot be read: it is no TOML"));
    }
}
