//! Sets the SELinux labels of what an OSTree deployment added.
//!
//! By the file contexts of the deployment's policy, which must not be switched off, `/boot` of the tree, `/etc` of the
//! deployment and `/var` of its stateroot are labelled. `setfiles` of the build root does it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.selinux",
//!   "options": { "deployment": { "osname": "fedora", "ref": "fedora/x86_64/iot", "serial": 0 } }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree::Deployment;
use crate::texts::text;
use crate::trees::selinux_labels;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.selinux",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[Requirement::MayCall("setfiles")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"deployment": {"osname": "a"}}}"#,
        r#"{"options": {"deployment": {"osname": "a", "ref": "b", "default": true}}}"#,
        r#"{"options": {"deployment": {"default": true}, "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The deployment
    deployment: Deployment,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { deployment } = cx.options()?;
    let path = deployment.path(&cx.tree)?;
    let stateroot = path.split("/deploy/").take(2).collect::<Vec<_>>().join("/deploy/");
    let root = cx.tree.subtree(&path)?;
    let contexts = contexts(&root)?;
    let contexts = root.path_for_tools(contexts)?;
    selinux_labels::set_files(cx, &contexts, &cx.tree, "/boot", &[])?;
    selinux_labels::set_files(cx, &contexts, &root, "/etc", &[])?;
    selinux_labels::set_files(cx, &contexts, &cx.tree.subtree(stateroot)?, "/var", &[])
}

/// The file contexts of the deployment's policy.
fn contexts(root: &Tree) -> Result<String, Error> {
    for directory in ["etc/selinux", "usr/etc/selinux"] {
        let config = format!("{directory}/config");
        if root.is_file(&config)?
            && let Some(policy) = selinux_labels::policy(&text::read(root, &config)?)
        {
            return Ok(format!("{directory}/{policy}/contexts/files/file_contexts"));
        }
    }
    Err(Error::failed("the deployment has no SELinux policy that is switched on"))
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;

    const DEPLOYMENT: &str = "ostree/deploy/fedora/deploy/abc.0";

    fn case(config: &str) -> Case {
        let at = |path: &str| format!("{DEPLOYMENT}/{path}");
        Case::new(&MODULE)
            .file(&at("usr/etc/selinux/config"), config)
            .file(&at("usr/etc/selinux/own/contexts/files/file_contexts"), "/.* system_u:object_r:any_t:s0\n")
            .file(&at("etc/hosts"), "")
            .file(&at("usr/bin/cp"), "")
            .file("ostree/deploy/fedora/var/log/a", "")
            .file("boot/vmlinuz", "")
    }

    #[test]
    fn what_the_deployment_added_is_labelled() {
        if !has_root() || !has_tool("setfiles") {
            return;
        }
        let case = case("SELINUX=enforcing\nSELINUXTYPE=own\n");
        let done = case.run(json!({"deployment": {"default": true}})).ok();
        let labelled = |path: &str| done.tree.xattr(path, "security.selinux").unwrap().is_some();
        for path in ["boot/vmlinuz", &format!("{DEPLOYMENT}/etc/hosts"), "ostree/deploy/fedora/var/log/a"] {
            assert!(labelled(path), "{path}");
        }
        assert!(!labelled(&format!("{DEPLOYMENT}/usr/bin/cp")));
    }

    #[test]
    fn a_policy_is_wanted() {
        let done = case("SELINUX=disabled\nSELINUXTYPE=own\n").run(json!({"deployment": {"default": true}}));
        assert_eq!(done.err(), "the deployment has no SELinux policy that is switched on");
    }
}
