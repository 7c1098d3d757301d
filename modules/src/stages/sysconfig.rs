//! Writes files of `/etc/sysconfig`.
//!
//! Each group of settings is a file of its own, written anew, in the manifest's order where that may differ; a group
//! without settings is no file. `livesys` and `desktop` are owned by root and have the mode 0644.
//!
//! osbuild writes the names of its own variables to `livesys` and `desktop` in place of the values.
//!
//! ```json
//! {
//!   "type": "org.osbuild.sysconfig",
//!   "options": {
//!     "kernel": { "update_default": true, "default_kernel": "kernel-core" },
//!     "network": { "networking": true, "no_zero_conf": true },
//!     "network-scripts": { "ifcfg": { "eth0": { "device": "eth0", "bootproto": "dhcp", "onboot": true } } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::{Entries, InOrder};
use crate::texts::shell;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.sysconfig",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"kernel": {"update_default": "yes"}}}"#,
        r#"{"options": {"network": {"other": 1}}}"#,
        r#"{"options": {"network-scripts": {"ifcfg": {"eth0": {"bootproto": "ipv6"}}}}}"#,
        r#"{"options": {"network-scripts": {"ifcfg": {"a/b": {}}}}}"#,
        r#"{"options": {"network-scripts": {"ifcfg": {".a": {}}}}}"#,
        r#"{"options": {"livesys": {}}}"#,
        r#"{"options": {"desktop": {}}}"#,
        r#"{"options": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The file `kernel`
    #[serde(default)]
    kernel: InOrder<Kernel>,
    /// The file `network`
    #[serde(default)]
    network: InOrder<Network>,
    /// The files of `network-scripts`
    network_scripts: Option<NetworkScripts>,
    /// The file `livesys`
    livesys: Option<Livesys>,
    /// The file `desktop`
    desktop: Option<Desktop>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Kernel {
    /// Whether a new kernel becomes the default one
    update_default: Option<bool>,
    /// The package that has the default kernel
    default_kernel: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Network {
    /// Whether there is a network
    networking: Option<bool>,
    /// Whether link-local addresses get no route
    no_zero_conf: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NetworkScripts {
    /// The files `ifcfg-NAME`, by name
    ifcfg: Option<Entries<Name, InOrder<Interface>>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct Name(#[schemars(regex(pattern = r"^[^/:.\s]{1,2}[^/:\s]{0,13}$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Interface {
    /// How it gets its addresses
    #[schemars(extend("enum" = ["none", "bootp", "dhcp", "static", "ibft", "autoip", "shared"]))]
    bootproto: Option<String>,
    /// The interface
    device: Option<String>,
    /// Whether it has IPv6
    ipv6init: Option<bool>,
    /// Whether it is up from the start
    onboot: Option<bool>,
    /// Whether the name servers that DHCP gives go to resolv.conf
    peerdns: Option<bool>,
    /// What kind of interface it is
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["Ethernet", "Wireless", "InfiniBand", "Bridge", "Bond", "Vlan"]))]
    kind: Option<String>,
    /// Whether users may control it
    userctl: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Livesys {
    /// The desktop session of the live system
    session: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["preferred"]}, {"required": ["displaymanager"]}]))]
struct Desktop {
    /// The desktop
    preferred: Option<String>,
    /// The display manager
    displaymanager: Option<String>,
}

const DIRECTORY: &str = "etc/sysconfig";

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let options: Options = cx.options()?;
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    plain(cx, "kernel", lines(&options.kernel.entries, shell::assigned))?;
    plain(cx, "network", lines(&options.network.entries, shell::assigned))?;
    if let Some(NetworkScripts { ifcfg: Some(Entries(interfaces)) }) = options.network_scripts {
        cx.tree.create_dir_all(format!("{DIRECTORY}/network-scripts"), 0o777)?;
        for (Name(name), interface) in interfaces {
            plain(cx, &format!("network-scripts/ifcfg-{name}"), lines(&interface.entries, shell::quoted))?;
        }
    }
    if let Some(Livesys { session }) = options.livesys {
        public(cx, "livesys", &format!("livesys_session={}\n", shell::quoted(&session)))?;
    }
    if let Some(Desktop { preferred, displaymanager }) = options.desktop {
        let line = |name, value: Option<String>| {
            value.map(|value| format!("{name}={}\n", shell::assigned(&value))).unwrap_or_default()
        };
        public(cx, "desktop", &(line("PREFERRED", preferred) + &line("DISPLAYMANAGER", displaymanager)))?;
    }
    Ok(())
}

/// The lines of a file: keys in capitals without `_`, values as `write` writes them.
fn lines(settings: &Map<String, Value>, write: fn(&str) -> String) -> String {
    let line = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::Bool(yes) => {
                if *yes {
                    "yes"
                } else {
                    "no"
                }
            }
            value => value.as_str().unwrap_or_default(),
        };
        format!("{}={}\n", key.replace('_', "").to_uppercase(), write(value))
    };
    settings.iter().map(line).collect()
}

fn plain(cx: &StageContext, name: &str, lines: String) -> Result<(), Error> {
    if lines.is_empty() { Ok(()) } else { cx.tree.write(format!("{DIRECTORY}/{name}"), lines) }
}

fn public(cx: &StageContext, name: &str, lines: &str) -> Result<(), Error> {
    let path = format!("{DIRECTORY}/{name}");
    cx.tree.write(&path, lines)?;
    cx.tree.chown(&path, Some(0), Some(0))?;
    cx.tree.chmod(&path, 0o644)
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_root;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_group_is_a_file_in_its_order() {
        let done = Case::new(&MODULE).run(json!({
            "kernel": {"default_kernel": "kernel", "update_default": false},
            "network": {"networking": true, "no_zero_conf": false},
            "network-scripts": {"ifcfg": {
                "eth0": {"onboot": true, "device": "eth0", "type": "Ethernet", "ipv6init": false},
                "lo": {},
            }},
        }));
        let done = done.ok();
        assert_eq!(done.text("etc/sysconfig/kernel"), "DEFAULTKERNEL=kernel\nUPDATEDEFAULT=no\n");
        assert_eq!(done.text("etc/sysconfig/network"), "NETWORKING=yes\nNOZEROCONF=no\n");
        let eth0 = "ONBOOT=\"yes\"\nDEVICE=\"eth0\"\nTYPE=\"Ethernet\"\nIPV6INIT=\"no\"\n";
        assert_eq!(done.text("etc/sysconfig/network-scripts/ifcfg-eth0"), eth0);
        assert_eq!(done.tree.read_dir("etc/sysconfig/network-scripts").unwrap(), ["ifcfg-eth0"]);
    }

    #[test]
    fn without_settings_there_is_the_directory_alone() {
        let options = json!({"kernel": {}, "network-scripts": {}});
        assert!(Case::new(&MODULE).run(options).ok().tree.read_dir("etc/sysconfig").unwrap().is_empty());
    }

    #[test]
    fn live_systems_and_desktops_get_their_values() {
        if !has_root() {
            return;
        }
        let case = Case::new(&MODULE).file("etc/sysconfig/livesys", "old").mode("etc/sysconfig/livesys", 0o600);
        let done = case.run(json!({"livesys": {"session": "gnome"}, "desktop": {"preferred": "GNOME"}})).ok();
        assert_eq!(done.text("etc/sysconfig/livesys"), "livesys_session=\"gnome\"\n");
        assert_eq!(done.mode("etc/sysconfig/livesys"), 0o644);
        assert_eq!(done.text("etc/sysconfig/desktop"), "PREFERRED=GNOME\n");
    }

    #[test]
    fn a_shell_reads_the_values_back() {
        let options = json!({
            "kernel": {"default_kernel": "a b"}, "network-scripts": {"ifcfg": {"eth0": {"device": "$x\"y"}}},
        });
        let done = Case::new(&MODULE).run(options).ok();
        assert_eq!(done.text("etc/sysconfig/kernel"), "DEFAULTKERNEL=\"a b\"\n");
        assert_eq!(done.text("etc/sysconfig/network-scripts/ifcfg-eth0"), "DEVICE=\"\\$x\\\"y\"\n");
    }
}
