//! Declares system users and groups.
//!
//! Writes a file of `/usr/lib/sysusers.d`, or with the `path-prefix` `etc` of `/etc/sysusers.d`, with a line for each
//! entry; the directory must be there. What systemd-sysusers would not take is refused: the name of an entry `r` is
//! `-`, its id a number or a range, the id of an entry `m` a group, that of the others `-`, a number or two with `:`
//! between. Only an entry `u` has a description, a home and a shell.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd-sysusers.d",
//!   "options": {
//!     "config": {
//!       "filename": "app.conf",
//!       "entries": [
//!         { "type": "u", "name": "app", "id": "400", "gecos": "The app", "home": "/var/lib/app" },
//!         { "type": "m", "name": "app", "id": "users" }
//!       ]
//!     }
//!   }
//! }
//! ```

use crate::texts::one_line;
use crate::texts::systemd_words;
use osbc_module_api::*;
use regex::Regex;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd-sysusers.d",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {"entries": []}}}"#,
        r#"{"options": {"config": {"filename": "a", "entries": []}}}"#,
        r#"{"options": {"config": {"filename": "a.conf", "entries": [{"type": "u"}]}}}"#,
        r#"{"options": {"config": {"filename": "a.conf", "entries": [{"type": "x", "name": "a"}]}}}"#,
        r#"{"options": {"config": {"filename": "a.conf", "entries": [{"type": "u", "name": "A"}]}}}"#,
        r#"{"options": {"config": {"filename": "a.conf", "entries": [], "path-prefix": "run"}}}"#,
        r#"{"options": {"config": {"filename": "a.conf", "entries": []}, "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file
    config: Config,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    /// Below which directory the file lies
    #[serde(default)]
    path_prefix: Prefix,
    /// The name of the file
    #[schemars(regex(pattern = r"\.conf$"))]
    filename: String,
    /// The entries, in order
    entries: Vec<Declaration>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Prefix {
    #[default]
    Usr,
    Etc,
}

const NAME: &str = "^([a-z]+(?:[-_][a-zA-Z0-9_-]{0,30})?|-)$";

#[derive(Debug, Deserialize, JsonSchema)]
struct Declaration {
    /// What it declares: a user, a locked user, a group, a membership or a range of ids
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["u", "u!", "g", "m", "r"]))]
    kind: String,
    /// The user or group
    #[schemars(regex(pattern = NAME))]
    name: String,
    /// The number, the numbers of user and group, the group or the range
    #[serde(default = "none")]
    id: String,
    /// The description
    #[serde(default = "none")]
    gecos: String,
    /// The home directory
    #[serde(default = "none")]
    home: String,
    /// The login shell
    #[serde(default = "none")]
    shell: String,
}

fn none() -> String {
    "-".to_owned()
}

/// Ids that stand for none.
const RESERVED: [i128; 2] = [65535, 4_294_967_295];

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config: Config { path_prefix, filename, entries } } = cx.options()?;
    if entries.is_empty() {
        return Err(Error::failed("there are no `entries`"));
    }
    let directory = match path_prefix {
        Prefix::Usr => "usr/lib/sysusers.d",
        Prefix::Etc => "etc/sysusers.d",
    };
    let lines = entries.iter().map(line).collect::<Result<String, _>>()?;
    cx.tree.write(format!("{directory}/{filename}"), lines)
}

fn line(entry: &Declaration) -> Result<String, Error> {
    let Declaration { kind, name, id, gecos, home, shell } = entry;
    let refuse = |what: &str| Err(Error::failed(format!("the entry `{kind} {name} {id}`: {what}")));
    if kind == "r" && name != "-" {
        return refuse("the name of a range is `-`");
    }
    match kind.as_str() {
        "m" if !Regex::new(NAME).is_ok_and(|pattern| pattern.is_match(id)) => return refuse("the id is to be a group"),
        "m" => {}
        "r" if !are_ids(id, '-') => {
            return refuse("the id is to be a number or a range that leaves out 65535 and 4294967295");
        }
        "r" => {}
        _ if id != "-" && !are_ids(id, ':') => {
            return refuse("the id is to be `-`, a number or two with `:` between, other than 65535 and 4294967295");
        }
        _ => {}
    }
    if kind != "u" && [gecos, home, shell].iter().any(|field| !matches!(field.as_str(), "" | "-")) {
        return refuse("only an entry `u` has a description, a home and a shell");
    }
    for (option, field) in [("gecos", gecos), ("home", home), ("shell", shell)] {
        one_line::refuse(option, field, |c| c == ':', "a `:`, which separates the fields of a user")?;
        one_line::refuse(option, field, char::is_control, "a control character")?;
    }
    let field = |text: &str| if text.is_empty() { String::new() } else { systemd_words::word(text) };
    let gecos = if gecos == "-" { gecos.clone() } else { systemd_words::quoted(gecos) };
    let home = if home.is_empty() && !shell.is_empty() { "-".to_owned() } else { field(home) };
    Ok(format!("{}\n", format!("{kind} {name} {id} {gecos} {home} {}", field(shell)).trim()))
}

/// Whether a text is one number, or two with `between` between, none of them reserved.
fn are_ids(text: &str, between: char) -> bool {
    let is_id = |text: &str| text.parse::<i128>().is_ok_and(|id| !RESERVED.contains(&id));
    text.split(between).count() <= 2 && text.split(between).all(is_id)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::{Case, Done};
    use proptest::prelude::*;

    use super::*;

    fn write(entries: Value) -> Done {
        let config = json!({"filename": "a.conf", "entries": entries});
        Case::new(&MODULE).dir("usr/lib/sysusers.d").run(json!({ "config": config }))
    }

    #[test]
    fn each_entry_has_a_line() {
        let done = write(json!([
            {"type": "u", "name": "app", "id": "400:401", "gecos": "The app", "home": "/a", "shell": "/bin/sh"},
            {"type": "u!", "name": "locked"},
            {"type": "g", "name": "own_group", "id": "-", "home": "", "shell": ""},
            {"type": "m", "name": "app", "id": "users"},
            {"type": "r", "name": "-", "id": "500-900"},
        ]));
        let text = "u app 400:401 \"The app\" /a /bin/sh\nu! locked - - - -\ng own_group - -\nm app users - - -\n\
                    r - 500-900 - - -\n";
        assert_eq!(done.ok().text("usr/lib/sysusers.d/a.conf"), text);
        let config = json!({"filename": "a.conf", "path-prefix": "etc", "entries": [{"type": "g", "name": "a"}]});
        let done = Case::new(&MODULE).dir("etc/sysusers.d").run(json!({ "config": config })).ok();
        assert_eq!(done.text("etc/sysusers.d/a.conf"), "g a - - - -\n");
    }

    #[test]
    fn what_sysusers_would_not_take_is_refused() {
        for entry in [
            json!({"type": "r", "name": "a", "id": "1"}),
            json!({"type": "r", "name": "-"}),
            json!({"type": "r", "name": "-", "id": "1-2-3"}),
            json!({"type": "m", "name": "a", "id": "1"}),
            json!({"type": "u", "name": "a", "id": "65535"}),
            json!({"type": "u", "name": "a", "id": "1:4294967295"}),
            json!({"type": "g", "name": "a", "id": "x"}),
            json!({"type": "g", "name": "a", "gecos": "x"}),
            json!({"type": "u!", "name": "a", "home": "/x"}),
        ] {
            let done = write(json!([entry]));
            assert!(done.err().starts_with("the entry `"), "{entry}");
        }
        assert_eq!(write(json!([])).err(), "there are no `entries`");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn systemd_makes_the_user_that_was_written(gecos in "[A-Za-z\"'\\\\é€]([ -$&-9;-~]|é){0,20}x", home in "[ -$&-.0-9;-~]{1,10}") {
            if !has_tool("systemd-sysusers") || !has_root() {
                return Ok(());
            }
            let home = format!("/srv/{home}x");
            let done = write(json!([{"type": "u", "name": "anna", "id": "990", "gecos": gecos, "home": home}])).ok();
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("etc")).unwrap();
            let path = root.path().join("a.conf");
            fs::write(&path, done.text("usr/lib/sysusers.d/a.conf")).unwrap();
            let mut tool = Command::new("systemd-sysusers");
            let output = tool.arg(format!("--root={}", root.path().display())).arg(&path).output().unwrap();
            let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap_or_default();
            let user = format!("anna:x:990:990:{gecos}:{home}:");
            prop_assert!(users.lines().any(|line| line.starts_with(&user)), "{user}\n{users}\n{output:?}");
        }
    }

    #[test]
    fn descriptions_are_quoted_and_gaps_are_dashes() {
        let entry = json!({"type": "u", "name": "a", "id": "-", "gecos": "A \"B\" \\", "shell": "/bin/sh"});
        let config = json!({"filename": "a.conf", "path-prefix": "etc", "entries": [entry]});
        let done = Case::new(&MODULE).dir("etc/sysusers.d").run(json!({ "config": config })).ok();
        assert_eq!(done.text("etc/sysusers.d/a.conf"), "u a - \"A \\\"B\\\" \\\\\" - /bin/sh\n");
    }
}
