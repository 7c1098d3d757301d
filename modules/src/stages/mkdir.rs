//! Creates directories in the tree or in mounts.
//!
//! The mode of a new directory is `mode` less the umask; directories that are there keep theirs. With `parents` the
//! directories above are made too, with mode 0777 less the umask. A path without a leading `/` is one of the tree as
//! well.
//!
//! Two corners are as in osbuild: with `parents`, a location that ends in `/` does not heed `mode`; and without it,
//! `exist_ok` is content with anything that is there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.mkdir",
//!   "options": { "paths": [{ "path": "tree:///var/lib/app/data", "mode": 448, "parents": true, "exist_ok": true }] }
//! }
//! ```

use std::io::ErrorKind;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.mkdir",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"paths": [{}]}}"#,
        r#"{"options": {"paths": [{"path": ""}]}}"#,
        r#"{"options": {"paths": [{"path": "/../etc"}]}}"#,
        r#"{"options": {"paths": [{"path": "/etc/../../x"}]}}"#,
        r#"{"options": {"paths": [{"path": "/etc", "parents": 1}]}}"#,
        r#"{"options": {"paths": [{"path": "/etc", "mode": "0755"}]}}"#,
        r#"{"options": {"paths": [{"path": "/etc", "owner": "root"}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The directories, in order.
    #[serde(default)]
    paths: Vec<Directory>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Directory {
    /// Where: `/path`, `tree:///path` or `mount://NAME/path`.
    #[schemars(extend("anyOf" = [
        {"pattern": r"^\/?(?!\.\.)((?!\/\.\.\/).)+$"},
        {"pattern": "^mount://.+"},
        {"pattern": "^tree://.+"},
    ]))]
    path: String,
    /// Permission bits, as a number: 448 is 0700.
    #[serde(default = "all")]
    #[schemars(with = "f64")]
    mode: u32,
    /// Whether to create the directories above.
    #[serde(default)]
    parents: bool,
    /// Whether it may be there already.
    #[serde(default)]
    exist_ok: bool,
}

fn all() -> u32 {
    0o777
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { paths } = cx.options()?;
    paths.iter().try_for_each(|directory| create(cx, directory))
}

fn create(cx: &StageContext, directory: &Directory) -> Result<(), Error> {
    let Directory { path, mode, parents, exist_ok } = directory;
    let in_tree = !path.contains("://") && !path.starts_with('/');
    let Location { tree, path, .. } = cx.location(&if in_tree { format!("/{path}") } else { path.clone() })?;
    if *parents {
        if path.as_os_str().as_encoded_bytes().ends_with(b"/.") && !tree.exists(&path)? {
            return tree.create_dir_all(&path, 0o777);
        }
        if let Some(parent) = path.parent() {
            tree.create_dir_all(parent, 0o777)?;
        }
    }
    match tree.create_dir(&path, *mode) {
        Err(Error::Io { source, .. })
            if source.kind() == ErrorKind::AlreadyExists && *exist_ok && (!parents || tree.is_dir(&path)?) =>
        {
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn make(case: Case, paths: Value) -> Done {
        case.run(json!({ "paths": paths }))
    }

    #[test]
    fn paths_with_and_without_scheme_are_of_the_tree() {
        let paths = json!([{"path": "/a"}, {"path": "b", "mode": 0o700}, {"path": "tree:///a/c"}]);
        let done = make(Case::new(&MODULE), paths).ok();
        assert_eq!((done.mode("a"), done.mode("b"), done.mode("a/c")), (0o755, 0o700, 0o755));
    }

    #[test]
    fn directories_are_made_in_mounts() {
        let case = Case::new(&MODULE).mount("root", |_| ());
        let done = make(case, json!([{"path": "mount://root/a/b", "parents": true}])).ok();
        assert!(done.mount("root").is_dir("a/b").unwrap());
        assert_eq!(done.tree.read_dir("/").unwrap().len(), 0);
        let done = make(Case::new(&MODULE), json!([{"path": "mount://boot/a"}]));
        assert_eq!(done.err(), "the stage needs a mount called `boot`");
    }

    #[test]
    fn parents_are_made_on_demand_and_do_not_get_the_mode() {
        let done = make(Case::new(&MODULE), json!([{"path": "/a/b/c", "parents": true, "mode": 0o700}])).ok();
        assert_eq!((done.mode("a"), done.mode("a/b"), done.mode("a/b/c")), (0o755, 0o755, 0o700));
        let done = make(Case::new(&MODULE), json!([{"path": "/a/b"}]));
        assert_eq!(done.err(), "cannot create the directory /a/b: No such file or directory (os error 2)");
    }

    #[test]
    fn what_exists_is_an_error_unless_allowed_and_keeps_its_mode() {
        for parents in [false, true] {
            let case = || Case::new(&MODULE).dir("a").mode("a", 0o711);
            let done = make(case(), json!([{"path": "/a", "parents": parents}]));
            assert!(done.err().contains("File exists"), "{parents}");
            let done = make(case(), json!([{"path": "/a", "parents": parents, "exist_ok": true, "mode": 0o700}])).ok();
            assert_eq!(done.mode("a"), 0o711);
        }
    }

    #[test]
    fn a_file_in_the_way_is_refused_only_with_parents() {
        let file = || Case::new(&MODULE).file("a", "");
        make(file(), json!([{"path": "/a", "exist_ok": true}])).ok();
        let done = make(file(), json!([{"path": "/a", "exist_ok": true, "parents": true}]));
        assert!(done.err().contains("File exists"));
    }

    #[test]
    fn with_a_slash_at_the_end_the_mode_is_not_heeded() {
        let done = make(Case::new(&MODULE), json!([{"path": "/a/b/", "parents": true, "mode": 0o700}])).ok();
        assert_eq!(done.mode("a/b"), 0o755);
        let done = make(Case::new(&MODULE), json!([{"path": "/a/"}]));
        assert!(done.err().contains("No such file"));
    }
}
