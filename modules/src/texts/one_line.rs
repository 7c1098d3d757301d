//! Text files of one setting a line: what a line cannot hold is refused, by the name of its option.

use osbc_module_api::*;

/// Checks that all strings of a stage's options, its keys too, can stand in a line of a text file.
///
/// # Errors
/// One of them has a line break or a NUL.
pub(crate) fn check(options: &Value) -> Result<(), Error> {
    check_below(options, &mut String::new())
}

fn check_below(value: &Value, name: &mut String) -> Result<(), Error> {
    let length = name.len();
    match value {
        Value::String(text) => line(name, text).map(drop),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            name.truncate(length);
            *name += &format!("[{index}]");
            check_below(item, name)
        }),
        Value::Object(entries) => entries.iter().try_for_each(|(key, value)| {
            name.truncate(length);
            line(name, key)?;
            *name += if length == 0 { "" } else { "." };
            *name += key;
            check_below(value, name)
        }),
        _ => Ok(()),
    }
}

/// Returns the value of the option `name`, which is to stand in one line.
///
/// # Errors
/// It has a line break or a NUL.
pub(crate) fn line<'a>(name: &str, value: &'a str) -> Result<&'a str, Error> {
    refuse(name, value, |c| matches!(c, '\n' | '\r'), "a line break")?;
    refuse(name, value, |c| c == '\0', "a NUL")
}

/// Returns the value of the option `name`, which is to be one word of a line.
///
/// # Errors
/// It is empty, or has white space or a NUL.
pub(crate) fn word<'a>(name: &str, value: &'a str) -> Result<&'a str, Error> {
    if value.is_empty() {
        return Err(Error::failed(format!("the option `{name}` is empty, which the file cannot say; give it a value")));
    }
    refuse(name, line(name, value)?, char::is_whitespace, "a blank")
}

/// Returns the value of the option `name`, unless it has a character that the file cannot say.
///
/// # Errors
/// It has one, which is `what`.
pub(crate) fn refuse<'a>(
    name: &str,
    value: &'a str,
    is_bad: impl Fn(char) -> bool,
    what: &str,
) -> Result<&'a str, Error> {
    if value.contains(is_bad) {
        let reason = format!("the option `{name}` has {what}, which the file cannot hold; leave it out: {value:?}");
        return Err(Error::failed(reason));
    }
    Ok(value)
}

/// Returns the value of the option `name`, of which no reader of the file takes blanks away.
///
/// # Errors
/// It has a line break, a NUL, or a blank at one of its ends.
pub(crate) fn trimmed<'a>(name: &str, value: &'a str) -> Result<&'a str, Error> {
    if value.trim() != value {
        let reason = "begins or ends with a blank, which the file's readers drop; leave it out";
        return Err(Error::failed(format!("the option `{name}` {reason}: {value:?}")));
    }
    line(name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_are_found_wherever_they_are_and_named() {
        check(&json!({"a": [{"b": "x y\t\"%$\\"}, 1, null, true]})).unwrap();
        for (options, name) in [
            (json!({"a": [{"b": "x"}, {"b": "x\ny"}]}), "`a[1].b` has a line break, "),
            (json!({"a": {"b": "x\r"}}), "`a.b` has a line break, "),
            (json!({"a": "\0"}), "`a` has a NUL, "),
            (json!({"a": {"x\ny": 1}}), "`a` has a line break, "),
        ] {
            let error = check(&options).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the option {name}")), "{error}");
        }
        assert!(check(&json!({"a": "x\ny"})).unwrap_err().to_string().ends_with(r#": "x\ny""#));
    }

    #[test]
    fn words_have_no_blanks_and_lines_none_at_their_ends() {
        assert_eq!(word("a", "x=\"y\"").unwrap(), "x=\"y\"");
        assert_eq!(trimmed("a", "x y").unwrap(), "x y");
        assert!(word("a", "x y").unwrap_err().to_string().contains("`a` has a blank"));
        assert!(word("a", "").unwrap_err().to_string().contains("`a` is empty"));
        assert!(trimmed("a", " x").unwrap_err().to_string().contains("`a` begins or ends with a blank"));
    }
}
