//! Writes rules for udev.
//!
//! The file has a line for each rule, and a line `# …` for each one of a comment, in order; its directory must be
//! there. A rule is a list of matches (`==`, `!=`) and assignments (`=`, `+=`, `-=`, `:=`). A key with an argument is
//! an object of `name` and `arg`. A `"` in a value gets a `\` before it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.udev.rules",
//!   "options": {
//!     "filename": "/usr/lib/udev/rules.d/80-own.rules",
//!     "rules": [
//!       { "comment": ["Let the own disk be quiet"] },
//!       [
//!         { "key": "SUBSYSTEM", "op": "==", "val": "block" },
//!         { "key": { "name": "ENV", "arg": "UDISKS_IGNORE" }, "op": "=", "val": "1" }
//!       ]
//!     ]
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;
use serde::Deserializer;
use serde::de::Error as _;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.udev.rules",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.rules"}}"#,
        r#"{"options": {"filename": "a.conf", "rules": []}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [{"comment": "a"}]}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [[{"key": "ACTION", "op": "=", "val": "add"}]]}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [[{"key": "OWNER", "op": "==", "val": "root"}]]}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [[{"key": "ENV", "op": "==", "val": "1"}]]}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [[{"key": {"name": "ENV"}, "op": "==", "val": "1"}]]}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [[{"key": "ACTION", "op": "==", "val": 1}]]}}"#,
        r#"{"options": {"filename": "a.rules", "rules": [[{"key": "ACTION", "op": "==", "val": "a", "arg": "b"}]]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file
    #[schemars(regex(pattern = r"^[.\/\w\-_]{1,250}.rules$"))]
    filename: String,
    /// Rules and comments, in order
    rules: Vec<Rule>,
}

/// A rule, or a comment.
#[derive(Debug)]
enum Rule {
    Comment(Comment),
    Items(Vec<Item>),
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let rule = if value.is_object() {
            Comment::deserialize(value).map(Rule::Comment)
        } else {
            Vec::deserialize(value).map(Rule::Items)
        };
        rule.map_err(D::Error::custom)
    }
}

impl JsonSchema for Rule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let comment = Comment::json_schema(generator);
        let items = json!({"oneOf": [
            item_schema(&["==", "!="], &MATCHES, &MATCHES_WITH_ARGUMENT),
            item_schema(&["=", "+=", "-=", ":="], &ASSIGNMENTS, &ASSIGNMENTS_WITH_ARGUMENT),
        ]});
        schemars::json_schema!({"oneOf": [comment, {"type": "array", "items": items}]})
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Comment {
    /// Its lines
    comment: Vec<String>,
}

/// A match or an assignment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    key: Key,
    op: String,
    val: String,
}

/// A key, with its argument behind if it has one.
#[derive(Debug)]
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            name: String,
            arg: Option<String>,
        }
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Key(name)),
            value => {
                let Parts { name, arg } = Parts::deserialize(value).map_err(D::Error::custom)?;
                Ok(Key(arg.map_or(name.clone(), |arg| format!("{name}{{{arg}}}"))))
            }
        }
    }
}

const MATCHES: [&str; 14] = [
    "ACTION",
    "DEVPATH",
    "KERNEL",
    "KERNELS",
    "NAME",
    "SYMLINK",
    "SUBSYSTEM",
    "SUBSYSTEMS",
    "DRIVER",
    "DRIVERS",
    "TAG",
    "TAGS",
    "PROGRAM",
    "RESULT",
];
const MATCHES_WITH_ARGUMENT: [&str; 6] = ["ATTR", "ATTRS", "SYSCTL", "ENV", "CONST", "TEST"];
const ASSIGNMENTS: [&str; 9] = ["NAME", "SYMLINK", "OWNER", "GROUP", "MODE", "TAG", "LABEL", "GOTO", "OPTIONS"];
const ASSIGNMENTS_WITH_ARGUMENT: [&str; 6] = ["SECLABEL", "ATTR", "SYSCTL", "ENV", "RUN", "IMPORT"];

fn item_schema(operators: &[&str], names: &[&str], with_argument: &[&str]) -> Value {
    let name = json!({"type": "string", "enum": names});
    let object = |required: Value, properties: Value| json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties});
    let argument = json!({"name": {"type": "string", "enum": with_argument}, "arg": {"type": "string"}});
    let key = json!({"oneOf": [
        name.clone(),
        object(json!(["name"]), json!({"name": name})),
        object(json!(["name", "arg"]), argument),
    ]});
    let operator = json!({"type": "string", "enum": operators});
    object(json!(["key", "op", "val"]), json!({"key": key, "op": operator, "val": {"type": "string"}}))
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, rules } = cx.options()?;
    let text = rules.iter().map(text).collect::<Result<String, _>>()?;
    cx.tree.write(filename, text)
}

fn text(rule: &Rule) -> Result<String, Error> {
    match rule {
        Rule::Comment(Comment { comment }) => Ok(comment.iter().map(|line| format!("# {line}\n")).collect()),
        Rule::Items(items) => Ok(items.iter().map(item).collect::<Result<Vec<_>, _>>()?.join(", ") + "\n"),
    }
}

fn item(Item { key: Key(key), op, val }: &Item) -> Result<String, Error> {
    if val.ends_with('\\') {
        return Err(Error::failed(format!(
            "a value of a rule cannot end with a `\\`, as that of `{key}` does: {val:?}"
        )));
    }
    let end = key.len() - usize::from(key.ends_with('}'));
    one_line::refuse("key.arg", &key[..end], |c| matches!(c, '}' | '"'), "a `}` or `\"`")?;
    Ok(format!("{key}{op}\"{}\"", val.replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn rules_and_comments_are_lines() {
        let rules = json!([
            {"comment": ["one", "two"]},
            [
                {"key": "ACTION", "op": "!=", "val": "remove"},
                {"key": {"name": "KERNEL"}, "op": "==", "val": "vd*"},
                {"key": {"name": "RUN", "arg": "program"}, "op": "+=", "val": "echo \"a\""},
            ],
            {"comment": []},
            [],
        ]);
        let case = Case::new(&MODULE).dir("etc/udev/rules.d");
        let done = case.run(json!({"filename": "/etc/udev/rules.d/a.rules", "rules": rules})).ok();
        let text = "# one\n# two\nACTION!=\"remove\", KERNEL==\"vd*\", RUN{program}+=\"echo \\\"a\\\"\"\n\n";
        assert_eq!(done.text("etc/udev/rules.d/a.rules"), text);
        assert!(Case::new(&MODULE).run(json!({"filename": "a/b.rules", "rules": []})).err().contains("No such file"));
    }

    #[test]
    fn what_ends_a_value_or_a_rule_is_refused() {
        let refused = |item: Value| {
            let done = Case::new(&MODULE).run(json!({"filename": "/a.rules", "rules": [[item]]}));
            done.err().to_owned()
        };
        let error = refused(json!({"key": "KERNEL", "op": "==", "val": "a\\"}));
        assert!(error.contains("cannot end with a `\\`"), "{error}");
        let error = refused(json!({"key": {"name": "ENV", "arg": "a}=\"b"}, "op": "=", "val": "c"}));
        assert!(error.contains("`key.arg` has a `}`"), "{error}");
        let error = refused(json!({"key": "KERNEL", "op": "==", "val": "a\nb"}));
        assert!(error.contains("`rules[0][0].val` has a line break"), "{error}");
    }
}
