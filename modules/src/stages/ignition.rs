//! Lets Ignition run on the first boot.
//!
//! Writes `ignition.firstboot` to the boot directory `target`, which GRUB looks for. The file may say how the network
//! is set up.
//!
//! ```json
//! { "type": "org.osbuild.ignition", "options": { "network": ["rd.neednet=1", "ip=dhcp"] } }
//! ```

use crate::texts::one_line;
use crate::texts::shell;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ignition",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"network": "dhcp"}}"#,
        r#"{"options": {"target": 1}}"#,
        r#"{"options": {"path": "/boot"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Kernel options for the network, in place of the usual ones.
    #[serde(default)]
    network: Vec<String>,
    /// The boot directory: `tree:///path` or `mount://NAME/path`.
    #[serde(default = "boot")]
    target: String,
}

fn boot() -> String {
    "tree:///boot".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { network, target } = cx.options()?;
    let Location { tree, path, .. } = cx.location(&target)?;
    let network = if network.is_empty() {
        String::new()
    } else {
        format!("set ignition_network_kcmdline={}", shell::single_quoted(&network.join(" ")))
    };
    tree.write(path.join("ignition.firstboot"), network)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "boot/ignition.firstboot";

    #[test]
    fn the_file_says_how_the_network_is_set_up() {
        let done = Case::new(&MODULE).dir("boot").run(json!({})).ok();
        assert_eq!(done.text(FILE), "");
        let done = Case::new(&MODULE).dir("boot").run(json!({"network": ["a", "b=c"]})).ok();
        assert_eq!(done.text(FILE), "set ignition_network_kcmdline='a b=c'");
    }

    #[test]
    fn it_may_go_to_a_mount() {
        let case = Case::new(&MODULE).mount("root", |tree| tree.create_dir("boot", 0o755).unwrap());
        let done = case.run(json!({"target": "mount://root/boot"})).ok();
        assert_eq!(done.mount("root").read_to_string(FILE).unwrap(), "");
        assert!(Case::new(&MODULE).run(json!({})).err().starts_with("cannot write /boot/ignition.firstboot"));
    }
}
