//! Shell patterns as Python's `fnmatch.fnmatchcase` reads them: `*`, `?`, `[abc]`, `[a-z]`, `[!a-z]`.
//!
//! Everything else stands for itself, slashes and leading dots included: `*` matches them too.

/// A pattern that is ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `*`: any number of characters.
    Many,
    /// `?`: one character.
    One,
    /// This character.
    Literal(char),
    /// One of a set, ends of ranges included.
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Parses a pattern; every string is one.
    pub fn new(pattern: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = pattern.chars();
        while let Some(first) = rest.next() {
            let part = match first {
                // Several in a row match what one does.
                '*' if parts.last() == Some(&Part::Many) => continue,
                '*' => Part::Many,
                '?' => Part::One,
                '[' => match set(rest.as_str()) {
                    Some((part, length)) => {
                        rest = rest.as_str()[length..].chars();
                        part
                    }
                    // Without its end it is a bracket.
                    None => Part::Literal('['),
                },
                other => Part::Literal(other),
            };
            parts.push(part);
        }
        Self(parts)
    }

    /// Returns whether the whole of a string matches.
    pub fn is_match(&self, text: &str) -> bool {
        let parts = &self.0;
        let (mut at, mut rest) = (0, text.chars());
        // The last `*`, and what follows the characters that it takes so far.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if parts.get(at) == Some(&Part::Many) {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            let mut after = rest.clone();
            match (parts.get(at), after.next()) {
                (None, None) => return true,
                (Some(part), Some(character)) if part.takes(character) => {
                    at += 1;
                    rest = after;
                    continue;
                }
                _ => {}
            }
            let Some((place, taken)) = &mut retry else { return false };
            if taken.next().is_none() {
                return false;
            }
            at = *place;
            rest = taken.clone();
        }
    }
}

impl Part {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Many => false,
            Self::One => true,
            Self::Literal(own) => *own == character,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *negated
            }
        }
    }
}

/// The set that begins after a `[`, and how many bytes it takes with its `]`. A `]` that comes first is a member.
fn set(rest: &str) -> Option<(Part, usize)> {
    let (negated, members) = rest.strip_prefix('!').map_or((false, rest), |members| (true, members));
    let first = members.chars().next()?.len_utf8();
    let end = first + members[first..].find(']')?;
    let mut ranges = Vec::new();
    let mut left: &[char] = &members[..end].chars().collect::<Vec<_>>();
    while let Some(from) = left.first() {
        match left {
            [_, '-', to, ..] => {
                ranges.push((*from, *to));
                left = &left[3..];
            }
            _ => {
                ranges.push((*from, *from));
                left = &left[1..];
            }
        }
    }
    Some((Part::Set { negated, ranges }, usize::from(negated) + end + 1))
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_as_in_python() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("tree", "tree", true),
            ("tree", "tree2", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("**", ".a\n", true),
            ("org.osbuild.*", "org.osbuild.rpm", true),
            ("*.rpm", "org.osbuild.rpm", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("a*", "b", false),
            ("t?ee", "tree", true),
            ("t?ee", "tee", false),
            ("[st]ree", "tree", true),
            ("[!st]ree", "tree", false),
            ("[!st]ree", "free", true),
            ("[^s]", "s", true),
            ("[a-f]1", "c1", true),
            ("[a-f]1", "g1", false),
            ("[f-a]", "c", false),
            ("[]]", "]", true),
            ("[!]]", "a", true),
            ("[!]]", "]", false),
            ("[!]a]", "b", true),
            ("[!]", "[!]", true),
            ("[a", "[a", true),
            ("[]", "[]", true),
            ("[-a]", "-", true),
            ("[a-]", "-", true),
            (r"[\]x", r"\x", true),
            ("TREE", "tree", false),
            ("é?", "éa", true),
            ("[à-é]*", "éa", true),
        ] {
            assert_eq!(Pattern::new(pattern).is_match(text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!Pattern::new(&("*a".repeat(60) + "b")).is_match(&"a".repeat(2000)));
    }
}
