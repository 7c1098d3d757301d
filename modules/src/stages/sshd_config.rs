//! Configures the SSH server.
//!
//! Changes `/etc/ssh/sshd_config`, which must be there: the first line of two words that sets a key is replaced, whatever
//! the key's case, and a key that has none is added at the end. The file is replaced by a new one of the same mode, a
//! link too.
//!
//! ```json
//! {
//!   "type": "org.osbuild.sshd.config",
//!   "options": { "config": { "PasswordAuthentication": false, "PermitRootLogin": "prohibit-password" } }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::settings::{self, Format};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.sshd.config",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {"PasswordAuthentication": "no"}}}"#,
        r#"{"options": {"config": {"ClientAliveInterval": 1.5}}}"#,
        r#"{"options": {"config": {"PermitRootLogin": "yes"}}}"#,
        r#"{"options": {"config": {"Port": 22}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FORMAT: Format = Format { split: two_words, between: " ", ignores_case: true };

/// The words of a line that has two.
fn two_words(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let pair = (words.next()?, words.next()?);
    words.next().is_none().then_some(pair)
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The settings
    config: Config,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Config {
    /// Whether users may log in with a password
    password_authentication: Option<bool>,
    /// Whether users may log in by answering questions
    challenge_response_authentication: Option<bool>,
    /// After how many silent seconds a client is asked whether it is there
    #[schemars(with = "Option<i64>")]
    client_alive_interval: Option<Number>,
    /// Whether and how root may log in
    #[schemars(schema_with = "root_login_schema")]
    permit_root_login: Option<Value>,
}

fn root_login_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "oneOf": [{"type": "string", "enum": ["prohibit-password", "forced-commands-only"]}, {"type": "boolean"}],
    })
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { config } = cx.options()?;
    let root_login = config.permit_root_login.map(|value| match value {
        Value::Bool(yes) => yes_no(yes),
        value => value.as_str().unwrap_or_default().to_owned(),
    });
    let settings = [
        ("PasswordAuthentication", config.password_authentication.map(yes_no)),
        ("ChallengeResponseAuthentication", config.challenge_response_authentication.map(yes_no)),
        ("ClientAliveInterval", config.client_alive_interval.map(|seconds| seconds.to_string())),
        ("PermitRootLogin", root_login),
    ];
    let settings = settings.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    settings::change(&cx.tree, "etc/ssh/sshd_config", FORMAT, settings)
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "etc/ssh/sshd_config";

    #[test]
    fn settings_are_changed_or_added() {
        let old = "# PermitRootLogin yes\n#PermitRootLogin yes\npermitrootlogin  yes # why\n\
                   passwordauthentication\tyes\nClientAliveInterval   60\nPasswordAuthentication yes\n";
        let config = json!({
            "PasswordAuthentication": false,
            "ClientAliveInterval": 60,
            "ChallengeResponseAuthentication": true,
            "PermitRootLogin": "forced-commands-only",
        });
        let done = Case::new(&MODULE).file(FILE, old).mode(FILE, 0o600).run(json!({ "config": config })).ok();
        let new = "# PermitRootLogin yes\n#PermitRootLogin yes\npermitrootlogin  yes # why\n\
                   passwordauthentication no\nClientAliveInterval   60\nPasswordAuthentication yes\n\
                   ChallengeResponseAuthentication yes\nPermitRootLogin forced-commands-only\n";
        assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), (new, 0o600));
        let done = Case::new(&MODULE).file(FILE, "").run(json!({"config": {"PermitRootLogin": false}})).ok();
        assert_eq!(done.text(FILE), "PermitRootLogin no\n");
        assert!(Case::new(&MODULE).run(json!({"config": {}})).err().contains("No such file"));
    }
}
