//! Makes an OSTree system of a tree and deploys a commit in it, all in one.
//!
//! Deprecated: use `org.osbuild.ostree.init-fs`, `org.osbuild.ostree.pull`, `org.osbuild.ostree.os-init`,
//! `org.osbuild.ostree.deploy`, `org.osbuild.ostree.config`, `org.osbuild.ostree.remotes` and
//! `org.osbuild.ostree.fillvar` for new manifests. Calls `ostree`, and where the deployment has SELinux `setfiles`, of
//! the build root on the commit of the input `commit`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree",
//!   "inputs": {
//!     "commit": {
//!       "type": "org.osbuild.ostree",
//!       "origin": "org.osbuild.source",
//!       "references": { "439911411ce7868f7030c7b5b1a1a3ccf3b6a8b0e7b0a4c0e7b9d2f3c1d5e6f7": { "ref": "os/stable" } }
//!     }
//!   },
//!   "options": {
//!     "osname": "fedora",
//!     "rootfs": { "label": "root" },
//!     "kernel_opts": ["rw"],
//!     "mounts": [{ "path": "/boot/efi", "mode": 448 }],
//!     "remotes": [{ "name": "fedora", "url": "https://example.com/repo" }],
//!     "populate_var": true
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{self, Commits, RootFileSystem, ostree, populate_var, repository, sysroot};
use crate::trees::bound::Bound;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::Tool("ostree"),
        Requirement::MayCall("setfiles"),
        Requirement::MayCall("systemd-tmpfiles"),
    ],
    schema: || Schema::stage::<Options>().inputs(&["commit"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"osname": "os", "mounts": ["/boot"]}}"#,
        r#"{"options": {"osname": "os", "rootfs": {}}}"#,
        r#"{"options": {"osname": "os", "remotes": [{"name": "r"}]}}"#,
        r#"{"options": {"osname": "os", "populate_var": "yes"}}"#,
        r#"{"options": {"osname": "os"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// What there is besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// Where other file systems of the system are mounted
    #[serde(default)]
    mounts: Vec<Mount>,
    /// Name of the stateroot
    osname: String,
    /// Options of the kernel
    #[serde(default)]
    kernel_opts: Vec<String>,
    /// A ref, which does not count: the input names it
    #[serde(rename = "ref")]
    _reference: Option<String>,
    /// Remotes of the system's repository
    #[serde(default)]
    remotes: Vec<Remote>,
    /// How the kernel finds the root file system
    rootfs: Option<RootFileSystem>,
    /// Whether `/var` is filled with the directories that the system expects
    #[serde(default)]
    populate_var: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Mount {
    /// The directory, made where there is none
    path: String,
    /// Its mode
    #[serde(default = "usual_mode")]
    mode: i64,
}

fn usual_mode() -> i64 {
    0o755
}

/// A remote; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Remote {
    /// Its name
    name: String,
    /// Its URL
    url: String,
    /// The branches to follow
    #[serde(default)]
    branches: Vec<String>,
    /// The keys that sign its commits
    #[serde(default)]
    gpgkeys: Vec<String>,
}

impl From<Remote> for ostree_tool::Remote {
    fn from(remote: Remote) -> Self {
        let Remote { name, url, branches, gpgkeys } = remote;
        Self { name, url, branches, gpgkeys, ..Self::default() }
    }
}

const REPOSITORY: &str = "ostree/repo";

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let commits = Commits::of_input(cx, "commit")?;
    let (commit, reference) = commits.only()?;
    let (tree, os) = (&cx.tree, &options.osname);
    let (root, sysroot) = (tree.path_for_tools("/")?, sysroot(tree)?);
    cx.tool("ostree")?.args(["admin", "init-fs", "--modern"]).arg(root).arg(&sysroot).run()?;
    let repository = repository(tree, REPOSITORY)?;
    commits.pull(cx, &repository, None)?;
    ostree(cx, &["admin", "os-init", os, &sysroot])?;
    deploy(cx, &options, reference, &sysroot)?;

    let state = format!("ostree/deploy/{os}");
    if options.populate_var {
        populate_var(cx, &tree.subtree(&state)?)?;
    }
    ostree(cx, &["config", "set", "sysroot.readonly", "true", &repository])?;
    label(cx, &state, &format!("{state}/deploy/{commit}.0"))?;
    options.remotes.into_iter().try_for_each(|remote| ostree_tool::Remote::from(remote).add(cx, &repository))
}

fn deploy(cx: &StageContext, options: &Options, reference: &str, sysroot: &str) -> Result<(), Error> {
    let mut bound = Bound::default();
    for Mount { path, mode } in &options.mounts {
        let mode = u32::try_from(*mode).ok().filter(|mode| *mode <= 0o7777);
        let mode = mode.ok_or_else(|| Error::failed(format!("the mode of {path} is none")))?;
        cx.tree.create_dir_all(path, 0o777)?;
        cx.tree.chmod(path, mode)?;
        bound.bind(&cx.tree, path, &cx.tree, path)?;
    }
    let mut tool = cx.tool("ostree")?.args(["admin", "deploy", reference]);
    if let Some(root) = &options.rootfs {
        tool = tool.arg(format!("--karg=root={}", root.identifier()?));
    }
    let words = options.kernel_opts.iter().map(|word| format!("--karg-append={word}"));
    tool.args(words).arg(sysroot).arg(format!("--os={}", options.osname)).run()
}

/// Labels what deploying has written, as `ostree` does it only where the running kernel has SELinux.
fn label(cx: &StageContext, state: &str, deployment: &str) -> Result<(), Error> {
    let mut policy = None;
    for directory in ["etc/selinux", "usr/etc/selinux"] {
        let directory = format!("{deployment}/{directory}");
        let config = format!("{directory}/config");
        if cx.tree.is_file(&config)? {
            policy = policy_of(&cx.tree.read_to_string(config)?).map(|name| format!("{directory}/{name}"));
        }
    }
    let Some(policy) = policy else { return Ok(()) };
    let contexts = cx.tree.path_for_tools(format!("{policy}/contexts/files/file_contexts"))?;
    for (root, directory) in [("/", "boot"), (deployment, "etc"), (state, "var")] {
        let root = cx.tree.subtree(root)?;
        let (place, directory) = (root.path_for_tools("/")?, root.path_for_tools(directory)?);
        cx.tool("setfiles")?.args(["-F", "-r"]).arg(place).arg(&contexts).arg(directory).run()?;
    }
    Ok(())
}

/// The policy that a configuration of SELinux names, unless it is switched off.
fn policy_of(config: &str) -> Option<String> {
    let lines = config.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
    let value = |wanted: &str| pairs.clone().rfind(|(key, _)| *key == wanted).map(|(_, value)| value);
    matches!(value("SELINUX"), Some("enforcing" | "permissive")).then(|| value("SELINUXTYPE"))?.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_counts_unless_selinux_is_off() {
        let config = |state: &str| format!("# SELINUX=disabled\nSELINUX = {state}\n\nSELINUXTYPE=targeted\n");
        assert_eq!(policy_of(&config("enforcing")).as_deref(), Some("targeted"));
        assert_eq!(policy_of(&config("permissive")).as_deref(), Some("targeted"));
        assert_eq!(policy_of(&config("disabled")), None);
        assert_eq!(policy_of("SELINUX=enforcing"), None);
    }
}
