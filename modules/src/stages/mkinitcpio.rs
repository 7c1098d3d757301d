//! Creates the initial RAM file systems of a preset.
//!
//! The tree's own `mkinitcpio`, which Arch Linux has, is run in a chroot of the tree. The preset is a file in
//! `/etc/mkinitcpio.d` there.
//!
//! ```json
//! { "type": "org.osbuild.mkinitcpio", "options": { "preset": "linux-lts" } }
//! ```

use osbc_module_api::*;

use crate::trees::chroot::{CapabilitySet, Program};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.mkinitcpio",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"preset": 1}}"#, r#"{"options": {"preset": "linux", "other": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The preset
    #[serde(default = "usual")]
    preset: String,
}

fn usual() -> String {
    "linux".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { preset } = cx.options()?;
    // It puts /dev/console and others into the image; in the tree they do not work.
    Program::find(&cx.tree, "mkinitcpio")?.may(CapabilitySet::MKNOD).args(["-p", &preset]).run()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    #[test]
    fn the_trees_program_gets_the_preset() {
        // Hooks read lists from what these lead to.
        let script = "echo \"$@\" >/etc/said; for link in fd stdin; do busybox readlink /dev/$link; done >>/etc/said";
        for (options, preset) in [(json!({}), "linux"), (json!({"preset": "lts"}), "lts")] {
            let Some(case) = with_script(&MODULE, "usr/bin/mkinitcpio", script) else { return };
            assert_eq!(case.run(options).ok().text("etc/said"), format!("-p {preset}\n/proc/self/fd\nfd/0\n"));
        }
    }

    #[test]
    fn a_tree_without_the_program_fails_with_the_package_that_has_it() {
        let error = Case::new(&MODULE).run(json!({})).err();
        assert_eq!(error, "the tool `mkinitcpio` is not in the tree; install the package `mkinitcpio` there");
    }
}
