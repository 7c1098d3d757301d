//! Shows a directory of a mount in the tree, or the other way round, with all that is mounted below it.
//!
//! `target` and `source` are locations: `tree://` is the tree, `mount://` the root of all mounts, each followed by a
//! path in it. Both directories must be there. osbuild drops all but the first component of such a path; here all of it
//! counts.
//!
//! ```json
//! {
//!   "name": "tree",
//!   "type": "org.osbuild.bind",
//!   "target": "tree://",
//!   "options": { "source": "mount://" }
//! }
//! ```

use std::fs::File;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::trees::bind::{Access, bind};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.bind",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema()),
    rejects: &[
        r#"{"target": "tree://", "options": {"source": "mount://"}}"#,
        r#"{"name": "tree", "options": {"source": "mount://"}}"#,
        r#"{"name": "tree", "target": "/", "options": {"source": "mount://"}}"#,
        r#"{"name": "tree", "target": "tree://", "options": {}}"#,
        r#"{"name": "tree", "source": "disk", "target": "tree://", "options": {"source": "mount://"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| {
        let options: Options = context.options()?;
        let target = context.target.ok_or_else(|| Error::failed("the mount needs a target"))?;
        let (source, over) = (find(context, &options.source)?, find(context, target)?);
        bind(source, over, Access::AsIs).map_err(Error::io("bind a directory to", target))?;
        Ok(None)
    }),
};

#[derive(Deserialize)]
struct Options {
    /// The location of what is shown.
    source: String,
}

/// As in osbuild, options beside the source are ignored.
fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "type", "target"],
        "properties": {
            "name": {"description": "The name of the mount.", "type": "string"},
            "type": {"type": "string"},
            "target": {
                "description": "The location in the tree where it appears.",
                "type": "string",
                "pattern": "^tree://"
            },
            "options": {"type": "object", "required": ["source"]}
        }
    })
}

/// A handle on the directory at a location.
fn find(context: &MountContext, location: &str) -> Result<File, Error> {
    let (root, path) = match location.split_once("://") {
        Some(("tree", path)) => (context.tree, path),
        Some(("mount", path)) => (context.root, path),
        _ => {
            let reason = format!("the location {location} starts with neither tree:// nor mount://");
            return Err(Error::failed(reason));
        }
    };
    Tree::open(root)?.open_file(path.trim_start_matches('/'), OFlags::PATH, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use osbc_fixtures::has_root;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    #[test]
    fn root_a_directory_of_the_mounts_appears_in_the_tree() {
        if !has_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (root, tree) = (directory.path().join("mounts"), directory.path().join("tree"));
        fs::create_dir_all(root.join("ostree/deploy")).unwrap();
        fs::create_dir_all(tree.join("boot")).unwrap();
        fs::write(root.join("ostree/deploy/file"), "deployed").unwrap();
        let Entry::Mount(mount) = MODULE.entry else { panic!("a mount") };
        let at = |target, options: Value| {
            mount(&MountContext { source: None, target: Some(target), root: &root, tree: &tree, options: &options })
        };
        in_own_namespace(|| {
            assert_eq!(at("tree://boot", json!({"source": "mount://ostree/deploy"})).unwrap(), None);
            assert_eq!(fs::read_to_string(tree.join("boot/file")).unwrap(), "deployed");
            fs::write(tree.join("boot/new"), "").unwrap();
            at("tree://", json!({"source": "mount://"})).unwrap();
            let reopened = fs::read_to_string(tree.join("ostree/deploy/file")).unwrap();
            assert_eq!(reopened, "deployed");
        });
        assert!(root.join("ostree/deploy/new").exists());
        assert!(!tree.join("ostree").exists());
        let refused = |target, source: &str| at(target, json!({"source": source})).unwrap_err().to_string();
        assert!(refused("tree://missing", "mount://").starts_with("cannot open /missing:"));
        assert_eq!(refused("tree://boot", "/etc"), "the location /etc starts with neither tree:// nor mount://");
    }
}
