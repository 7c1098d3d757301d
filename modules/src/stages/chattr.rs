//! Makes files and directories immutable, or takes that from them.
//!
//! Only regular files and directories have the attribute, and only on file systems that know it. Links on the way to a
//! path are followed inside the tree or mount, a link at its end is refused. No tool is needed.
//!
//! ```json
//! {
//!   "type": "org.osbuild.chattr",
//!   "options": { "items": { "mount://root/": { "immutable": true } } },
//!   "devices": { "disk": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img" } } },
//!   "mounts": [{ "name": "root", "type": "org.osbuild.xfs", "source": "disk", "target": "/" }]
//! }
//! ```

use osbc_module_api::*;
use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};

use crate::texts::options::{Entries, required};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.chattr",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"items": {"/a": {"immutable": true}}}}"#,
        r#"{"options": {"items": {"mount:///a": {"immutable": true}}}}"#,
        r#"{"options": {"items": {"tree:///a": {}}}}"#,
        r#"{"options": {"items": {"tree:///a": {"immutable": "yes"}}}}"#,
        r#"{"options": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What to change, by location
    items: Option<Entries<Place, Item>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct Place(
    #[schemars(regex(pattern = "^mount://[^/]+/|^tree:///"))]
    String,
);

#[derive(Debug, Deserialize, JsonSchema)]
struct Item {
    /// Whether nobody may change it
    immutable: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { items } = cx.options()?;
    let Entries(items) = required(items, "items")?;
    for (Place(place), Item { immutable }) in items {
        let Location { tree, path, .. } = cx.location(&place)?;
        let kind = tree.symlink_metadata(&path)?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(Error::failed(format!("{place} is neither a file nor a directory, so it cannot be immutable")));
        }
        let file = tree.open_file(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW, 0)?;
        let mut flags = ioctl_getflags(&file).map_err(Error::io("read the attributes of", &path))?;
        flags.set(IFlags::IMMUTABLE, immutable);
        ioctl_setflags(&file, flags).map_err(Error::io("change the attributes of", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_root;
    use osbc_module_api::testing::Case;

    use super::*;

    fn flags(tree: &Tree, path: &str) -> IFlags {
        ioctl_getflags(tree.open_file(path, OFlags::RDONLY, 0).unwrap()).unwrap()
    }

    #[test]
    fn the_attribute_is_set_and_taken() {
        if !has_root() {
            return;
        }
        let case = Case::new(&MODULE).file("directory/file", "");
        // Not every file system of temporary files knows the attribute.
        if ioctl_getflags(case.tree().open_file("directory/file", OFlags::RDONLY, 0).unwrap()).is_err() {
            return;
        }
        let set = case.run(json!({"items": {
            "tree:///directory/file": {"immutable": true},
            "tree:///directory/": {"immutable": true},
        }}));
        let is_set = ["directory", "directory/file"].map(|path| flags(&set.tree, path).contains(IFlags::IMMUTABLE));
        let again = Case::new(&MODULE).file("directory/file", "");
        // What is immutable cannot be removed with the test's directory.
        for path in ["directory", "directory/file"] {
            let file = set.tree.open_file(path, OFlags::RDONLY, 0).unwrap();
            ioctl_setflags(&file, flags(&set.tree, path) - IFlags::IMMUTABLE).unwrap();
        }
        set.ok();
        assert_eq!(is_set, [true, true]);
        let done = again.run(json!({"items": {"tree:///directory/file": {"immutable": false}}})).ok();
        assert!(!flags(&done.tree, "directory/file").contains(IFlags::IMMUTABLE));
    }

    #[test]
    fn links_and_missing_files_are_refused() {
        let run = |path: &str| {
            let case = Case::new(&MODULE).file("file", "").link("link", "file");
            case.run(json!({"items": {format!("tree:///{path}"): {"immutable": true}}}))
        };
        assert!(run("link").err().contains("neither a file nor a directory"));
        assert!(run("missing").err().contains("No such file"));
        assert_eq!(Case::new(&MODULE).run(json!({})).err(), "the option `items` is missing");
    }
}
