//! Declares files that are made, changed or removed at boot.
//!
//! Writes a file of `/usr/lib/tmpfiles.d`, which must be there, with a line for each entry. A field that is not given before
//! one that is stands as `-`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.tmpfilesd",
//!   "options": {
//!     "filename": "app.conf",
//!     "config": [
//!       { "type": "d", "path": "/run/app", "mode": "0755", "user": "app" },
//!       { "type": "x", "path": "/tmp/.app*" }
//!     ]
//!   }
//! }
//! ```

use crate::texts::one_line;
use crate::texts::systemd_words;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.tmpfilesd",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a.conf", "config": []}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"type": "d"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"type": "y", "path": "/a"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"type": "d+", "path": "/a"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"type": "d", "path": "/a", "mode": "755"}]}}"#,
        r#"{"options": {"filename": "a", "config": [{"type": "d", "path": "/a"}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name of the file
    #[schemars(regex(pattern = r"^[\w.-]{1,250}\.conf$"))]
    filename: String,
    /// The entries, in order
    #[schemars(length(min = 1))]
    config: Vec<Item>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    /// What to do
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^([fwpLcbaA]\+?|[dDevqQCxXrRzZtThH]){1}((!?-?)|(-?!?)){0,1}$"))]
    kind: String,
    /// Where
    path: String,
    /// The mode of what is made
    #[serde(default)]
    #[schemars(regex(pattern = "^~?[0-7]{4}$"))]
    mode: String,
    /// Its owner
    #[serde(default)]
    user: String,
    /// Its group
    #[serde(default)]
    group: String,
    /// After which time it is cleaned up
    #[serde(default)]
    age: String,
    /// What the kind of entry needs besides
    #[serde(default)]
    argument: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, config } = cx.options()?;
    let lines = config.iter().map(line).collect::<Result<String, _>>()?;
    cx.tree.write(format!("usr/lib/tmpfiles.d/{filename}"), lines)
}

fn line(item: &Item) -> Result<String, Error> {
    let Item { kind, path, mode, user, group, age, argument } = item;
    if path.is_empty() {
        return Err(Error::failed("the option `config.path` is empty; give the entry a path"));
    }
    let fields = [("path", path), ("mode", mode), ("user", user), ("group", group), ("age", age)];
    let is_control = |c: char| c.is_ascii_control() && c != '\t';
    let mut words = vec![kind.clone()];
    for (name, field) in fields {
        let field = one_line::refuse(&format!("config.{name}"), field, is_control, "a line break or the like")?;
        words.push(if field.is_empty() { "-".to_owned() } else { systemd_words::word(field) });
    }
    // The argument is all the rest of the line, with escapes of its own.
    match one_line::trimmed("config.argument", argument)? {
        "" => {
            let given = fields.iter().rposition(|(_, field)| !field.is_empty()).map_or(0, |last| last + 1);
            words.truncate(1 + given);
        }
        argument => words.push(argument.to_owned()),
    }
    Ok(words.join(" ") + "\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_entry_has_a_line_and_gaps_are_dashes() {
        let config = json!([
            {"type": "x", "path": "/a"},
            {"type": "d!", "path": "/b", "mode": "~0755"},
            {"type": "L+", "path": "/c", "argument": "../d e"},
            {"type": "d", "path": "/e", "user": "app", "mode": "", "age": "10d"},
        ]);
        let options = json!({"filename": "a.conf", "config": config});
        let done = Case::new(&MODULE).dir("usr/lib/tmpfiles.d").run(options.clone()).ok();
        let text = "x /a\nd! /b ~0755\nL+ /c - - - - ../d e\nd /e - app - 10d\n";
        assert_eq!(done.text("usr/lib/tmpfiles.d/a.conf"), text);
        assert!(Case::new(&MODULE).run(options).err().contains("No such file"));
    }

    fn written(entry: &Value) -> Result<String, String> {
        let options = json!({"filename": "a.conf", "config": [entry]});
        let done = Case::new(&MODULE).dir("usr/lib/tmpfiles.d").run(options);
        match &done.result {
            Ok(()) => Ok(done.text("usr/lib/tmpfiles.d/a.conf")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn fields_are_quoted_and_arguments_are_the_rest_of_the_line() {
        let line = written(&json!({"type": "w", "path": "/sys/my \"x\"", "argument": "a b # c"})).unwrap();
        assert_eq!(line, "w \"/sys/my \\\"x\\\"\" - - - - a b # c\n");
        for (name, value) in [("argument", "a\nd /b"), ("argument", " a"), ("path", ""), ("path", "/a\n")] {
            let mut entry = json!({"type": "f", "path": "/a"});
            entry[name] = json!(value);
            let error = written(&entry).unwrap_err();
            assert!(error.starts_with(&format!("the option `config.{name}` ")), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn systemd_makes_the_path_that_was_written(name in "([ -$&-.0-~]|[\té€]){1,20}") {
            prop_assume!(name != "." && name != "..");
            if !has_tool("systemd-tmpfiles") || !has_root() {
                return Ok(());
            }
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("srv")).unwrap();
            let path = root.path().join("a.conf");
            let line = written(&json!({"type": "d", "path": format!("/srv/{name}"), "mode": "0700"})).unwrap();
            std::fs::write(&path, line).unwrap();
            let mut tool = Command::new("systemd-tmpfiles");
            let output = tool.arg("--create").arg(format!("--root={}", root.path().display())).arg(&path).output();
            prop_assert!(root.path().join("srv").join(&name).is_dir(), "{name:?}: {output:?}");
        }
    }
}
