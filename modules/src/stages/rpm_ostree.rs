//! Turns a tree into one that OSTree can deploy, where it has the layout already.
//!
//! Calls `rpm-ostree` of the build root. The machine id becomes empty if the tree has one.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rpm-ostree",
//!   "options": { "etc_group_members": ["wheel"], "initramfs-args": ["--no-hostonly"] }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::treefile::{CAPABILITIES, Postprocess};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.rpm-ostree",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("rpm-ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"etc_group_members": "wheel"}}"#,
        r#"{"options": {"initramfs-args": [1]}}"#,
        r#"{"options": {"tmp-is-dir": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let Options { etc_group_members, initramfs_args } = cx.options()?;
        let machine_id = cx.tree.exists("etc/machine-id")?;
        Postprocess { etc_group_members, initramfs_args, machine_id }.run(cx)
    }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The groups that stay in `/etc/group`
    #[serde(default)]
    etc_group_members: Vec<String>,
    /// The arguments of dracut
    #[serde(rename = "initramfs-args", default)]
    initramfs_args: Vec<String>,
}
