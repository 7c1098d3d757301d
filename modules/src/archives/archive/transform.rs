//! GNU tar's `--transform`: sed's `s` commands applied to the names of members.
//!
//! Facts: the GNU tar manual, "Modifying File and Member Names"; POSIX basic and extended regular expressions.

use std::ops::Range;

use osbc_module_api::Error;
use regex::bytes::{Captures, Regex, RegexBuilder};

use super::Target;

/// One or more `s` commands, separated by semicolons.
#[derive(Debug, Clone)]
pub(crate) struct Transform {
    commands: Vec<Command>,
}

#[derive(Debug, Clone)]
struct Command {
    pattern: Regex,
    replacement: Vec<Part>,
    /// Which matches are replaced, counted from 1.
    matches: Range<usize>,
    members: bool,
    hard_links: bool,
    symbolic_links: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Vec<u8>),
    Group(usize),
    Case(Case),
}

/// How the letters that follow are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Keep,
    Upper,
    Lower,
    UpperOne,
    LowerOne,
}

/// The longest name that commands may make, in bytes: much longer than any path.
const MAX_NAME: usize = 64 << 10;

impl Transform {
    /// Reads an expression such as `s,^,prefix/,S`.
    ///
    /// # Errors
    /// It is no list of `s` commands.
    pub(crate) fn parse(expression: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::failed(format!("invalid transform `{expression}`: {reason}"));
        let mut commands = Vec::new();
        let mut rest = expression;
        // `flags=…` at the start sets the targets of all commands.
        let mut targets = "rsh".to_owned();
        while !rest.is_empty() {
            rest = rest.trim_start_matches([';', ' ']);
            if let Some(flags) = rest.strip_prefix("flags=") {
                let end = flags.find(';').unwrap_or(flags.len());
                targets = flags[..end].to_owned();
                rest = &flags[end..];
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let (command, after) = Command::parse(rest, &targets).map_err(refuse)?;
            commands.push(command);
            rest = after;
        }
        Ok(Self { commands })
    }

    /// Returns the name as the commands rewrite it.
    ///
    /// # Errors
    /// It gets longer than any name may be: commands that double it are soon beyond all memory.
    pub(crate) fn apply(&self, name: &[u8], target: Target) -> Result<Vec<u8>, Error> {
        let applies = |command: &&Command| match target {
            Target::Member => command.members,
            Target::HardLink => command.hard_links,
            Target::SymbolicLink => command.symbolic_links,
        };
        self.commands.iter().filter(applies).try_fold(name.to_vec(), |name, command| command.apply(&name)).ok_or_else(
            || {
                let name = String::from_utf8_lossy(name);
                Error::failed(format!("the transform makes a name of more than {MAX_NAME} bytes of `{name}`"))
            },
        )
    }
}

impl Command {
    fn parse<'a>(text: &'a str, targets: &str) -> Result<(Self, &'a str), String> {
        let mut letters = text.strip_prefix('s').ok_or("expected an `s` command")?.char_indices();
        let (_, delimiter) = letters.next().ok_or("expected a delimiter after `s`")?;
        let body = &text[1 + delimiter.len_utf8()..];
        let (pattern, rest) = until(body, delimiter).ok_or("the pattern does not end")?;
        let (replacement, rest) = until(rest, delimiter).ok_or("the replacement does not end")?;
        let end = rest.find(';').unwrap_or(rest.len());
        let (flags, rest) = rest.split_at(end);

        let (mut extended, mut insensitive, mut global, mut first) = (false, false, false, String::new());
        let mut targets = targets.to_owned();
        for flag in flags.trim().chars() {
            match flag {
                'g' => global = true,
                'i' | 'I' => insensitive = true,
                'x' => extended = true,
                '0'..='9' => first.push(flag),
                'r' | 's' | 'h' => targets.push(flag),
                'R' | 'S' | 'H' => targets.retain(|target| target != flag.to_ascii_lowercase()),
                other => return Err(format!("unknown flag `{other}`")),
            }
        }
        let first = if first.is_empty() { 1 } else { first.parse().map_err(|_| "the number is too large")? };
        let pattern = if extended { pattern } else { extended_form(&pattern) };
        let pattern = RegexBuilder::new(&pattern)
            .unicode(false)
            .case_insensitive(insensitive)
            .build()
            .map_err(|error| error.to_string())?;
        let command = Self {
            pattern,
            replacement: parts(&replacement),
            matches: first..if global { usize::MAX } else { first.saturating_add(1) },
            members: targets.contains('r'),
            hard_links: targets.contains('h'),
            symbolic_links: targets.contains('s'),
        };
        Ok((command, rest))
    }

    /// The rewritten name; none if it gets too long.
    fn apply(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut result = Vec::new();
        let mut end = 0;
        for (index, captures) in self.pattern.captures_iter(name).enumerate() {
            if !self.matches.contains(&(index + 1)) {
                continue;
            }
            let Some(whole) = captures.get(0) else { continue };
            result.extend_from_slice(&name[end..whole.start()]);
            self.replace(&captures, &mut result)?;
            end = whole.end();
        }
        result.extend_from_slice(&name[end..]);
        (result.len() <= MAX_NAME).then_some(result)
    }

    fn replace(&self, captures: &Captures<'_>, result: &mut Vec<u8>) -> Option<()> {
        let (mut case, mut once) = (Case::Keep, None);
        for part in &self.replacement {
            let text = match part {
                Part::Text(text) => text.as_slice(),
                Part::Group(number) => captures.get(*number).map_or(&b""[..], |group| group.as_bytes()),
                Part::Case(one @ (Case::UpperOne | Case::LowerOne)) => {
                    once = Some(*one);
                    continue;
                }
                Part::Case(lasting) => {
                    case = *lasting;
                    continue;
                }
            };
            if result.len() + text.len() > MAX_NAME {
                return None;
            }
            for byte in text {
                result.push(match once.take().unwrap_or(case) {
                    Case::Keep => *byte,
                    Case::Upper | Case::UpperOne => byte.to_ascii_uppercase(),
                    Case::Lower | Case::LowerOne => byte.to_ascii_lowercase(),
                });
            }
        }
        Some(())
    }
}

/// The text before the next delimiter that no backslash precedes, and the text behind it.
fn until(text: &str, delimiter: char) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        if letter == delimiter {
            return Some((found, &text[index + letter.len_utf8()..]));
        }
        if letter == '\\' {
            let (_, next) = letters.next()?;
            if next != delimiter {
                found.push('\\');
            }
            found.push(next);
        } else {
            found.push(letter);
        }
    }
    None
}

/// A basic regular expression as an extended one: what is special with a backslash in one is so without in the other.
fn extended_form(pattern: &str) -> String {
    let mut result = String::new();
    let mut letters = pattern.chars().peekable();
    let mut start = true;
    while let Some(letter) = letters.next() {
        let at_start = std::mem::replace(&mut start, false);
        match letter {
            '\\' => match letters.next() {
                Some(special @ ('(' | ')' | '{' | '}' | '+' | '?' | '|')) => {
                    result.push(special);
                    start = matches!(special, '(' | '|');
                }
                Some(other) => result.extend(['\\', other]),
                None => result.push_str("\\\\"),
            },
            '[' => {
                result.push('[');
                // A bracket expression ends at the first `]` that is not its first character.
                let mut position = 0;
                for inner in letters.by_ref() {
                    if inner == '\\' {
                        result.push('\\');
                    }
                    result.push(inner);
                    if inner == ']' && position > 0 {
                        break;
                    }
                    position += usize::from(!(position == 0 && inner == '^'));
                }
            }
            '*' if at_start => result.push_str("\\*"),
            '(' | ')' | '{' | '}' | '+' | '?' | '|' => result.extend(['\\', letter]),
            '^' if !at_start => result.push_str("\\^"),
            '$' if letters.peek().is_some() => result.push_str("\\$"),
            other => result.push(other),
        }
        start |= at_start && letter == '^';
    }
    result
}

/// A replacement in parts.
fn parts(replacement: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut letters = replacement.chars();
    while let Some(letter) = letters.next() {
        let special = match letter {
            '&' => Some(Part::Group(0)),
            '\\' => match letters.next() {
                Some(digit @ '0'..='9') => Some(Part::Group(digit as usize - '0' as usize)),
                Some('U') => Some(Part::Case(Case::Upper)),
                Some('L') => Some(Part::Case(Case::Lower)),
                Some('u') => Some(Part::Case(Case::UpperOne)),
                Some('l') => Some(Part::Case(Case::LowerOne)),
                Some('E') => Some(Part::Case(Case::Keep)),
                Some('n') => {
                    text.push(b'\n');
                    None
                }
                Some(other) => {
                    text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    None
                }
                None => None,
            },
            other => {
                text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                None
            }
        };
        if let Some(part) = special {
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(part);
        }
    }
    parts.push(Part::Text(text));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(expression: &str, name: &str) -> String {
        let transform = Transform::parse(expression).expect("the expression is valid");
        String::from_utf8(transform.apply(name.as_bytes(), Target::Member).expect("short")).expect("still UTF-8")
    }

    #[test]
    fn names_are_rewritten_as_sed_does() {
        for (expression, name, expected) in [
            ("s,^,prefix/,", "a/b", "prefix/a/b"),
            ("s/^\\.\\//root\\//", "./etc", "root/etc"),
            ("s/a/b/g", "banana", "bbnbnb"),
            ("s/a/b/2", "banana", "banbna"),
            ("s/a/b/2g", "banana", "banbnb"),
            ("s/A/x/i", "banana", "bxnana"),
            ("s/\\(.\\)\\(.\\)/\\2\\1/", "ab", "ba"),
            ("s/(.)(.)/\\2\\1/x", "ab", "ba"),
            ("s,[^/]*,<&>,", "usr/bin", "<usr>/bin"),
            ("s/.*/\\U&/", "usr", "USR"),
            ("s/.*/\\u&/", "usr", "Usr"),
            ("s/+/-/", "a+b", "a-b"),
            ("s/a/b/;s/b/c/", "a", "c"),
            ("s|x\\|y|z|", "x|y", "z"),
        ] {
            assert_eq!(renamed(expression, name), expected, "{expression}");
        }
    }

    #[test]
    fn flags_choose_the_targets() {
        let transform = Transform::parse("s/^/x/S").expect("the expression is valid");
        assert_eq!(transform.apply(b"a", Target::SymbolicLink).expect("short"), b"a");
        assert_eq!(transform.apply(b"a", Target::HardLink).expect("short"), b"xa");
    }

    #[test]
    fn names_do_not_grow_without_end() {
        for expression in ["s/.*/&&/;".repeat(100), format!("s/.*/{}/", "&".repeat(70_000))] {
            let transform = Transform::parse(&expression).expect("the expression is valid");
            let error = transform.apply(b"name", Target::Member).expect_err("it is too long").to_string();
            assert_eq!(error, "the transform makes a name of more than 65536 bytes of `name`");
        }
        assert_eq!(renamed("s/a/b/18446744073709551615", "a"), "a");
    }

    #[test]
    fn other_commands_are_refused() {
        for expression in ["y/a/b/", "s/a", "s/a/b", "s/a/b/q", "s/(/b/x"] {
            assert!(Transform::parse(expression).is_err(), "{expression}");
        }
    }
}
