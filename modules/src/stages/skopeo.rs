//! Copies container images to a container storage, a directory or an archive in the tree.
//!
//! Calls `skopeo` of the build root on each image of the input `images`. A list of images in the input `manifest-lists`
//! is kept with the image that was chosen from it. The destination is a path in the tree; osbuild takes it as text
//! behind the tree's own path.
//!
//! ```json
//! {
//!   "type": "org.osbuild.skopeo",
//!   "inputs": {
//!     "images": {
//!       "type": "org.osbuild.containers",
//!       "origin": "org.osbuild.source",
//!       "references": {
//!         "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": { "name": "registry.example.com/app" }
//!       }
//!     }
//!   },
//!   "options": { "destination": { "type": "containers-storage", "storage-path": "/usr/share/containers/storage" } }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.skopeo",
//!   "inputs": {
//!     "images": {
//!       "type": "org.osbuild.containers",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:container": { "name": "app" } }
//!     }
//!   },
//!   "options": { "destination": { "type": "oci", "path": "/image" }, "remove-signatures": true }
//! }
//! ```

use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::containers::container_image::Image;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.skopeo",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("skopeo"), Requirement::PlainTree(lays_layers)],
    schema: || {
        let any = json!({"type": "object", "additionalProperties": true});
        let inputs = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["images"],
            "properties": {"images": any, "manifest-lists": any}
        });
        Schema::stage::<Options>().with("inputs", inputs).version_2_alone()
    },
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"destination": {"type": "docker"}}}"#,
        r#"{"options": {"destination": {"type": "oci"}}}"#,
        r#"{"options": {"destination": {"type": "containers-storage", "path": "/x"}}}"#,
        r#"{"options": {"destination": {"type": "oci", "path": "/x"}, "remove-signatures": "yes"}}"#,
        r#"{"options": {"destination": {"type": "oci", "path": "/x"}}, "inputs": {}}"#,
        r#"{"options": {"destination": {"type": "oci", "path": "/x"}}, "inputs": {"images": {}, "more": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// Where the images go
    destination: Destination,
    /// Whether signatures are left out, for destinations that cannot keep them
    #[serde(default)]
    remove_signatures: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
enum Destination {
    /// A container storage
    ContainersStorage {
        /// The storage
        #[serde(default = "usual_storage")]
        storage_path: String,
        /// How it keeps layers
        #[serde(default = "usual_driver")]
        storage_driver: String,
    },
    /// A directory in the OCI image layout
    Oci {
        /// The directory
        path: String,
    },
    /// An archive in the OCI image layout
    OciArchive {
        /// The archive
        path: String,
    },
    /// A directory of plain files, to look into an image
    Dir {
        /// The directory
        path: String,
    },
}

/// Whether a container storage is made, whose usual driver refuses to work on an overlay.
fn lays_layers(options: &Value) -> bool {
    options["destination"]["type"] == "containers-storage"
}

fn usual_storage() -> String {
    "/var/lib/containers/storage".to_owned()
}

fn usual_driver() -> String {
    "overlay".to_owned()
}

impl Destination {
    /// What skopeo calls an image of that name there.
    fn reference(&self, tree: &Tree, name: &str) -> Result<String, Error> {
        let (kind, path) = match self {
            Destination::ContainersStorage { storage_path, storage_driver } => {
                let place = place(tree, Path::new(storage_path))?;
                let storage = format!("{storage_driver}@{}+/run/containers/storage", place.display());
                return Ok(format!("containers-storage:[{storage}]{name}"));
            }
            Destination::Oci { path } => ("oci", path),
            Destination::OciArchive { path } => ("oci-archive", path),
            Destination::Dir { path } => ("dir", path),
        };
        if let Some(directory) = Path::new(path).parent() {
            tree.create_dir_all(directory, 0o777)?;
        }
        Ok(format!("{kind}:{}", tree.path_for_tools(path)?.display()))
    }
}

/// A path of the tree for tools, of which the last parts need not be there.
fn place(tree: &Tree, path: &Path) -> Result<PathBuf, Error> {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if !tree.exists(path)? => Ok(place(tree, directory)?.join(name)),
        _ => tree.path_for_tools(path),
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    for image in Image::of_inputs(cx)? {
        let source = image.open()?;
        let destination = options.destination.reference(&cx.tree, &image.name)?;
        let mut tool = cx.tool("skopeo")?.arg("copy");
        if options.remove_signatures {
            tool = tool.arg("--remove-signatures");
        }
        tool.args([&source.reference, &destination]).run()?;
    }
    if let Destination::ContainersStorage { storage_path, storage_driver } = &options.destination
        && storage_driver == "overlay"
    {
        // A device node that the driver leaves on xfs and makes anew in every boot; OSTree could not keep it.
        let node = format!("{storage_path}/overlay/backingFsBlockDev");
        if cx.tree.exists(&node)? {
            cx.tree.remove_file(&node)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn destinations_lie_in_the_tree_wherever_links_lead() {
        let case = Case::new(&MODULE).dir("data").link("var", "/data");
        let root = case.path();
        let reference = |value: Value| {
            let destination = Destination::deserialize(value).unwrap();
            destination.reference(case.tree(), "app").unwrap().replace(root.to_str().unwrap(), "TREE")
        };
        assert_eq!(
            reference(json!({"type": "containers-storage"})),
            "containers-storage:[overlay@TREE/data/lib/containers/storage+/run/containers/storage]app"
        );
        let storage = json!({"type": "containers-storage", "storage-path": "/s", "storage-driver": "vfs"});
        assert_eq!(reference(storage), "containers-storage:[vfs@TREE/s+/run/containers/storage]app");
        assert_eq!(reference(json!({"type": "oci-archive", "path": "/var/a/b.tar"})), "oci-archive:TREE/data/a/b.tar");
        assert_eq!(reference(json!({"type": "dir", "path": "image"})), "dir:TREE/image");
    }
}
