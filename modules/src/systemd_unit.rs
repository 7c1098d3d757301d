//! Units of systemd as options describe them: sections of settings, which may have many lines each.

use osbc_module_api::*;

use crate::ini::Sections;
use osbc_pytext::text;

/// Whose units they are.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Folder {
    /// The system's.
    #[default]
    System,
    /// Those of all users.
    Global,
}

impl Folder {
    /// The folder's name below one of systemd's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Folder::System => "system",
            Folder::Global => "user",
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

/// Adds sections with their settings: one line for a plain value, one for each item of a list, twice the same only once.
///
/// # Errors
/// A variable has no key or no value.
pub(crate) fn fill(file: &mut Sections, config: &Map<String, Value>) -> Result<(), Error> {
    for (name, settings) in config {
        let section = file.section(name)?;
        for (key, value) in settings.as_object().into_iter().flatten() {
            match value {
                Value::Array(items) => {
                    for item in items {
                        section.line(&format!("{key}={}", line(item)?));
                    }
                }
                value => section.set(key, text::str(value).unwrap_or_default()),
            }
        }
    }
    Ok(())
}

fn line(item: &Value) -> Result<String, Error> {
    let Value::Object(variable) = item else { return Ok(text::str(item).unwrap_or_default()) };
    match (variable.get("key").and_then(Value::as_str), variable.get("value").and_then(Value::as_str)) {
        (Some(key), Some(value)) => Ok(format!("\"{key}={value}\"")),
        _ => Err(Error::failed("a variable of the environment needs a `key` and a `value`")),
    }
}
