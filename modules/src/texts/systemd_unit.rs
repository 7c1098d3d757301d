//! Units of systemd as options describe them: sections of settings, which may have many lines each.

use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::one_line;
use crate::texts::systemd_words;
use osbc_pytext::text;

/// Whose units they are.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Directory {
    /// The system's.
    #[default]
    System,
    /// Those of all users.
    Global,
}

impl Directory {
    /// The directory's name below one of systemd's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Directory::System => "system",
            Directory::Global => "user",
        }
    }
}

/// A variable of a service's environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the variables are read from what was checked")]
pub(crate) struct Variable {
    /// Its name
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*"))]
    key: Option<String>,
    /// Its value
    value: Option<String>,
}

/// Adds sections with their settings: one line for a plain value, one for each item of a list, twice the same only
/// once.
///
/// # Errors
/// A variable has no key or no value, or a setting has a line break.
pub(crate) fn fill(file: &mut Sections, config: &Map<String, Value>) -> Result<(), Error> {
    for (name, settings) in config {
        let section = file.section(name)?;
        for (key, value) in settings.as_object().into_iter().flatten() {
            let option = format!("{name}.{key}");
            match value {
                Value::Array(items) => {
                    for item in items {
                        section.line(&format!("{key}={}", line(&option, item)?));
                    }
                }
                value => section.set(key, setting(&option, &text::str(value).unwrap_or_default())?)?,
            }
        }
    }
    Ok(())
}

fn line(option: &str, item: &Value) -> Result<String, Error> {
    let Value::Object(variable) = item else {
        return setting(option, &text::str(item).unwrap_or_default()).map(str::to_owned);
    };
    match (variable.get("key").and_then(Value::as_str), variable.get("value").and_then(Value::as_str)) {
        (Some(key), Some(value)) => {
            let value =
                one_line::refuse(option, value, |c| c.is_control() && c != '\n' && c != '\t', "a control character")?;
            Ok(systemd_words::quoted(&format!("{}={value}", one_line::word(option, key)?)))
        }
        _ => Err(Error::failed("a variable of the environment needs a `key` and a `value`")),
    }
}

/// Returns the value of a setting, which goes on in a further line only behind a `\`.
///
/// # Errors
/// A line of it ends otherwise, or the last one by a `\`.
pub(crate) fn setting<'a>(option: &str, value: &'a str) -> Result<&'a str, Error> {
    let continues = |line: &str| (line.len() - line.trim_end_matches('\\').len()) % 2 == 1;
    let mut lines = value.split('\n').peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        if !last && !continues(line) {
            return one_line::line(option, value);
        }
        if last && continues(line) {
            let reason = "ends with a `\\`, which takes the next line for more of it";
            return Err(Error::failed(format!("the option `{option}` {reason}: {value:?}")));
        }
        one_line::line(option, line)?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(config: &Value) -> Result<String, String> {
        let mut file = Sections::default();
        fill(&mut file, config.as_object().unwrap()).map_err(|error| error.to_string())?;
        Ok(file.text("="))
    }

    #[test]
    fn variables_are_quoted_as_systemd_reads_them() {
        let environment = json!([{"key": "A", "value": "x \"y\" \\ %h"}, {"key": "B", "value": "1\n2"}]);
        let text = filled(&json!({"Service": {"Environment": environment}})).unwrap();
        assert_eq!(text, "[Service]\nEnvironment=\"A=x \\\"y\\\" \\\\ %h\"\nEnvironment=\"B=1\\n2\"\n\n");
        let error = filled(&json!({"Service": {"Environment": [{"key": "A B", "value": ""}]}})).unwrap_err();
        assert!(error.contains("`Service.Environment` has a blank"), "{error}");
    }

    #[test]
    fn a_line_break_makes_no_other_setting() {
        for value in [json!("a\n[Service]\nExecStart=/b"), json!(["a\rb"]), json!("a\\"), json!("a\\\\\nb")] {
            let error = filled(&json!({"Unit": {"Description": value}})).unwrap_err();
            assert!(error.starts_with("the option `Unit.Description` "), "{error}");
        }
        let text = filled(&json!({"Service": {"ExecStart": ["/bin/a \\\n  b", "/c \\\\"]}})).unwrap();
        assert_eq!(text, "[Service]\nExecStart=/bin/a \\\n  b\nExecStart=/c \\\\\n\n");
    }
}
