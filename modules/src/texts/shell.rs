//! Values in files that a POSIX shell reads: it gets them back as they were, and runs nothing.

/// What means something to a shell outside of quotes, in the value of an assignment.
const SPECIAL: &str = " \t\n\r\"'\\$`()<>|&;";

/// Returns a value between double quotes.
pub(crate) fn quoted(value: &str) -> String {
    format!("\"{}\"", escaped(value))
}

/// Returns a value as it stands between double quotes that are there already.
pub(crate) fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Returns a value as it can stand behind the `=` of an assignment: between double quotes where it needs them.
pub(crate) fn assigned(value: &str) -> String {
    let home = value.starts_with('~') || value.contains(":~");
    if home || value.contains(|c| SPECIAL.contains(c)) { quoted(value) } else { value.to_owned() }
}

/// Returns a value between single quotes, as shells, GRUB and Python's `shlex` take it.
pub(crate) fn single_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a shell takes the words of an assignment for.
    fn read(assignment: &str) -> String {
        let script = format!("{assignment}\nprintf '%s.' \"$value\"");
        let output = Command::new("/bin/sh").env_clear().args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().strip_suffix('.').unwrap().to_owned()
    }

    #[test]
    fn plain_values_stand_without_quotes_where_they_may() {
        for value in ["saved", "a#b", "x=1,2", "é", "a*b?[c]", "!x", "{a}"] {
            assert_eq!(assigned(value), value);
        }
        assert_eq!(quoted("ro quiet"), "\"ro quiet\"");
        assert_eq!(assigned("~"), "\"~\"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_shell_reads_back_what_was_written(value in "([ -~]|[\n\téß€]|\\$\\(id\\)|`id`|~){0,20}") {
            for written in [quoted(&value), assigned(&value), single_quoted(&value)] {
                prop_assert_eq!(read(&format!("value={written}")), value.clone());
            }
        }
    }
}
