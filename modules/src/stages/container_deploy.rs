//! Unpacks a container image to the tree.
//!
//! The layers of the one image of the input `images` are laid one over the other and copied to the tree with owners,
//! modes, times and attributes; what `exclude` names is removed thereafter. `tar` of the build root extracts the
//! layers; only an image in the host's container storage needs `skopeo` too. osbuild has podman mount the image.
//!
//! ```json
//! {
//!   "type": "org.osbuild.container-deploy",
//!   "inputs": {
//!     "images": {
//!       "type": "org.osbuild.containers",
//!       "origin": "org.osbuild.source",
//!       "references": {
//!         "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": { "name": "localhost/image" }
//!       }
//!     }
//!   },
//!   "options": { "exclude": ["/sysroot"] }
//! }
//! ```

use osbc_module_api::tree::Copy;
use osbc_module_api::*;

use crate::containers::container_image::Image;
use crate::containers::image_layers::Layers;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.container-deploy",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("tar"), Requirement::MayCall("skopeo")],
    schema: || Schema::stage::<Options>().inputs(&["images"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"exclude": []}, "inputs": {"images": {}}}"#,
        r#"{"options": {"exclude": "a"}, "inputs": {"images": {}}}"#,
        r#"{"options": {"remove-signatures": "yes"}, "inputs": {"images": {}}}"#,
        r#"{"options": {"other": 1}, "inputs": {"images": {}}}"#,
        r#"{"inputs": {"images": {}, "manifest-lists": {}}}"#,
        r#"{"inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// Where layers have room.
const WORKSPACE: &str = "/var/tmp";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// What is removed in the end
    #[schemars(length(min = 1))]
    exclude: Option<Vec<String>>,
    /// Accepted for osbuild's sake: signatures are no part of a tree
    #[serde(default, rename = "remove-signatures")]
    _remove_signatures: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { exclude, .. } = cx.options()?;
    let workspace = tempfile::tempdir_in(WORKSPACE).map_err(Error::io("create a directory in", WORKSPACE))?;
    let images = Image::of_inputs(cx)?;
    let [image] = images.as_slice() else {
        let count = images.len();
        return Err(Error::failed(format!("the input `images` must have exactly one image, but has {count}")));
    };
    let root = Layers::of(cx, image, workspace.path())?.unpack(cx, workspace.path())?;
    Copy::default().run(&Tree::open(workspace.path().join(root))?, ".", &cx.tree, "/")?;
    for path in exclude.unwrap_or_default() {
        cx.tree.remove_dir_all(path)?;
    }
    workspace.close().map_err(Error::io("remove the directory in", WORKSPACE))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::containers::registry_image::digest;

    const ID: &str = "sha256:0000";

    /// An image of two layers in the directory `directory`, in skopeo's `dir` format.
    fn image(directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        let layer = |script: &str, compress: &str| {
            let root = tempfile::tempdir().unwrap();
            let script = format!("{script}; tar {compress} -cf - *");
            let output = Command::new("sh").args(["-ec", &script]).current_dir(root.path()).output().unwrap();
            assert!(output.status.success());
            put(directory, &output.stdout)
        };
        let first =
            layer("mkdir etc usr; echo 1 >etc/a; echo 1 >etc/b; ln etc/b etc/c; ln -s usr lib; chmod 700 usr", "-z");
        let second = layer("mkdir etc; touch etc/.wh.a; echo 2 >etc/new; mknod null c 1 3; chown 7:8 etc/new", "");
        write_manifest(directory, &[first, second]);
    }

    /// Puts a blob into the image, and returns its descriptor.
    fn put(directory: &Path, blob: &[u8]) -> Value {
        let digest = digest(blob);
        fs::write(directory.join(&digest[7..]), blob).unwrap();
        json!({"digest": digest, "size": blob.len()})
    }

    fn write_manifest(directory: &Path, layers: &[Value]) {
        fs::write(directory.join("manifest.json"), json!({"schemaVersion": 2, "layers": layers}).to_string()).unwrap();
    }

    fn case() -> Case {
        let data = json!({"archives": {ID: {"format": "dir", "name": "localhost/a"}}});
        Case::new(&MODULE).input("images", data, |tree| image(&tree.path_for_tools("/").unwrap().join(ID)))
    }

    #[test]
    fn layers_become_the_tree() {
        if !has_root() || !has_tool("tar") {
            return;
        }
        let done = case().file("etc/own", "kept").run(json!({"exclude": ["/lib", "usr"]})).ok();
        assert_eq!(done.tree.read_dir("etc").unwrap(), ["b", "c", "new", "own"]);
        assert_eq!(done.tree.read_dir("/").unwrap(), ["etc", "null"]);
        assert_eq!((done.text("etc/new").as_str(), done.owner("etc/new"), done.mode("/")), ("2\n", (7, 8), 0o555));
        let link = |path: &str| std::os::unix::fs::MetadataExt::ino(&done.tree.metadata(path).unwrap());
        assert_eq!(link("etc/b"), link("etc/c"));
    }

    #[test]
    fn one_image_of_a_known_format_is_wanted() {
        let none = Case::new(&MODULE).input("images", json!({"archives": {}}), |_| ());
        assert!(none.run(json!({})).err().contains("but has 0"));
        let data = json!({"archives": {ID: {"format": "docker-archive", "name": "a"}}});
        let other = Case::new(&MODULE).input("images", data, |_| ());
        assert!(other.run(json!({})).err().contains("docker-archive"));
    }

    #[test]
    fn a_damaged_layer_is_an_error() {
        if !has_root() || !has_tool("tar") {
            return;
        }
        let refused = |layers: &dyn Fn(&Path) -> Value| {
            let data = json!({"archives": {ID: {"format": "dir", "name": "a"}}});
            let case = Case::new(&MODULE).input("images", data, |tree| {
                let directory = tree.path_for_tools("/").unwrap().join(ID);
                fs::create_dir(&directory).unwrap();
                write_manifest(&directory, &[layers(&directory)]);
            });
            case.run(json!({})).err()
        };
        assert!(refused(&|directory| put(directory, b"\x1f\x8bno gzip")).contains("decompress"));
        let other = refused(&|directory| {
            let layer = put(directory, b"what it was");
            put(directory, b"what it is");
            fs::rename(directory.join(&digest(b"what it is")[7..]), directory.join(&digest(b"what it was")[7..]))
                .unwrap();
            json!({ "digest": layer["digest"] })
        });
        assert!(
            other.starts_with("cannot use the image a (sha256:0000): the blob ")
                && other.contains(&digest(b"what it is")),
            "{other}"
        );
    }
}
