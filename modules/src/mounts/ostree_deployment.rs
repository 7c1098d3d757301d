//! Lets the tree, or the root of all mounts, look like the OSTree deployment in it that was booted.
//!
//! The deployment appears in place of what holds it, with the latter at `/sysroot`, and with the system's `/var` and
//! `/boot`. The source `mount` needs a mount at `/` before this one. osbuild needs `ostree` on the host for it; here
//! nothing is called.
//!
//! ```json
//! {
//!   "name": "ostree.deployment",
//!   "type": "org.osbuild.ostree.deployment",
//!   "options": { "source": "mount", "deployment": { "osname": "fedora", "ref": "fedora/x86_64/iot", "serial": 0 } }
//! }
//! ```
//!
//! ```json
//! {
//!   "name": "ostree.deployment",
//!   "type": "org.osbuild.ostree.deployment",
//!   "options": { "deployment": { "default": true } }
//! }
//! ```

use std::fs::File;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::ostrees::ostree::Deployment;
use crate::trees::bind::{attach, copy_alone};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.ostree.deployment",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || {
        Schema::version_2(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "type"],
            "properties": {
                "name": {"description": "The name of the mount.", "type": "string"},
                "type": {"type": "string"},
                "options": options_schema::<Options>()
            }
        }))
    },
    rejects: &[
        r#"{"options": {"deployment": {"default": true}}}"#,
        r#"{"name": "ostree", "options": {}}"#,
        r#"{"name": "ostree", "options": {"deployment": {"osname": "os"}}}"#,
        r#"{"name": "ostree", "options": {"deployment": {"default": true, "osname": "fedora"}}}"#,
        r#"{"name": "ostree", "options": {"deployment": {"default": true}, "source": "disk"}}"#,
        r#"{"name": "ostree", "target": "/", "options": {"deployment": {"default": true}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| {
        let options: Options = context.options()?;
        let place = match options.source {
            Source::Tree => context.tree,
            Source::Mount => context.root,
        };
        let tree = Tree::open(place)?;
        let deployment = options.deployment.find(&tree)?;
        let copy = |path: &str| -> Result<_, Error> {
            copy_alone(open(&tree, path)?).map_err(Error::io("copy the mount of", path))
        };
        // In the order in which they lie on each other: they are taken down in the opposite one.
        let root = copy(&deployment.path())?;
        let parts = [("sysroot", copy("/")?), ("var", copy(&deployment.var())?), ("boot", copy("boot")?)];
        attach(&root, &tree).map_err(Error::io("mount at", place))?;
        // The handle from before still leads to what is now below.
        let tree = Tree::open(place)?;
        for (path, part) in parts {
            attach(&part, open(&tree, path)?).map_err(Error::io("mount at", path))?;
        }
        Ok(None)
    }),
};

fn open(tree: &Tree, path: &str) -> Result<File, Error> {
    tree.open_file(path, OFlags::PATH | OFlags::DIRECTORY, 0)
}

/// What there is besides these properties does not count.
#[derive(Deserialize, JsonSchema)]
struct Options {
    /// What holds the deployment.
    #[serde(default)]
    #[schemars(schema_with = "source_schema")]
    source: Source,
    /// Which deployment.
    deployment: Deployment,
}

fn source_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "What holds the deployment.",
        "type": "string",
        "pattern": "^(mount|tree)$",
        "default": "tree"
    })
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    #[default]
    Tree,
    Mount,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use osbc_fixtures::has_root;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    const COMMIT: &str = "0000000000000000000000000000000000000000000000000000000000000007";

    fn mount(tree: &Path, root: &Path, options: Value) -> Result<(), String> {
        let Entry::Mount(mount) = MODULE.entry else { panic!("a mount") };
        let context = MountContext { source: None, target: None, root, tree, options: &options };
        mount(&context).map(|path| assert_eq!(path, None)).map_err(|error| error.to_string())
    }

    #[test]
    fn root_the_deployment_appears_in_place_of_what_holds_it() {
        if !has_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (tree, other) = (directory.path().join("tree"), directory.path().join("other"));
        let deployment = tree.join(format!("ostree/deploy/os/deploy/{COMMIT}.0"));
        for part in ["sysroot", "var", "boot", "usr"] {
            fs::create_dir_all(deployment.join(part)).unwrap();
        }
        fs::create_dir_all(tree.join("ostree/deploy/os/var/lib")).unwrap();
        fs::create_dir_all(tree.join("boot/loader")).unwrap();
        fs::create_dir(&other).unwrap();
        let default = json!({"deployment": {"default": true}});
        let named = json!({"source": "mount", "deployment": {"osname": "os", "ref": COMMIT}});
        for (options, root) in [(default, &other), (named, &tree)] {
            in_own_namespace(|| {
                let place = if root == &tree { &other } else { &tree };
                mount(place, root, options.clone()).unwrap();
                fs::write(tree.join("usr/file"), "new").unwrap();
                assert!(tree.join("var/lib").is_dir() && tree.join("boot/loader").is_dir());
                assert!(tree.join("sysroot/ostree/deploy/os").is_dir());
            });
            assert_eq!(fs::read_to_string(deployment.join("usr/file")).unwrap(), "new");
            assert!(!tree.join("sysroot").exists(), "the mounts are gone");
        }
        let missing = json!({"deployment": {"osname": "os", "ref": "none"}});
        assert!(mount(&tree, &other, missing).unwrap_err().contains("has no ref `none`"));
        assert!(mount(&other, &tree, json!({"deployment": {"default": true}})).unwrap_err().contains("no OSTree"));
    }
}
