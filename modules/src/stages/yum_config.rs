//! Configures yum and its plugins.
//!
//! Changes `/etc/yum.conf` and `/etc/yum/pluginconf.d/langpacks.conf`, or creates them; comments and order stay. The settings
//! go to the section `[main]`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.yum.config",
//!   "options": { "config": { "http_caching": "packages" }, "plugins": { "langpacks": { "locales": ["en_US.UTF-8"] } } }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Document;
use crate::texts::one_line;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.yum.config",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"config": {"http_caching": "some"}}}"#,
        r#"{"options": {"config": {"other": "a"}}}"#,
        r#"{"options": {"plugins": {"langpacks": {}}}}"#,
        r#"{"options": {"plugins": {"langpacks": {"locales": []}}}}"#,
        r#"{"options": {"plugins": {"other": {}}}}"#,
        r#"{"options": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/yum.conf";
const PLUGINS: &str = "etc/yum/pluginconf.d";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Settings of yum
    config: Option<Config>,
    /// Settings of plugins
    plugins: Option<Plugins>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What caches on the way may keep
    #[schemars(extend("enum" = ["all", "packages", "lazy:packages", "none"]))]
    http_caching: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Plugins {
    /// The plugin for packages of languages
    langpacks: Option<Langpacks>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct Langpacks {
    /// The locales that get packages
    #[schemars(length(min = 1))]
    locales: Option<Vec<String>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config, plugins } = cx.options()?;
    if let Some(caching) = config.and_then(|config| config.http_caching) {
        set(&cx.tree, FILE, "http_caching", &caching)?;
    }
    if let Some(locales) = plugins.and_then(|plugins| plugins.langpacks?.locales) {
        cx.tree.create_dir_all(PLUGINS, 0o777)?;
        set(&cx.tree, &format!("{PLUGINS}/langpacks.conf"), "langpack_locales", &locales.join(", "))?;
    }
    Ok(())
}

fn set(tree: &Tree, path: &str, key: &str, value: &str) -> Result<(), Error> {
    let mut file = Document::read_or_new(tree, path)?;
    file.ensure_section("main");
    file.set("main", key, value)?;
    tree.write(path, file.text())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn files_are_changed_or_created() {
        let options = json!({"config": {"http_caching": "none"}, "plugins": {"langpacks": {"locales": ["a", "b"]}}});
        let done = Case::new(&MODULE).file(FILE, "[main]\nkeepcache=0\n\n# repositories\n").run(options).ok();
        assert_eq!(done.text(FILE), "[main]\nkeepcache=0\nhttp_caching = none\n\n# repositories\n");
        assert_eq!(done.text("etc/yum/pluginconf.d/langpacks.conf"), "[main]\nlangpack_locales = a, b");
        let done = Case::new(&MODULE).dir("etc").run(json!({"config": {"http_caching": "all"}})).ok();
        assert_eq!(done.text(FILE), "[main]\nhttp_caching = all");
    }

    #[test]
    fn without_settings_nothing_is_touched() {
        let done = Case::new(&MODULE).file(FILE, "no INI file").run(json!({"config": {}, "plugins": {}})).ok();
        assert_eq!(done.text(FILE), "no INI file");
        assert_eq!(done.tree.read_dir("etc").unwrap(), ["yum.conf"]);
    }
}
