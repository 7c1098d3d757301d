//! Files of NetworkManager: INI files for their owner's eyes.

use std::path::Path;

use osbc_module_api::{Error, Tree, Value};

use crate::texts::ini::{Section, Sections};
use crate::texts::one_line;
use crate::texts::python;

/// Sets all of `settings`, an object, in a section: lists with commas, `true` and `false`.
///
/// # Errors
/// A value is an object or has a NUL, or a list has something else than texts.
pub(crate) fn set(section: &mut Section, settings: &Value) -> Result<(), Error> {
    for (key, value) in settings.as_object().into_iter().flatten() {
        let value = match value {
            Value::Array(items) => python::join(",", items)?,
            Value::Bool(said) => said.to_string(),
            value => python::scalar(value)?,
        };
        let value = one_line::refuse(key, &value, |c| c == '\0', "a NUL")?;
        section.set(key, escaped(value))?;
    }
    Ok(())
}

/// Returns a value with the escapes of GLib's key files, by which NetworkManager reads it.
fn escaped(value: &str) -> String {
    let rest = value.trim_start_matches([' ', '\t']);
    let blanks = value[..value.len() - rest.len()].replace(' ', "\\s");
    let rest = rest.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    blanks.replace('\t', "\\t") + &rest
}

/// Writes a file and the directories above it.
///
/// # Errors
/// Something else is in the way.
pub(crate) fn write(tree: &Tree, path: &str, ini: &Sections) -> Result<(), Error> {
    let path = Path::new("/").join(path.trim_start_matches('/'));
    if let Some(directory) = path.parent() {
        tree.create_dir_all(directory, 0o777)?;
    }
    tree.write(&path, ini.text("="))?;
    tree.chmod(&path, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_escapes_of_key_files() {
        for (value, written) in
            [("100% a;b=#c", "100% a;b=#c"), ("  a b ", "\\s\\sa b "), ("\ta", "\\ta"), ("a\nb\\s\r", "a\\nb\\\\s\\r")]
        {
            assert_eq!(escaped(value), written);
        }
    }
}
