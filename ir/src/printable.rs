//! Makes strings from outside safe for a terminal.
//!
//! Control characters, and marks that change the direction of text, become escapes such as `\u001b`, which both JSON
//! and people can read.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns a text without characters that could control a terminal; its line breaks and tabs stay.
pub fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |char| is_control(char) && !matches!(char, '\n' | '\t'))
}

/// Returns a name as a part of one line: without any control character.
pub fn line(name: &str) -> Cow<'_, str> {
    escaped(name, is_control)
}

/// Returns a text in which all that could control a terminal is `?`, so that all places stay; so do line breaks and
/// tabs.
pub fn in_place(text: &str) -> Cow<'_, str> {
    if !text.contains(|char| is_control(char) && !matches!(char, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        let ends_line = char == '\r' && text[at + 1..].starts_with('\n');
        match is_control(char) && !matches!(char, '\n' | '\t') && !ends_line {
            true => shown.extend(std::iter::repeat_n('?', char.len_utf8())),
            false => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

fn is_control(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match is_escaped(char) {
            true => write!(shown, "\\u{:04x}", u32::from(char)).expect("a string grows"),
            false => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_spelt_out() {
        assert_eq!(
            text("a\x1b[2J\x07\u{9b}31m\x7f\u{202e}b\r\n\tc"),
            "a\\u001b[2J\\u0007\\u009b31m\\u007f\\u202eb\\u000d\n\tc"
        );
        assert_eq!(line("a\nfailed: b\té"), "a\\u000afailed: b\\u0009é");
        assert!(matches!(text("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({"a\x7f": "\x1b\u{9b}\n\u{2028}"});
        let shown = text(&format!("{value:#}")).into_owned();
        assert!(!shown.contains(|char| is_control(char) && char != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }

    #[test]
    fn places_stay() {
        assert_eq!(in_place("é\x1b[\u{9b}\u{202e}x\ry\r\n"), "é?[?????x?y\r\n");
    }
}
