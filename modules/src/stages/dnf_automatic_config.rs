//! Configures automatic updates by DNF.
//!
//! Edits `/etc/dnf/automatic.conf`, whose directory must be there: comments and all other settings stay. Without
//! `config` nothing is done.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dnf-automatic.config",
//!   "options": { "config": { "commands": { "apply_updates": true, "upgrade_type": "security" } } }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini;
use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::python;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dnf-automatic.config",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"config": {"commands": {"apply_updates": "yes"}}}}"#,
        r#"{"options": {"config": {"commands": {"upgrade_type": "all"}}}}"#,
        r#"{"options": {"config": {"commands": {"x": 1}}}}"#,
        r#"{"options": {"config": {"emitters": {}}}}"#,
        r#"{"options": {"commands": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/dnf/automatic.conf";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The settings.
    config: Option<InOrder<Config>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    /// The section `commands`.
    commands: Option<Commands>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Commands {
    /// Whether to install the updates.
    apply_updates: Option<bool>,
    /// Which updates to look for.
    upgrade_type: Option<UpgradeType>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UpgradeType {
    Default,
    Security,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config: Some(config) } = cx.options()? else { return Ok(()) };
    ini::edit(&cx.tree, FILE, &config.entries, |value| match value {
        Value::Bool(said) => Ok(if *said { "yes" } else { "no" }.to_owned()),
        value => python::scalar(value),
    })
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn other_settings_and_comments_stay() {
        let config = json!({"commands": {"upgrade_type": "security", "apply_updates": false}});
        let text = "[commands]\n# Which\nupgrade_type = default\nrandom_sleep = 0\n\n[email]\nemail_from = a\n";
        let done = Case::new(&MODULE).file(FILE, text).run(json!({"config": config})).ok();
        let expected = "[commands]\n# Which\nupgrade_type = security\nrandom_sleep = 0\napply_updates = no\n\n[email]\n\
                        email_from = a\n";
        assert_eq!(done.text(FILE), expected);
    }

    #[test]
    fn without_settings_nothing_is_done() {
        let done = Case::new(&MODULE).run(json!({})).ok();
        assert!(!done.tree.exists(FILE).unwrap());
        let done = Case::new(&MODULE).dir("etc/dnf").run(json!({"config": {"commands": {}}})).ok();
        assert_eq!(done.text(FILE), "[commands]");
        assert!(
            Case::new(&MODULE).run(json!({"config": {}})).err().starts_with("cannot write /etc/dnf/automatic.conf")
        );
    }
}
