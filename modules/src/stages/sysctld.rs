//! Sets parameters of the kernel.
//!
//! Writes a file of `/usr/lib/sysctl.d`, which must be there, with a line for each parameter. A key that begins with
//! `-` and has no value excludes what it matches from the patterns of other lines.
//!
//! ```json
//! {
//!   "type": "org.osbuild.sysctld",
//!   "options": {
//!     "filename": "sap.conf",
//!     "config": [{ "key": "kernel.pid_max", "value": "4194304" }, { "key": "-net.ipv4.conf.default.rp_filter" }]
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.sysctld",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a.conf", "config": []}}"#,
        r#"{"options": {"filename": "a", "config": [{"key": "a", "value": "1"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"key": "a"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"key": "-"}]}}"#,
        r#"{"options": {"filename": "a.conf", "config": [{"key": "a", "value": 1}]}}"#,
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
    /// The parameters, in order
    #[schemars(length(min = 1))]
    config: Vec<Parameter>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["value"]}, {"properties": {"key": {"pattern": "^-.+$"}}}]))]
struct Parameter {
    /// Its name, or a pattern
    key: String,
    /// Its value
    #[serde(default)]
    value: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, config } = cx.options()?;
    let lines = config.iter().map(line).collect::<Result<String, _>>()?;
    cx.tree.write(format!("usr/lib/sysctl.d/{filename}"), lines)
}

fn line(Parameter { key, value }: &Parameter) -> Result<String, Error> {
    let key = one_line::refuse("config.key", one_line::word("config.key", key)?, |c| c == '=', "a `=`")?;
    if key.starts_with(['#', ';']) {
        return Err(Error::failed(format!("the option `config.key` makes a comment of its line: {key:?}")));
    }
    Ok(match one_line::trimmed("config.value", value)? {
        "" => format!("{key}\n"),
        value => format!("{key} = {value}\n"),
    })
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_parameter_has_a_line_and_the_directory_must_be_there() {
        let config = json!([{"key": "a.b", "value": "1"}, {"key": "-a.*"}, {"key": "c", "value": ""}]);
        let options = json!({"filename": "a.conf", "config": config});
        let done = Case::new(&MODULE).dir("usr/lib/sysctl.d").run(options.clone()).ok();
        assert_eq!(done.text("usr/lib/sysctl.d/a.conf"), "a.b = 1\n-a.*\nc\n");
        assert!(Case::new(&MODULE).run(options).err().contains("No such file"));
    }

    #[test]
    fn what_makes_another_line_or_setting_is_refused() {
        let refused = |parameter: Value| {
            let options = json!({"filename": "a.conf", "config": [parameter]});
            Case::new(&MODULE).dir("usr/lib/sysctl.d").run(options).err().to_owned()
        };
        for (key, value, word) in [
            ("a", "1\nb = 2", "`config[0].value` has a line break"),
            ("a", " 1", "`config.value` begins or ends"),
            ("a=b", "1", "`config.key` has a `=`"),
            ("a b", "1", "`config.key` has a blank"),
            ("#a", "1", "makes a comment"),
        ] {
            let error = refused(json!({"key": key, "value": value}));
            assert!(error.contains(word), "{error}");
        }
    }
}
