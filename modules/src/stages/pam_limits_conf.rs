//! Limits the resources of users' sessions.
//!
//! Writes a file of `/etc/security/limits.d`, for pam_limits, with a line for each limit. The directory must be there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.pam.limits.conf",
//!   "options": {
//!     "filename": "50-sap.conf",
//!     "config": [
//!       { "domain": "@sapsys", "type": "hard", "item": "nofile", "value": 1048576 },
//!       { "domain": "@sapsys", "type": "soft", "item": "nproc", "value": "unlimited" }
//!     ]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use osbc_pytext::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pam.limits.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a.conf", "config": []}}"#,
        r#"{"options": {"filename": "a/b.conf", "config": [{"domain": "a", "type": "-", "item": "cpu", "value": 1}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"domain": "a", "type": "-", "item": "cpu", "value": "1"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"domain": "a", "type": "x", "item": "cpu", "value": 1}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"domain": "a", "type": "-", "item": "x", "value": 1}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"type": "-", "item": "cpu", "value": 1}]}}"#,
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
    /// The limits, in order
    #[schemars(length(min = 1))]
    config: Vec<Limit>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// Whom it is for: a user, a group, a pattern
    domain: String,
    /// Whether it can be raised
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["hard", "soft", "-"]))]
    kind: String,
    /// What is limited
    #[schemars(extend("enum" = [
        "core", "data", "fsize", "memlock", "nofile", "rss", "stack", "cpu", "nproc", "as", "maxlogins",
        "maxsyslogins", "nonewprivs", "priority", "locks", "sigpending", "msgqueue", "nice", "rtprio",
    ]))]
    item: String,
    /// To how much
    #[schemars(schema_with = "value_schema")]
    value: Value,
}

fn value_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"oneOf": [{"type": "string", "enum": ["unlimited", "infinity"]}, {"type": "integer"}]})
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, config } = cx.options()?;
    let line = |Limit { domain, kind, item, value }: &Limit| {
        let domain = one_line::word("config.domain", domain)?;
        let domain = one_line::refuse("config.domain", domain, |c| c == '#', "a `#`, which begins a comment")?;
        Ok(format!("{domain} {kind} {item} {}\n", text::str(value).unwrap_or_default()))
    };
    let lines = config.iter().map(line).collect::<Result<String, Error>>()?;
    cx.tree.write(format!("etc/security/limits.d/{filename}"), lines)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_limit_has_a_line_and_the_directory_must_be_there() {
        let config = json!([
            {"domain": "@sapsys", "type": "hard", "item": "nofile", "value": 65536},
            {"domain": "*", "type": "-", "item": "nice", "value": "unlimited"},
        ]);
        let options = json!({"filename": "a.conf", "config": config});
        let done = Case::new(&MODULE).dir("etc/security/limits.d").run(options.clone()).ok();
        assert_eq!(done.text("etc/security/limits.d/a.conf"), "@sapsys hard nofile 65536\n* - nice unlimited\n");
        assert!(Case::new(&MODULE).run(options).err().contains("No such file"));
    }
}
