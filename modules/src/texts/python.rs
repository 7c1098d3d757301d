//! Option values as Python's `str` and `str.join` write them, with an error for those that they cannot write.

use osbc_module_api::{Error, Value};

use osbc_pytext::text;

/// A value as `str()` gives it.
///
/// # Errors
/// It is a list or an object.
pub(crate) fn scalar(value: &Value) -> Result<String, Error> {
    text::str(value).ok_or_else(|| Error::failed(format!("a list or object is no plain value: {value}")))
}

/// The texts of a list, joined as `str.join` does it.
///
/// # Errors
/// The list has something else than texts.
pub(crate) fn join(separator: &str, list: &[Value]) -> Result<String, Error> {
    let texts = list.iter().map(|item| match item {
        Value::String(text) => Ok(text.as_str()),
        other => Err(Error::failed(format!("a list of texts has {other}"))),
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join(separator))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::json;

    use super::*;

    #[test]
    fn values_are_spelt_as_python_spells_them() {
        for (value, text) in [(json!("x y"), "x y"), (json!(true), "True"), (json!(null), "None"), (json!(1.0), "1.0")]
        {
            assert_eq!(scalar(&value).unwrap(), text);
        }
        assert!(scalar(&json!([])).is_err());
        assert_eq!(join(", ", &[json!("a"), json!("b")]).unwrap(), "a, b");
        assert!(join(", ", &[json!("a"), json!(1)]).is_err());
    }
}
