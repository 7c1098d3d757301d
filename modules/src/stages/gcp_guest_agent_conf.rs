//! Configures the guest agent of Google Cloud.
//!
//! Edits `/etc/default/instance_configs.cfg.distro`, or with `"config_scope": "instance"`
//! `/etc/default/instance_configs.cfg`: comments and all other settings stay.
//!
//! ```json
//! {
//!   "type": "org.osbuild.gcp.guest-agent.conf",
//!   "options": {
//!     "config_scope": "distro",
//!     "config": { "InstanceSetup": { "set_boto_config": false }, "Accounts": { "groups": ["adm", "video"] } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini;
use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::python;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.gcp.guest-agent.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {}}}"#,
        r#"{"options": {"config": {"Accounts": {}}}}"#,
        r#"{"options": {"config": {"Accounts": {"groups": "a"}}}}"#,
        r#"{"options": {"config": {"Daemons": {"network_daemon": "no"}}}}"#,
        r#"{"options": {"config": {"Other": {"a": "b"}}}}"#,
        r#"{"options": {"config_scope": "user", "config": {"Daemons": {"network_daemon": true}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whose file it is. Without it, the instance's.
    config_scope: Option<Scope>,
    /// The settings.
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Distro,
    Instance,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    accounts: Option<Accounts>,
    daemons: Option<Daemons>,
    instance_setup: Option<InstanceSetup>,
    ip_forwarding: Option<IpForwarding>,
    metadata_scripts: Option<MetadataScripts>,
    network_interfaces: Option<NetworkInterfaces>,
}

/// How users are made and removed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Accounts {
    /// Whether removing a user takes the home directory along.
    deprovision_remove: Option<bool>,
    /// Groups of new users.
    groups: Option<Vec<Value>>,
    /// Makes a user.
    useradd_cmd: Option<String>,
    /// Removes a user.
    userdel_cmd: Option<String>,
    /// Changes a user's groups.
    usermod_cmd: Option<String>,
    /// Adds a user to a group.
    gpasswd_add_cmd: Option<String>,
    /// Takes a user from a group.
    gpasswd_remove_cmd: Option<String>,
    /// Makes a group.
    groupadd_cmd: Option<String>,
}

/// Which daemons run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Daemons {
    /// The one for accounts.
    accounts_daemon: Option<bool>,
    /// The one for the clock.
    clock_skew_daemon: Option<bool>,
    /// The one for the network.
    network_daemon: Option<bool>,
}

/// What is done when an instance begins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct InstanceSetup {
    /// Kinds of host keys to make.
    host_key_types: Option<Vec<Value>>,
    /// Whether to tune for a local SSD.
    optimize_local_ssd: Option<bool>,
    /// Whether to do what needs the network.
    network_enabled: Option<bool>,
    /// Whether to write the configuration of boto.
    set_boto_config: Option<bool>,
    /// Whether to make host keys on the first boot.
    set_host_keys: Option<bool>,
    /// Whether to set up several queues of a driver.
    set_multiqueue: Option<bool>,
}

/// How addresses are forwarded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct IpForwarding {
    /// The protocol of routes that the daemon adds.
    ethernet_proto_id: Option<String>,
    /// Whether to set up routes for aliases.
    ip_aliases: Option<bool>,
    /// Whether to set up routes for load balancing.
    target_instance_ips: Option<bool>,
}

/// How scripts are run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct MetadataScripts {
    /// The shell.
    default_shell: Option<String>,
    /// The directory they run in.
    run_dir: Option<String>,
    /// Whether those for the start run.
    startup: Option<bool>,
    /// Whether those for the end run.
    shutdown: Option<bool>,
}

/// How interfaces are set up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct NetworkInterfaces {
    /// Whether they are.
    setup: Option<bool>,
    /// Whether addresses are forwarded.
    ip_forwarding: Option<bool>,
    /// Another DHCP client.
    dhcp_command: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config_scope, config } = cx.options()?;
    let file = match config_scope {
        Some(Scope::Distro) => "etc/default/instance_configs.cfg.distro",
        Some(Scope::Instance) | None => "etc/default/instance_configs.cfg",
    };
    cx.tree.create_dir_all("etc/default", 0o777)?;
    ini::edit(&cx.tree, file, &config.entries, |value| match value {
        Value::Array(items) => python::join(", ", items),
        Value::Bool(said) => Ok(said.to_string()),
        value => python::scalar(value),
    })
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_scope_chooses_the_file() {
        let options = |scope| json!({"config_scope": scope, "config": {"Daemons": {"network_daemon": false}}});
        for (scope, file) in [("distro", "instance_configs.cfg.distro"), ("instance", "instance_configs.cfg")] {
            let done = Case::new(&MODULE).run(options(scope)).ok();
            assert_eq!(done.text(&format!("etc/default/{file}")), "[Daemons]\nnetwork_daemon = false");
        }
    }

    #[test]
    fn settings_are_edited() {
        let config = json!({"Accounts": {"groups": ["a", "b"], "useradd_cmd": "useradd {user}"}});
        let file = "etc/default/instance_configs.cfg";
        let case = Case::new(&MODULE).file(file, "# agent\n[Accounts]\nGroups=old\n");
        let done = case.run(json!({ "config": config })).ok();
        assert_eq!(done.text(file), "# agent\n[Accounts]\nGroups=a, b\nuseradd_cmd = useradd {user}\n");
        let done = Case::new(&MODULE).run(json!({"config": {"Accounts": {"groups": [1]}}}));
        assert_eq!(done.err(), "a list of texts has 1");
    }
}
