//! Runs commands on the first boot.
//!
//! Creates `/etc/osbuild-first-boot` and a service that takes it away again and runs the commands, as long as it is there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.first-boot",
//!   "options": { "commands": ["/usr/bin/touch /var/lib/first"], "wait_for_network": true }
//! }
//! ```

use crate::texts::systemd_unit;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.first-boot",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"commands": "a"}}"#,
        r#"{"options": {"commands": [], "wait_for_network": 1}}"#,
        r#"{"options": {"commands": [], "user": "a"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const UNITS: &str = "usr/lib/systemd/system";
const MARK: &str = "etc/osbuild-first-boot";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The command lines, in order.
    commands: Vec<String>,
    /// Whether the network is to be up before.
    #[serde(default)]
    wait_for_network: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { commands, wait_for_network } = cx.options()?;
    commands.iter().try_for_each(|command| systemd_unit::setting("commands", command).map(drop))?;
    let wants = format!("{UNITS}/default.target.wants");
    cx.tree.create_dir_all(&wants, 0o777)?;
    cx.tree.write(format!("{UNITS}/osbuild-first-boot.service"), service(&commands, wait_for_network))?;
    cx.tree.symlink("../osbuild-first-boot.service", format!("{wants}/osbuild-first-boot.service"))?;
    cx.tree.create_dir_all("etc", 0o777)?;
    cx.tree.append(MARK, "")
}

fn service(commands: &[String], wait_for_network: bool) -> String {
    let network = if wait_for_network { "Wants=network-online.target\nAfter=network-online.target" } else { "" };
    let remove = format!("/usr/bin/rm /{MARK}");
    let commands = std::iter::once(&remove).chain(commands);
    let commands: String = commands.map(|command| format!("ExecStart={command}\n")).collect();
    let unit = format!("Description=OSBuild First Boot Service\nConditionPathExists=/{MARK}\n{network}");
    format!("[Unit]\n{unit}\n\n[Service]\nType=oneshot\n\n{commands}")
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_service_removes_its_mark_first() {
        let done = Case::new(&MODULE).file(MARK, "kept").run(json!({"commands": ["a b", "c"]})).ok();
        let unit = "[Unit]\nDescription=OSBuild First Boot Service\nConditionPathExists=/etc/osbuild-first-boot\n\n\n";
        let service = "[Service]\nType=oneshot\n\nExecStart=/usr/bin/rm /etc/osbuild-first-boot\n";
        let expected = format!("{unit}{service}ExecStart=a b\nExecStart=c\n");
        assert_eq!(done.text("usr/lib/systemd/system/osbuild-first-boot.service"), expected);
        let link = "usr/lib/systemd/system/default.target.wants/osbuild-first-boot.service";
        assert_eq!(done.link(link), "../osbuild-first-boot.service");
        assert_eq!(done.text(MARK), "kept");
    }

    #[test]
    fn it_may_wait_for_the_network() {
        let text = service(&[], true);
        let wait = "\nWants=network-online.target\nAfter=network-online.target\n\n[Service]";
        assert!(text.contains(wait), "{text}");
    }

    #[test]
    fn twice_is_an_error() {
        let wants = "usr/lib/systemd/system/default.target.wants/osbuild-first-boot.service";
        let done = Case::new(&MODULE).file(wants, "").run(json!({"commands": []}));
        assert!(done.err().starts_with("cannot create the link"));
    }

    #[test]
    fn a_command_is_one_line_of_the_unit() {
        let error = Case::new(&MODULE).run(json!({"commands": ["/a\nUser=b"]})).err().to_owned();
        assert!(error.starts_with("the option `commands` has a line break"), "{error}");
    }
}
