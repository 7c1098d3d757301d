//! Configures NetworkManager.
//!
//! Writes the file `path` anew, for its owner alone, with the sections in the manifest's order. Of `device` and
//! `global-dns-domain` there may be several; each is a section with `name` in its title.
//!
//! ```json
//! {
//!   "type": "org.osbuild.nm.conf",
//!   "options": {
//!     "path": "/etc/NetworkManager/conf.d/50-image.conf",
//!     "settings": {
//!       "main": { "plugins": ["keyfile"] },
//!       "device": [{ "name": "wifi", "config": { "managed": false } }]
//!     }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::options::InOrder;
use crate::trees::network_manager;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.nm.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"path": "/a"}}"#,
        r#"{"options": {"path": "/a", "settings": {"main": {"plugins": []}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"main": {"dns": "none"}}}}"#,
        r#"{"options": {"path": "/a", "settings": {"device": []}}}"#,
        r#"{"options": {"path": "/a", "settings": {"device": [{"name": "a"}]}}}"#,
        r#"{"options": {"path": "/a", "settings": {"device": [{"config": {"managed": "no"}}]}}}"#,
        r#"{"options": {"path": "/a", "settings": {"global-dns-domain": [{"config": {"servers": ["a"]}}]}}}"#,
        r#"{"options": {"path": "/a", "settings": {"global-dns-domain": [{"name": "a", "config": {}}]}}}"#,
        r#"{"options": {"path": "/a", "settings": {"keyfile": {"unmanaged-devices": "a"}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file.
    path: String,
    /// Its sections.
    settings: InOrder<Settings>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Settings {
    /// The section `main`.
    main: Option<Main>,
    /// Sections for devices.
    #[schemars(length(min = 1))]
    device: Option<Vec<DeviceSection>>,
    /// Sections for domains.
    #[schemars(length(min = 1))]
    global_dns_domain: Option<Vec<DomainSection>>,
    /// The section `keyfile`.
    keyfile: Option<Keyfile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Main {
    /// Devices that get no connection of their own accord.
    #[schemars(length(min = 1))]
    no_auto_default: Option<Vec<String>>,
    /// Plugins that read connections.
    #[schemars(length(min = 1))]
    plugins: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct DeviceSection {
    /// What the section's title ends in.
    name: Option<String>,
    /// Its settings.
    config: Device,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Device {
    /// Whether NetworkManager takes care of it.
    managed: Option<bool>,
    /// Whether a scan for networks uses a random address.
    #[serde(rename = "wifi.scan-rand-mac-address")]
    wifi_scan_rand_mac_address: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct DomainSection {
    /// The domain.
    name: String,
    /// Its settings.
    config: Domain,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Domain {
    /// Its name servers.
    #[schemars(length(min = 1))]
    servers: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Keyfile {
    /// Devices that NetworkManager does not take care of.
    #[schemars(length(min = 1))]
    unmanaged_devices: Option<Vec<String>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { path, settings } = cx.options()?;
    let mut ini = Sections::default();
    for (name, value) in &settings.entries {
        match value {
            Value::Array(sections) => {
                for section in sections {
                    let suffix = section["name"].as_str().filter(|suffix| !suffix.is_empty());
                    let title = suffix.map_or(name.clone(), |suffix| format!("{name}-{suffix}"));
                    network_manager::set(ini.section(&title)?, &section["config"])?;
                }
            }
            settings => network_manager::set(ini.section(name)?, settings)?,
        }
    }
    network_manager::write(&cx.tree, &path, &ini)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn sections_may_have_names() {
        let settings = json!({
            "keyfile": {"unmanaged-devices": ["a", "b"]},
            "device": [
                {"config": {"managed": true}},
                {"name": "w", "config": {"wifi.scan-rand-mac-address": false}},
                {"name": "w", "config": {"managed": false}},
            ],
            "global-dns-domain": [{"name": "*", "config": {"servers": ["::1"]}}],
            "main": {"no-auto-default": ["*"]},
        });
        let done = Case::new(&MODULE).run(json!({"path": "/etc/NetworkManager/x", "settings": settings})).ok();
        let sections = [
            "[keyfile]\nunmanaged-devices=a,b\n\n",
            "[device]\nmanaged=true\n\n",
            "[device-w]\nwifi.scan-rand-mac-address=false\nmanaged=false\n\n",
            "[global-dns-domain-*]\nservers=::1\n\n",
            "[main]\nno-auto-default=*\n\n",
        ];
        assert_eq!(done.text("etc/NetworkManager/x"), sections.concat());
        assert_eq!(done.mode("etc/NetworkManager/x"), 0o600);
    }

    #[test]
    fn percent_signs_stay_and_line_breaks_make_no_setting() {
        let settings = json!({"main": {"plugins": ["100%", "a\nb=c"]}});
        let done = Case::new(&MODULE).run(json!({"path": "/x", "settings": settings})).ok();
        assert_eq!(done.text("x"), "[main]\nplugins=100%,a\\nb=c\n\n");
    }
}
