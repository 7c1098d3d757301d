//! Sets environment variables of login shells.
//!
//! Writes files of `/etc/profile.d`, which must be there, with a line for each variable. In a value without quotes,
//! backslashes and other uses of `$`, a shell replaces `$NAME` and `${NAME}`. Any other value it takes as it is and runs
//! nothing of it, where osbuild writes what a shell takes apart.
//!
//! ```json
//! {
//!   "type": "org.osbuild.shell.init",
//!   "options": { "files": { "flatpak.sh": { "env": [{ "key": "XDG_DATA_DIRS", "value": "/app/share:$XDG_DATA_DIRS" }] } } }
//! }
//! ```

use std::sync::LazyLock;

use osbc_module_api::*;
use regex::Regex;

use crate::texts::one_line;
use crate::texts::options::{Entries, required};
use crate::texts::shell;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.shell.init",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"files": {"a/b": {"env": [{"key": "A", "value": "b"}]}}}}"#,
        r#"{"options": {"files": {"a.sh": {"env": []}}}}"#,
        r#"{"options": {"files": {"a.sh": {"env": [{"key": "a", "value": "b"}]}}}}"#,
        r#"{"options": {"files": {"a.sh": {"env": [{"key": "A"}]}}}}"#,
        r#"{"options": {"files": {"a.sh": {"other": 1}}}}"#,
        r#"{"options": {"other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The files, by name
    #[serde(default)]
    files: Entries<Name, File>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct Name(#[schemars(regex(pattern = r"^[a-zA-Z0-9\.\-_]{1,250}$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// The variables, in order
    #[schemars(length(min = 1))]
    env: Option<Vec<Variable>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Variable {
    /// Its name
    #[schemars(regex(pattern = "^[A-Z_][A-Z0-9_]*$"))]
    key: String,
    /// Its value
    value: String,
}

/// Texts and variables, as they may stand between double quotes.
static TEXT_AND_VARIABLES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"^(?:[^"\\`$]|\$[A-Za-z_][0-9A-Za-z_]*|\$\{[A-Za-z_][0-9A-Za-z_]*\})*$"#).expect("a valid expression")
});

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { files: Entries(files) } = cx.options()?;
    for (Name(name), File { env }) in files {
        let line = |Variable { key, value }: &Variable| {
            let value = one_line::refuse(key, value, |c| c == '\0', "a NUL")?;
            let plain = TEXT_AND_VARIABLES.is_match(value);
            Ok(format!("export {key}={}\n", if plain { format!("\"{value}\"") } else { shell::quoted(value) }))
        };
        let lines = required(env, "env")?.iter().map(line).collect::<Result<String, Error>>()?;
        cx.tree.write(format!("etc/profile.d/{name}"), lines)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_variable_has_a_line() {
        let env = json!([{"key": "A", "value": "b c"}, {"key": "_D1", "value": ""}]);
        let options = json!({"files": {"a.sh": {"env": env}}});
        let done = Case::new(&MODULE).dir("etc/profile.d").run(options.clone()).ok();
        assert_eq!(done.text("etc/profile.d/a.sh"), "export A=\"b c\"\nexport _D1=\"\"\n");
        assert!(Case::new(&MODULE).run(options).err().contains("No such file"));
        let done = Case::new(&MODULE).run(json!({"files": {"a.sh": {}}}));
        assert_eq!(done.err(), "the option `env` is missing");
    }

    #[test]
    fn a_shell_reads_the_values_back_and_runs_nothing() {
        let value = "it's \"quoted\" $HOME `id` \\ x\ny";
        let options = json!({"files": {"a.sh": {"env": [{"key": "A", "value": value}]}}});
        let done = Case::new(&MODULE).dir("etc/profile.d").run(options).ok();
        let script = format!("{}printf %s \"$A\"", done.text("etc/profile.d/a.sh"));
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
    }

    #[test]
    fn text_with_variables_stays_and_commands_do_not() {
        for (value, written) in [
            ("/opt/bin:$PATH", "/opt/bin:$PATH"),
            ("${A_1}'s", "${A_1}'s"),
            ("$(id)", "\\$(id)"),
            ("${A:-$(id)}", "\\${A:-\\$(id)}"),
            ("$A 5$", "\\$A 5\\$"),
        ] {
            let options = json!({"files": {"a.sh": {"env": [{"key": "A", "value": value}]}}});
            let done = Case::new(&MODULE).dir("etc/profile.d").run(options).ok();
            assert_eq!(done.text("etc/profile.d/a.sh"), format!("export A=\"{written}\"\n"));
        }
    }
}
