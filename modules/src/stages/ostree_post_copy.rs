//! Repairs what copying a system with an OSTree deployment loses, such as the protection of its files by fs-verity.
//!
//! Calls `ostree` of the build root on the root of all mounts, or on `sysroot` below it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.post-copy",
//!   "devices": { "disk": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "partscan": true } } },
//!   "mounts": [{ "name": "root", "type": "org.osbuild.ext4", "source": "disk", "partition": 1, "target": "/" }],
//!   "options": { "sysroot": "/sysroot" }
//! }
//! ```

use osbc_module_api::location::MOUNTS;
use osbc_module_api::*;

use crate::ostrees::ostree_tool::{ostree, sysroot};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.post-copy",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("ostree")],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"sysroot": "sysroot"}}"#,
        r#"{"options": {"sysroot": "/../sysroot"}}"#,
        r#"{"options": {"path": "/"}}"#,
        r#"{"options": {}, "inputs": {}, "mounts": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let options: Options = cx.options()?;
        let mounts = Tree::open(MOUNTS)?;
        let root = options.sysroot.as_deref().map_or_else(|| mounts.try_clone(), |path| mounts.subtree(path))?;
        ostree(cx, &["admin", "post-copy", &sysroot(&root)?])
    }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Where the system is below the root of all mounts
    #[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))]
    sysroot: Option<String>,
}
