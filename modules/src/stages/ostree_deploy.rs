//! Deploys an OSTree commit: lays out its files and makes a boot entry.
//!
//! Calls `ostree` of the build root on the tree, which `org.osbuild.ostree.init-fs` and `org.osbuild.ostree.os-init` have
//! prepared. The commit is `ref` of the tree's repository, or comes from the input `commits`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.deploy",
//!   "options": {
//!     "osname": "fedora",
//!     "remote": "fedora",
//!     "ref": "fedora/x86_64/iot",
//!     "mounts": ["/boot", "/boot/efi"],
//!     "rootfs": { "label": "root" },
//!     "kernel_opts": ["rw"]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{
    CAPABILITIES, Commits, RootFileSystem, kernel_options, mount_points, repository, sysroot,
};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.deploy",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("ostree")],
    schema: || Schema::stage::<Options>().inputs(&["commits"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"ref": "r"}}"#,
        r#"{"options": {"osname": "os", "ref": 1}}"#,
        r#"{"options": {"osname": "os", "mounts": [{"path": "/boot"}]}}"#,
        r#"{"options": {"osname": "os", "rootfs": {}}}"#,
        r#"{"options": {"osname": "os", "rootfs": {"label": "l", "uuid": "u"}}}"#,
        r#"{"options": {"osname": "os", "extra": 1}}"#,
        r#"{"options": {"osname": "os"}, "inputs": {}}"#,
        r#"{"options": {"osname": "os"}, "inputs": {"commits": {}, "more": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

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
    /// The commit's ref, without an input
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// The remote that the ref is of
    remote: Option<String>,
    /// How the kernel finds the root file system
    rootfs: Option<RootFileSystem>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (reference, remote) = (given(options.reference), given(options.remote));
    let words = kernel_options(options.kernel_opts, options.rootfs.as_ref())?;
    let _bound = mount_points(&cx.tree, &options.mounts)?;
    let reference = match (reference, cx.inputs.is_empty()) {
        (Some(reference), true) => reference,
        (None, true) => return Err(Error::failed("`ref` must be given, or an input `commits`")),
        (Some(_), false) => return Err(Error::failed("`ref` cannot be given beside an input")),
        (None, false) => {
            let commits = Commits::of_input(cx, "commits")?;
            commits.pull(cx, &repository(&cx.tree, "ostree/repo")?, remote.as_deref())?;
            commits.commits.last().map(|(_, reference)| reference.clone()).unwrap_or_default()
        }
    };
    let reference = remote.map_or_else(|| reference.clone(), |remote| format!("{remote}:{reference}"));
    let tool = cx.tool("ostree")?.args(["admin", "deploy", &reference]);
    let words = words.iter().map(|word| format!("--karg-append={word}"));
    tool.args(words).arg(sysroot(&cx.tree)?).arg(format!("--os={}", options.osname)).run()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_commit_comes_from_one_place() {
        let none = Case::new(&MODULE).run(json!({"osname": "os", "ref": ""}));
        assert_eq!(none.err(), "`ref` must be given, or an input `commits`");
        let case = || Case::new(&MODULE).input("commits", json!({"refs": {}}), |_| {});
        let both = case().run(json!({"osname": "os", "ref": "r"}));
        assert_eq!(both.err(), "`ref` cannot be given beside an input");
        assert_eq!(case().run(json!({"osname": "os"})).err(), "the input `commits` needs at least one commit");
    }

    #[test]
    fn mount_points_must_be_there() {
        let done = Case::new(&MODULE).run(json!({"osname": "os", "ref": "r", "mounts": ["/boot"]}));
        assert!(done.err().starts_with("cannot open /boot"), "{}", done.err());
    }
}
