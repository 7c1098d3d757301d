//! Configures DNF and its variables.
//!
//! Every variable becomes a file below `/etc/dnf/vars`, which must be there. With `config` the file `/etc/dnf/dnf.conf` is
//! edited: comments and all other settings stay.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dnf.config",
//!   "options": { "config": { "main": { "ip_resolve": "4", "tsflags": ["nodocs", "noscripts"] } } }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini;
use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::python;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dnf.config",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"variables": [{"name": "A", "value": "b"}]}}"#,
        r#"{"options": {"variables": [{"name": "a"}]}}"#,
        r#"{"options": {"config": {"main": {"ip_resolve": 4}}}}"#,
        r#"{"options": {"config": {"main": {"tsflags": []}}}}"#,
        r#"{"options": {"config": {"main": {"tsflags": ["test", "test"]}}}}"#,
        r#"{"options": {"config": {"main": {"tsflags": ["all"]}}}}"#,
        r#"{"options": {"config": {"main": {"gpgcheck": true}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/dnf/dnf.conf";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Variables for the configuration of repositories.
    #[serde(default)]
    variables: Vec<Variable>,
    /// Settings of DNF.
    config: Option<InOrder<Config>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Variable {
    /// Its name.
    #[schemars(regex(pattern = "^[a-z0-9_]+$"))]
    name: String,
    /// Its value.
    value: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    /// The section `main`.
    main: Option<Main>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Main {
    /// Which addresses of a host are used.
    ip_resolve: Option<IpResolve>,
    /// Flags of RPM's transactions.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    tsflags: Option<Vec<Flag>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum IpResolve {
    #[serde(rename = "4")]
    Four,
    IPv4,
    #[serde(rename = "6")]
    Six,
    IPv6,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Flag {
    NoScripts,
    Test,
    NoTriggers,
    NoDocs,
    JustDb,
    NoContexts,
    NoCaps,
    NoCrypto,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { variables, config } = cx.options()?;
    for Variable { name, value } in variables {
        cx.tree.write(format!("etc/dnf/vars/{name}"), format!("{value}\n"))?;
    }
    let Some(config) = config.filter(|config| !config.entries.is_empty()) else { return Ok(()) };
    cx.tree.create_dir_all("etc/dnf", 0o777)?;
    ini::edit(&cx.tree, FILE, &config.entries, |value| match value {
        Value::Array(items) => python::join(", ", items),
        value => python::scalar(value),
    })?;
    cx.tree.chmod(FILE, 0o644)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn variables_are_files() {
        let variables = json!([{"name": "release", "value": "42"}, {"name": "arch", "value": "x"}]);
        let done = Case::new(&MODULE).dir("etc/dnf/vars").run(json!({"variables": variables})).ok();
        assert_eq!((done.text("etc/dnf/vars/release"), done.text("etc/dnf/vars/arch")), ("42\n".into(), "x\n".into()));
        assert!(!done.tree.exists(FILE).unwrap());
    }

    #[test]
    fn the_configuration_is_made_or_edited() {
        let config = json!({"main": {"tsflags": ["nodocs", "test"], "ip_resolve": "6"}});
        let done = Case::new(&MODULE).run(json!({"config": config})).ok();
        assert_eq!(done.text(FILE), "[main]\ntsflags = nodocs, test\nip_resolve = 6");
        let case = Case::new(&MODULE).file(FILE, "[main]\ngpgcheck=1\nip_resolve=4\n").mode(FILE, 0o600);
        let done = case.run(json!({"config": config})).ok();
        assert_eq!(done.text(FILE), "[main]\ngpgcheck=1\nip_resolve=6\ntsflags = nodocs, test\n");
        assert_eq!(done.mode(FILE), 0o644);
    }
}
