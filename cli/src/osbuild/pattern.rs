//! Patterns as Python's `fnmatch` reads them: `*`, `?`, `[abc]`, `[a-z]`, `[!a-z]`. Everything else is itself, slashes and
//! leading dots included.

/// Whether all of a text fits a pattern.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut position) = (0, 0);
    // Where the last `*` stands, and how much of the text it takes so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at < pattern.len() && pattern[at] == '*' {
            star = Some((at, position));
            at += 1;
            continue;
        }
        if position == text.len() && at == pattern.len() {
            return true;
        }
        let step = if position < text.len() && at < pattern.len() { one(&pattern[at..], text[position]) } else { None };
        match (step, star) {
            (Some(length), _) => {
                at += length;
                position += 1;
            }
            (None, Some((place, taken))) if taken < text.len() => {
                star = Some((place, taken + 1));
                at = place + 1;
                position = taken + 1;
            }
            (None, _) => return false,
        }
    }
}

/// How much of the pattern's beginning stands for this one character; none if it is another one.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern[0] {
        '?' => Some(1),
        '[' => match set(pattern) {
            Some((members, length)) => is_in(members, character).then_some(length),
            // Without its end it is a bracket.
            None => (character == '[').then_some(1),
        },
        other => (other == character).then_some(1),
    }
}

/// What stands between a `[` and its `]`, and how long it is with them. A `]` that comes first is a member.
fn set(pattern: &[char]) -> Option<(&[char], usize)> {
    let first = if pattern.get(1) == Some(&'!') { 2 } else { 1 };
    let end = pattern.iter().skip(first + 1).position(|character| *character == ']')? + first + 1;
    Some((&pattern[1..end], end + 1))
}

fn is_in(members: &[char], character: char) -> bool {
    let (negated, members) = match members.split_first() {
        Some(('!', rest)) => (true, rest),
        _ => (false, members),
    };
    let mut found = false;
    let mut rest = members;
    while let Some(first) = rest.first() {
        match rest {
            [from, '-', to, ..] => {
                found |= (*from..=*to).contains(&character);
                rest = &rest[3..];
            }
            _ => {
                found |= *first == character;
                rest = &rest[1..];
            }
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_python() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("tree", "tree", true),
            ("tree", "tree2", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("org.osbuild.*", "org.osbuild.rpm", true),
            ("*.rpm", "org.osbuild.rpm", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("t?ee", "tree", true),
            ("t?ee", "tee", false),
            ("[st]ree", "tree", true),
            ("[!st]ree", "tree", false),
            ("[!st]ree", "free", true),
            ("[a-f]1", "c1", true),
            ("[a-f]1", "g1", false),
            ("[]]", "]", true),
            ("[!]]", "a", true),
            ("[a", "[a", true),
            ("[-a]", "-", true),
            ("[a-]", "-", true),
            ("TREE", "tree", false),
            ("é?", "éa", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }
}
