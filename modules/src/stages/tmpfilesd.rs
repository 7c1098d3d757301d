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

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.tmpfilesd",
    revision: 1,
    capabilities: &[],
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
    let lines: String = config.iter().map(line).collect();
    cx.tree.write(format!("usr/lib/tmpfiles.d/{filename}"), lines)
}

fn line(item: &Item) -> String {
    let Item { kind, path, mode, user, group, age, argument } = item;
    let fields = [mode, user, group, age, argument];
    let given = fields.iter().rposition(|field| !field.is_empty()).map_or(0, |last| last + 1);
    let field = |field: &&String| if field.is_empty() { "-".to_owned() } else { (*field).clone() };
    let words: Vec<String> =
        [kind.clone(), path.clone()].into_iter().chain(fields[..given].iter().map(field)).collect();
    words.join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

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
}
