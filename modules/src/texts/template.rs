//! Fills in templates as Python's `string.Template.safe_substitute` does.
//!
//! `$name` and `${name}` are replaced; what has no value stays as it is, `$$` is a dollar sign, and what is filled in
//! is not looked at again.

/// Fills in a template.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        text += &rest[..at];
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('$') {
            text.push('$');
            rest = more;
            continue;
        }
        let braced = after.strip_prefix('{');
        let name = name_at(braced.unwrap_or(after));
        let length = match braced {
            Some(inner) if !name.is_empty() && inner[name.len()..].starts_with('}') => name.len() + 2,
            None => name.len(),
            Some(_) => 0,
        };
        let value = values.iter().find(|(key, _)| *key == name).filter(|_| length > 0);
        match value {
            Some((_, value)) => text += value,
            None => {
                text.push('$');
                text += &after[..length];
            }
        }
        rest = &after[length..];
    }
    text + rest
}

/// The name that a text begins with, or nothing.
fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn names_with_a_value_are_filled_in_and_all_else_stays() {
        let values = [("a", "1"), ("b_2", "$a"), ("empty", "")];
        for (template, text) in [
            ("$a ${a} ${b_2}$empty.", "1 1 $a."),
            ("$$a $${a} ${c} $c $ab ${a", "$a ${a} ${c} $c $ab ${a"),
            ("$1 ${1} $ $", "$1 ${1} $ $"),
            ("${} $-", "${} $-"),
            ("$aé", "1é"),
        ] {
            assert_eq!(fill(template, &values), text, "{template}");
        }
    }
}
