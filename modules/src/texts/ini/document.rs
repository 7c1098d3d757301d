//! An INI file that is changed in place: all that is not set anew stays as it is, to the byte.

use osbc_module_api::*;

use crate::texts::text;

/// How far the second line of a new value is indented where the old one shows no other way.
const INDENT: usize = 8;

/// A file as lines.
#[derive(Debug, Default)]
pub(crate) struct Document {
    lines: Vec<Line>,
    byte_order_mark: bool,
}

#[derive(Debug)]
struct Line {
    text: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Blank or a comment.
    Filler,
    /// The name of a section.
    Section(String),
    /// The key of an option, in lower case.
    Option(String),
    /// More of the option above, after an indentation of that many characters.
    Continuation(usize),
}

impl Document {
    /// Reads the file `path`; an empty document if there is none.
    ///
    /// # Errors
    /// It is there and cannot be read, or is no INI file.
    pub(crate) fn read_or_new(tree: &Tree, path: &str) -> Result<Self, Error> {
        text::read_if_there(tree, path)?.map_or_else(|| Ok(Self::default()), |text| Self::parse(&text, path))
    }

    /// Reads the file `path`.
    ///
    /// # Errors
    /// It cannot be read or is no INI file.
    pub(crate) fn read(tree: &Tree, path: &str) -> Result<Self, Error> {
        Self::parse(&text::read(tree, path)?, path)
    }

    pub(crate) fn parse(text: &str, path: &str) -> Result<Self, Error> {
        let (text, byte_order_mark) = text.strip_prefix('\u{feff}').map_or((text, false), |rest| (rest, true));
        let mut lines: Vec<Line> = Vec::new();
        if text.is_empty() {
            return Ok(Self { lines, byte_order_mark });
        }
        // Fillers do not end an option; a section does.
        let mut last = None;
        for (index, line) in text.split('\n').enumerate() {
            let kind = kind(line);
            let above = last.map(|last: usize| &lines[last].kind);
            let fits = match (&kind, above) {
                (None, _) | (Some(Kind::Option(_)), None) => false,
                (Some(Kind::Continuation(_)), None | Some(Kind::Section(_))) => false,
                (Some(_), _) => true,
            };
            match kind {
                Some(kind) if fits => {
                    last = if kind == Kind::Filler { last } else { Some(index) };
                    lines.push(Line { text: line.to_owned(), kind });
                }
                _ => return Err(Error::failed(format!("/{path}:{}: `{line}` is no line of an INI file", index + 1))),
            }
        }
        Ok(Self { lines, byte_order_mark })
    }

    /// Whether there is a section of that name.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.is_section(name))
    }

    /// Adds an empty section at the end unless there is one of that name.
    pub(crate) fn ensure_section(&mut self, name: &str) {
        if self.has_section(name) {
            return;
        }
        if !self.lines.is_empty() {
            self.lines.push(Line { text: String::new(), kind: Kind::Filler });
        }
        self.lines.push(Line { text: format!("[{name}]"), kind: Kind::Section(name.to_owned()) });
    }

    /// Sets an option of a section: the last one of that key, whatever the key's case, or else a new one behind the
    /// section's last.
    ///
    /// A comment behind the old value stays.
    ///
    /// # Errors
    /// There is no such section, or readers would take the value for something else.
    pub(crate) fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), Error> {
        if !self.has_section(section) {
            return Err(Error::failed(format!("there is no section `[{section}]`")));
        }
        let is_comment = |(at, _)| value[..at].ends_with(char::is_whitespace);
        if value.contains('\r') || value.match_indices([';', '#']).any(is_comment) {
            let reason = "has what the file's readers take for a comment or the end of the line";
            return Err(Error::failed(format!("the option `{key}` {reason}: {value:?}")));
        }
        let (mut old, mut behind, mut inside) = (None, 0, false);
        for (index, line) in self.lines.iter().enumerate() {
            match &line.kind {
                Kind::Section(name) => inside = name == section,
                Kind::Option(own) if inside && *own == key.to_lowercase() => old = Some(index),
                _ => {}
            }
            if inside && line.kind != Kind::Filler {
                behind = index + 1;
            }
        }
        let mut values = value.split('\n');
        let first = values.next().unwrap_or_default();
        let (at, end, text) = match old {
            Some(at) => (at, self.end(at), with_value(&self.lines[at].text, first)),
            None => (behind, behind, format!("{key} = {first}")),
        };
        let indent = self.lines[at..end].iter().find_map(|line| match line.kind {
            Kind::Continuation(indent) => Some(indent),
            _ => None,
        });
        let mut lines = vec![Line { text, kind: Kind::Option(key.to_lowercase()) }];
        let indent = indent.unwrap_or(INDENT);
        lines.extend(values.map(|value| {
            let text = if value.trim().is_empty() { String::new() } else { " ".repeat(indent) + value };
            Line { text, kind: Kind::Continuation(indent) }
        }));
        self.lines.splice(at..end, lines);
        Ok(())
    }

    /// Behind the option that begins at `at`: all up to its last continuation belongs to it.
    fn end(&self, at: usize) -> usize {
        let mut end = at + 1;
        for (index, line) in self.lines.iter().enumerate().skip(at + 1) {
            match line.kind {
                Kind::Continuation(_) => end = index + 1,
                Kind::Filler => {}
                _ => break,
            }
        }
        end
    }

    /// The file.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        let mark = if self.byte_order_mark { "\u{feff}" } else { "" };
        mark.to_owned() + &lines.join("\n")
    }
}

impl Line {
    fn is_section(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Section(own) if own == name)
    }
}

/// What a line is; none if no line of an INI file looks like that.
fn kind(line: &str) -> Option<Kind> {
    let line = line.trim_end();
    let is_remark = line.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("rem"));
    if line.is_empty() || line.starts_with([';', '#']) || is_remark {
        return Some(Kind::Filler);
    }
    if let Some(rest) = line.strip_prefix('[') {
        let (name, rest) = rest.split_once(']')?;
        let rest = rest.trim_start();
        let ends = rest.is_empty() || rest.starts_with([';', '#']);
        return (ends && !name.is_empty()).then(|| Kind::Section(name.to_owned()));
    }
    if line.starts_with(char::is_whitespace) {
        return Some(Kind::Continuation(line.chars().take_while(|c| c.is_whitespace()).count()));
    }
    let (name, _) = line.split_once([':', '='])?;
    (!name.is_empty()).then(|| Kind::Option(name.trim_end().to_lowercase()))
}

/// The line of an option with another value, and with the comment that it has.
fn with_value(line: &str, value: &str) -> String {
    let line = line.trim_end();
    let start = line.find([':', '=']).map_or(line.len(), |at| at + 1);
    let start = start + line[start..].len() - line[start..].trim_start().len();
    let mut new = format!("{}{value}", &line[..start]);
    let old = &line[start..];
    if let Some(at) = old.find(';')
        && old[..at].ends_with(char::is_whitespace)
    {
        let column = line[..start + at].chars().count();
        new.push(' ');
        new.extend(std::iter::repeat_n(' ', column.saturating_sub(new.chars().count())));
        new.push_str(&old[at..]);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, section: &str, key: &str, value: &str) -> String {
        let mut document = Document::parse(text, "x").unwrap();
        document.ensure_section(section);
        document.set(section, key, value).unwrap();
        document.text()
    }

    #[test]
    fn all_but_the_value_stays() {
        for (text, new) in [
            ("[a]\nk=1\n", "[a]\nk=X\n"),
            ("[a]\nK  :  1   ; why\n", "[a]\nK  :  X   ; why\n"),
            ("[a]\nk = 1 ; why\n", "[a]\nk = X ; why\n"),
            ("[a]\nk = long value ; why", "[a]\nk = X          ; why"),
            ("[a]\nk = 1;2 ; why\n", "[a]\nk = X\n"),
            (
                "# top\n\n[b] # b\nk = 0\n\n[a]\n# c\nk = 1\n  2\n\n; in\n\t3\n\nz = 4\n",
                "# top\n\n[b] # b\nk = 0\n\n[a]\n# c\nk = X\n\nz = 4\n",
            ),
            ("[a]\nk=1\nk=2\n[b]\n[a]\nj=1\n", "[a]\nk=1\nk=X\n[b]\n[a]\nj=1\n"),
            ("\u{feff}[a]\nk=\n", "\u{feff}[a]\nk=X\n"),
        ] {
            assert_eq!(set(text, "a", "k", "X"), new);
        }
    }

    #[test]
    fn new_options_follow_the_last_one_and_new_sections_the_end() {
        for (text, new) in [
            ("", "[a]\nk = X"),
            ("[a]\n", "[a]\nk = X\n"),
            ("[a]\nj=1\n  2\n# about b\n\n[b]\n", "[a]\nj=1\n  2\nk = X\n# about b\n\n[b]\n"),
            ("[b]\nj=1\n", "[b]\nj=1\n\n\n[a]\nk = X"),
            ("[a]\n[b]\n[a]\ni=2\n", "[a]\n[b]\n[a]\ni=2\nk = X\n"),
            ("[a]\nremark = 1\n", "[a]\nk = X\nremark = 1\n"),
        ] {
            assert_eq!(set(text, "a", "k", "X"), new);
        }
        assert_eq!(set("[a]\nk = 1\n    2\n", "a", "k", "X\nY\n\nZ"), "[a]\nk = X\n    Y\n\n    Z\n");
        assert_eq!(set("[a]\n", "a", "k", "X\nY"), "[a]\nk = X\n        Y\n");
    }

    #[test]
    fn what_is_no_ini_file_is_refused_by_its_line() {
        for (text, line) in [("k = 1\n", 1), ("[a]\nno option\n", 2), ("[a]\n  x\n", 2), ("[]\n", 1), ("[a] x\n", 1)] {
            let error = Document::parse(text, "etc/x.conf").unwrap_err().to_string();
            assert!(error.starts_with(&format!("/etc/x.conf:{line}: ")), "{error}");
        }
        let mut document = Document::parse("[a]\n", "x").unwrap();
        assert!(document.set("b", "k", "v").unwrap_err().to_string().contains("no section `[b]`"));
        for value in ["a ;b", "a #b", "a\rb"] {
            assert!(document.set("a", "k", value).unwrap_err().to_string().contains("`k`"), "{value}");
        }
        document.set("a", "k", "50%;a#b").unwrap();
        assert_eq!(document.text(), "[a]\nk = 50%;a#b\n");
    }
}
