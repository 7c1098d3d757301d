//! Files of NetworkManager: INI files for their owner's eyes.

use std::path::Path;

use osbc_module_api::{Error, Tree, Value};

use crate::ini::{Section, Sections, interpolated};
use crate::python;

/// Sets all of `settings`, an object, in a section: lists with commas, `true` and `false`.
///
/// # Errors
/// A value is an object, a list has something else than texts, or a value has a `%` that begins no reference.
pub(crate) fn set(section: &mut Section, settings: &Value) -> Result<(), Error> {
    for (key, value) in settings.as_object().into_iter().flatten() {
        let value = match value {
            Value::Array(items) => python::join(",", items)?,
            Value::Bool(said) => said.to_string(),
            value => python::scalar(value)?,
        };
        section.set(key, interpolated(&value)?);
    }
    Ok(())
}

/// Writes a file and the folders above it.
///
/// # Errors
/// Something else is in the way.
pub(crate) fn write(tree: &Tree, path: &str, ini: &Sections) -> Result<(), Error> {
    let path = Path::new("/").join(path.trim_start_matches('/'));
    if let Some(folder) = path.parent() {
        tree.create_dir_all(folder, 0o777)?;
    }
    tree.write(&path, ini.text("="))?;
    tree.chmod(&path, 0o600)
}
