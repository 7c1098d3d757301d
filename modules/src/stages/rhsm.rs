//! Configures Red Hat Subscription Management.
//!
//! Changes the files of the plugins of dnf and yum, and `/etc/rhsm/rhsm.conf`, which must be there, with that section
//! for the latter. Comments and order stay. A plugin or file without settings is not touched.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rhsm",
//!   "options": {
//!     "dnf-plugins": { "product-id": { "enabled": false } },
//!     "subscription-manager": { "rhsm": { "manage_repos": false } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Document;
use crate::texts::options::InOrder;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.rhsm",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"dnf-plugins": {"other": {}}}}"#,
        r#"{"options": {"dnf-plugins": {"product-id": {"enabled": 1}}}}"#,
        r#"{"options": {"yum-plugins": {"product-id": {"level": 1}}}}"#,
        r#"{"options": {"subscription-manager": {"rhsm": {"manage_repos": "no"}}}}"#,
        r#"{"options": {"subscription-manager": {"other": {}}}}"#,
        r#"{"options": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The plugins of dnf
    #[serde(default)]
    dnf_plugins: Plugins,
    /// The plugins of yum
    #[serde(default)]
    yum_plugins: Plugins,
    /// Settings of subscription-manager, by section
    #[serde(default)]
    subscription_manager: InOrder<SubscriptionManager>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Plugins {
    /// The plugin `product-id`
    #[serde(default)]
    product_id: Plugin,
    /// The plugin `subscription-manager`
    #[serde(default)]
    subscription_manager: Plugin,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Plugin {
    /// Whether it is used
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct SubscriptionManager {
    /// The section `[rhsm]`
    rhsm: Option<Rhsm>,
    /// The section `[rhsmcertd]`
    rhsmcertd: Option<Rhsmcertd>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Rhsm {
    /// Whether it manages the file of repositories
    manage_repos: Option<bool>,
    /// Whether it enables the plugins of yum and dnf whenever it runs
    auto_enable_yum_plugins: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Rhsmcertd {
    /// Whether the system registers itself
    auto_registration: Option<bool>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { dnf_plugins, yum_plugins, subscription_manager } = cx.options()?;
    for (directory, plugins) in [("dnf/plugins", dnf_plugins), ("yum/pluginconf.d", yum_plugins)] {
        let Plugins { product_id, subscription_manager } = plugins;
        for (name, Plugin { enabled }) in [("product-id", product_id), ("subscription-manager", subscription_manager)] {
            if let Some(enabled) = enabled {
                let path = format!("etc/{directory}/{name}.conf");
                let mut file = Document::read(&cx.tree, &path)?;
                file.ensure_section("main");
                file.set("main", "enabled", digit(enabled))?;
                cx.tree.write(path, file.text())?;
            }
        }
    }
    if subscription_manager.entries.is_empty() {
        return Ok(());
    }
    let path = "etc/rhsm/rhsm.conf";
    let mut file = Document::read(&cx.tree, path)?;
    for (section, settings) in &subscription_manager.entries {
        for (key, value) in settings.as_object().into_iter().flatten() {
            file.set(section, key, digit(value == &Value::Bool(true)))?;
        }
    }
    cx.tree.write(path, file.text())
}

fn digit(yes: bool) -> &'static str {
    if yes { "1" } else { "0" }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const RHSM: &str = "etc/rhsm/rhsm.conf";

    #[test]
    fn plugins_are_switched_and_settings_changed() {
        let case = Case::new(&MODULE)
            .file("etc/dnf/plugins/product-id.conf", "[main]\n# on\nenabled=1\n")
            .file("etc/yum/pluginconf.d/subscription-manager.conf", "# empty\n")
            .file(RHSM, "[server]\nhost = a\n\n[rhsm]\nmanage_repos = 1\n\n[logging]\n");
        let done = case.run(json!({
            "dnf-plugins": {"product-id": {"enabled": false}, "subscription-manager": {}},
            "yum-plugins": {"subscription-manager": {"enabled": true}},
            "subscription-manager": {"rhsm": {"auto_enable_yum_plugins": true, "manage_repos": false}},
        }));
        let done = done.ok();
        assert_eq!(done.text("etc/dnf/plugins/product-id.conf"), "[main]\n# on\nenabled=0\n");
        assert_eq!(done.text("etc/yum/pluginconf.d/subscription-manager.conf"), "# empty\n\n\n[main]\nenabled = 1");
        let rhsm = "[server]\nhost = a\n\n[rhsm]\nmanage_repos = 0\nauto_enable_yum_plugins = 1\n\n[logging]\n";
        assert_eq!(done.text(RHSM), rhsm);
    }

    #[test]
    fn files_and_sections_must_be_there() {
        let done = Case::new(&MODULE).run(json!({"dnf-plugins": {"product-id": {"enabled": false}}}));
        assert!(done.err().contains("/etc/dnf/plugins/product-id.conf"));
        let options = json!({"subscription-manager": {"rhsmcertd": {"auto_registration": true}}});
        let done = Case::new(&MODULE).file(RHSM, "[rhsm]\n").run(options);
        assert_eq!(done.err(), "there is no section `[rhsmcertd]`");
        Case::new(&MODULE).run(json!({})).ok();
    }
}
