//! Configures the agent of Azure.
//!
//! Changes `/etc/waagent.conf`, which must be there: the first line `key=value` of a setting is replaced, whatever the key's
//! case, and a setting that has none is added at the end. The file is replaced by a new one of the same mode, a link too.
//!
//! ```json
//! {
//!   "type": "org.osbuild.waagent.conf",
//!   "options": { "config": { "ResourceDisk.Format": false, "ResourceDisk.EnableSwap": false } }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::settings::{self, Format};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.waagent.conf",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {"ResourceDisk.Format": "n"}}}"#,
        r#"{"options": {"config": {"ResourceDisk.MountPoint": true}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FORMAT: Format = Format {
    split: |line| line.split_once('=').filter(|(_, value)| !value.contains('=')),
    between: "=",
    ignores_case: true,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The settings
    config: Config,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Whether cloud-init sets the system up
    #[serde(rename = "Provisioning.UseCloudInit")]
    use_cloud_init: Option<bool>,
    /// Whether the agent sets the system up
    #[serde(rename = "Provisioning.Enabled")]
    provisioning: Option<bool>,
    /// Whether the resource disk is formatted
    #[serde(rename = "ResourceDisk.Format")]
    format: Option<bool>,
    /// Whether the resource disk has swap space
    #[serde(rename = "ResourceDisk.EnableSwap")]
    enable_swap: Option<bool>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { config } = cx.options()?;
    let settings = [
        ("Provisioning.UseCloudInit", config.use_cloud_init),
        ("Provisioning.Enabled", config.provisioning),
        ("ResourceDisk.Format", config.format),
        ("ResourceDisk.EnableSwap", config.enable_swap),
    ];
    let letter = |yes| if yes { "y" } else { "n" }.to_owned();
    let settings = settings.into_iter().filter_map(|(key, value)| Some((key, letter(value?)))).collect();
    settings::change(&cx.tree, "etc/waagent.conf", FORMAT, settings)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn settings_are_changed_or_added() {
        let old =
            "#ResourceDisk.Format=y\nresourcedisk.format=y\nProvisioning.Enabled = y\nResourceDisk.EnableSwap=a=b\n";
        let config = json!({
            "ResourceDisk.Format": false,
            "ResourceDisk.EnableSwap": true,
            "Provisioning.Enabled": false,
            "Provisioning.UseCloudInit": true,
        });
        let done = Case::new(&MODULE).file("etc/waagent.conf", old).run(json!({ "config": config })).ok();
        let new = "#ResourceDisk.Format=y\nresourcedisk.format=n\nProvisioning.Enabled = y\n\
            ResourceDisk.EnableSwap=a=b\nProvisioning.UseCloudInit=y\nProvisioning.Enabled=n\nResourceDisk.EnableSwap=y\n";
        assert_eq!(done.text("etc/waagent.conf"), new);
        assert!(Case::new(&MODULE).run(json!({"config": {}})).err().contains("No such file"));
    }
}
