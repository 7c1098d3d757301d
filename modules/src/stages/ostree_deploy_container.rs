//! Deploys an OSTree system that comes as a container image.
//!
//! Calls `ostree` of the build root, which must know `ostree container`, on each image of the input `images`. The system
//! looks for updates at `target_imgref`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.deploy.container",
//!   "inputs": {
//!     "images": {
//!       "type": "org.osbuild.containers",
//!       "origin": "org.osbuild.source",
//!       "references": {
//!         "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": { "name": "registry.example.com/os" }
//!       }
//!     }
//!   },
//!   "options": {
//!     "osname": "default",
//!     "target_imgref": "ostree-unverified-registry:registry.example.com/os",
//!     "mounts": ["/boot", "/boot/efi"],
//!     "rootfs": { "label": "root" },
//!     "kernel_opts": ["rw"]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::containers::container_image::Image;
use crate::ostrees::ostree_tool::{CAPABILITIES, RootFileSystem, kernel_options, mount_points, sysroot};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.deploy.container",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("ostree")],
    schema: || Schema::stage::<Options>().inputs(&["images"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"osname": "os"}}"#,
        r#"{"options": {"target_imgref": "ostree-image-signed:x"}}"#,
        r#"{"options": {"osname": "os", "target_imgref": "docker://x"}}"#,
        r#"{"options": {"osname": "os", "target_imgref": "ostree-image-signed:x", "rootfs": {}}}"#,
        r#"{"options": {"osname": "os", "target_imgref": "ostree-image-signed:x", "extra": 1}}"#,
        r#"{"options": {"osname": "os", "target_imgref": "ostree-image-signed:x"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// References to images with how far their registry is trusted.
const REFERENCE: &str = "^(ostree-remote-registry|ostree-remote-image|ostree-image-signed|ostree-unverified-registry|ostree-unverified-image):.*$";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Where other file systems of the system are mounted
    #[serde(default)]
    mounts: Vec<String>,
    /// Name of the stateroot
    osname: String,
    /// Options of the kernel
    #[serde(default)]
    kernel_opts: Vec<String>,
    /// Where the system gets its updates from
    #[schemars(regex(pattern = REFERENCE))]
    target_imgref: String,
    /// How the kernel finds the root file system
    rootfs: Option<RootFileSystem>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let words = kernel_options(options.kernel_opts, options.rootfs.as_ref())?;
    let _bound = mount_points(&cx.tree, &options.mounts)?;
    for image in Image::of_inputs(cx)? {
        let source = image.open()?;
        let tool = cx.tool("ostree")?.args(["container", "image", "deploy"]);
        tool.arg(format!("--imgref=ostree-unverified-image:{}", source.reference))
            .arg(format!("--stateroot={}", options.osname))
            .arg(format!("--target-imgref={}", options.target_imgref))
            .args(words.iter().map(|word| format!("--karg={word}")))
            .arg(sysroot(&cx.tree)?)
            .run()?;
    }
    Ok(())
}
