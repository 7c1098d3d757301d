//! Patterns of a shell.

use regex::Regex;

/// What a shell's pattern matches, as Python's `fnmatch` has it: `*` matches `/` too.
pub(crate) fn matcher(pattern: &str) -> Regex {
    let mut expression = String::from("(?s)^");
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        match character {
            '*' => expression += ".*",
            '?' => expression.push('.'),
            '[' => {
                let set: String = rest.clone().take(1).chain(rest.clone().skip(1).take_while(|c| *c != ']')).collect();
                let length = set.chars().count();
                if rest.clone().nth(length) != Some(']') {
                    expression += r"\[";
                    continue;
                }
                rest.nth(length);
                let (not, set) = set.strip_prefix('!').map_or(("", set.as_str()), |set| ("^", set));
                let plain = |c: char| c == '-' || c.is_ascii_alphanumeric();
                let set: String =
                    set.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect();
                expression += &format!("[{not}{set}]");
            }
            other => expression += &regex::escape(&other.to_string()),
        }
    }
    Regex::new(&(expression + "$"))
        .unwrap_or_else(|_| Regex::new(&format!("^{}$", regex::escape(pattern))).expect("escaped"))
}
