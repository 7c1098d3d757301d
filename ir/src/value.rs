//! JSON values in one canonical form.
//!
//! The workspace switches on serde_json's `arbitrary_precision` and `preserve_order`: numbers keep their digits,
//! objects keep the manifest's order of keys (a repeated key keeps its first place and its last value, as in
//! Python). After [`canonicalize`] two numbers are the same value exactly when their texts are equal.

pub use serde_json::{Map, Number, Value};

/// A number that JSON can spell but no build can mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the number {text} is too large for a floating-point number")]
pub struct NumberError {
    /// The number as written.
    pub text: String,
}

/// Rewrites a number in canonical form.
///
/// Integers keep their digits (`-0` is `0`). All others become the shortest string that reads back as the same IEEE 754
/// double, spelt as Python's `repr` does (`1e+22`, `1e-07`, `1.0`).
///
/// # Errors
/// The number is no integer and overflows a double.
pub fn canonical_number(number: &Number) -> Result<Number, NumberError> {
    let text = number.as_str();
    let error = || NumberError { text: text.to_owned() };
    if !text.contains(['.', 'e', 'E']) {
        let text = if text == "-0" { "0" } else { text };
        return text.parse().map_err(|_| error());
    }
    let float: f64 = text.parse().map_err(|_| error())?;
    if !float.is_finite() {
        return Err(error());
    }
    float_repr(float).parse().map_err(|_| error())
}

/// Python's `repr` of a finite double: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
pub fn float_repr(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{float}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Brings every number of a value into canonical form.
///
/// # Errors
/// The JSON pointer of the first number that has none, and what is wrong with it.
pub fn canonicalize(value: &mut Value) -> Result<(), (String, NumberError)> {
    match value {
        Value::Number(number) => {
            *number = canonical_number(number).map_err(|error| (String::new(), error))?;
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                canonicalize(item).map_err(|(rest, error)| (format!("/{index}{rest}"), error))?;
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries.iter_mut() {
                canonicalize(item).map_err(|(rest, error)| {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    (format!("/{key}{rest}"), error)
                })?;
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
    Ok(())
}

/// The entries of an object, sorted by the code points of their keys.
pub(crate) fn sorted_entries(entries: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let sorted = (!entries.keys().is_sorted()).then(|| {
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted
    });
    let as_written = sorted.is_none().then(|| entries.iter());
    as_written.into_iter().flatten().chain(sorted.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, NumberError> {
        let number: Number = serde_json::from_str(text).expect("a JSON number");
        canonical_number(&number).map(|number| number.to_string())
    }

    #[test]
    fn integers_keep_their_digits() {
        for text in ["0", "-1", "18446744073709551616", "123456789012345678901234567890"] {
            assert_eq!(canonical(text).as_deref(), Ok(text));
        }
        assert_eq!(canonical("-0").as_deref(), Ok("0"));
    }

    #[test]
    fn floats_are_spelt_as_python_spells_them() {
        for (text, python) in [
            ("1.0", "1.0"),
            ("1.50", "1.5"),
            ("1e2", "100.0"),
            ("1E22", "1e+22"),
            ("1e-7", "1e-07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("-0.0", "-0.0"),
            ("5e-324", "5e-324"),
            ("1e-400", "0.0"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(python), "{text}");
        }
    }

    #[test]
    fn overflow_is_named_with_its_place() {
        let mut value = serde_json::from_str(r#"{"a/b": [1, 1e+400]}"#).expect("valid JSON");
        let error = NumberError { text: "1e+400".into() };
        assert_eq!(canonicalize(&mut value), Err(("/a~1b/1".into(), error)));
    }
}
