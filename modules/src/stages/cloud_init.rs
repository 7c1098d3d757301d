//! Configures cloud-init.
//!
//! Writes the YAML file `filename` below `/etc/cloud/cloud.cfg.d`, which must be there, with its keys sorted.
//!
//! ```json
//! {
//!   "type": "org.osbuild.cloud-init",
//!   "options": {
//!     "filename": "10-image.cfg",
//!     "config": { "system_info": { "default_user": { "name": "core" } }, "datasource_list": ["Ec2", "None"] }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::options::InOrder;
use crate::texts::yaml;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.cloud-init",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.cfg"}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {}}}"#,
        r#"{"options": {"filename": "a", "config": {"ssh_pwauth": true}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"ssh_pwauth": "yes"}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"system_info": {}}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"datasource_list": ["Gce"]}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"datasource": {"Azure": {}}}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"reporting": {"logging": {"type": "syslog"}}}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"network": {"config": "dhcp"}}}}"#,
        r#"{"options": {"filename": "a.cfg", "config": {"users": []}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file's name.
    #[schemars(regex(pattern = r"^[\w.-]{1,251}\.cfg$"))]
    filename: String,
    /// The settings.
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    /// Whether users may log in over SSH with a password.
    ssh_pwauth: Option<bool>,
    /// What is special about the distribution.
    system_info: Option<SystemInfo>,
    /// Where reports go.
    reporting: Option<Reporting>,
    /// Where to look for data, in order.
    datasource_list: Option<Vec<Datasource>>,
    /// Settings of where to look for data; any is taken.
    datasource: Option<Datasources>,
    /// Where the output of the stages goes.
    output: Option<Output>,
    /// The network.
    network: Option<Network>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct SystemInfo {
    /// The user that is created.
    default_user: Option<DefaultUser>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct DefaultUser {
    /// The user's name.
    name: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Reporting {
    /// Those for people.
    logging: Option<Handler>,
    /// Those for programs.
    telemetry: Option<Handler>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Handler {
    /// What takes them.
    r#type: Option<HandlerType>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum HandlerType {
    Log,
    Print,
    Webhook,
    Hyperv,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum Datasource {
    Azure,
    Ec2,
    Oracle,
    NoCloud,
    #[serde(rename = "WSL")]
    Wsl,
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Datasources {
    /// Settings of Azure; any is taken.
    azure: Option<Azure>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Azure {
    /// Whether the network is as the cloud says.
    apply_network_config: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Output {
    /// Of the stage `init`.
    init: Option<String>,
    /// Of the stage `config`.
    config: Option<String>,
    /// Of the stage `final`.
    r#final: Option<String>,
    /// Of all stages.
    all: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Network {
    /// Says that cloud-init leaves it alone.
    config: Option<NetworkConfig>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum NetworkConfig {
    Disabled,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, config } = cx.options()?;
    // cloud-init wants this list in one line.
    let text = yaml::dump(&Value::Object(config.entries), "datasource_list");
    cx.tree.write(format!("etc/cloud/cloud.cfg.d/{filename}"), text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn keys_are_sorted_and_one_list_stands_in_a_line() {
        let config = json!({
            "system_info": {"default_user": {"name": "on"}}, "datasource_list": ["Ec2", "None"], "ssh_pwauth": false,
            "datasource": {"Azure": {"apply_network_config": true}, "Ec2": {"timeout": 5, "urls": ["a", "b"]}},
        });
        let case = Case::new(&MODULE).dir("etc/cloud/cloud.cfg.d");
        let done = case.run(json!({"filename": "a.cfg", "config": config})).ok();
        let text = "datasource:\n  Azure:\n    apply_network_config: true\n  Ec2:\n    timeout: 5\n    urls:\n    - a\n    - b\n\
                    datasource_list: [Ec2, None]\nssh_pwauth: false\nsystem_info:\n  default_user:\n    name: 'on'\n";
        assert_eq!(done.text("etc/cloud/cloud.cfg.d/a.cfg"), text);
    }

    #[test]
    fn the_directory_must_be_there() {
        let done = Case::new(&MODULE).run(json!({"filename": "a.cfg", "config": {"ssh_pwauth": true}}));
        assert!(done.err().starts_with("cannot write /etc/cloud/cloud.cfg.d/a.cfg"));
    }
}
