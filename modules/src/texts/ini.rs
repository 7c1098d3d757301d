//! INI files: written from nothing as Python's `configparser` does ([`Sections`]), and changed in place with comments
//! and order kept as its `iniparse` does ([`Document`]).
//!
//! Other modules' formats are neither; see `text.rs`.

mod document;

use std::fmt::Write as _;

use osbc_module_api::*;

pub(crate) use document::Document;

use crate::texts::one_line;
use osbc_pytext::text;

/// A file in the making.
#[derive(Debug, Default)]
pub(crate) struct Sections(Vec<(String, Section)>);

/// A section in the making: lines by key, in the order in which the keys came.
#[derive(Debug, Default)]
pub(crate) struct Section(Vec<(String, Option<String>)>);

impl Sections {
    /// The section of that name, added at the end if it is not there.
    ///
    /// # Errors
    /// `DEFAULT` is no section but settings for all of them; a line break or a `]` would end the name.
    pub(crate) fn section(&mut self, name: &str) -> Result<&mut Section, Error> {
        if name == "DEFAULT" || name.is_empty() || name.contains([']', '\n', '\r', '\0']) {
            return Err(Error::failed(format!("a section cannot be called `{}`", name.escape_debug())));
        }
        let index = self.0.iter().position(|(own, _)| own == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), Section::default()));
            self.0.len() - 1
        });
        Ok(&mut self.0[index].1)
    }

    /// Whether there is a section of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| own == name)
    }

    /// The file, with `between` between keys and values.
    pub(crate) fn text(&self, between: &str) -> String {
        let mut text = String::new();
        for (name, Section(lines)) in &self.0 {
            let _ = writeln!(text, "[{name}]");
            for (key, value) in lines {
                let _ = match value {
                    Some(value) => writeln!(text, "{key}{between}{}", value.replace('\n', "\n\t")),
                    None => writeln!(text, "{key}"),
                };
            }
            text.push('\n');
        }
        text
    }
}

impl Section {
    /// Sets a key, in its old place if it is there.
    ///
    /// # Errors
    /// The key would be read as something else.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) -> Result<(), Error> {
        let other = key.trim() != key || key.is_empty() || key.starts_with(['#', ';', '[']);
        if other || key.contains(['=', ':', '\n', '\r', '\0']) {
            return Err(Error::failed(format!("a setting cannot be called `{}`", key.escape_debug())));
        }
        self.put(key, Some(value.into()));
        Ok(())
    }

    /// Adds a line that is all key, once.
    pub(crate) fn line(&mut self, line: &str) {
        self.put(line, None);
    }

    fn put(&mut self, key: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(own, _)| own == key) {
            Some((_, own)) => *own = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }
}

/// Sets what an object of plain values says, in its order.
///
/// # Errors
/// A value has more than one line.
pub(crate) fn fill(section: &mut Section, settings: &Value) -> Result<(), Error> {
    for (key, value) in settings.as_object().into_iter().flatten() {
        section.set(key, one_line::line(key, &text::str(value).unwrap_or_default())?)?;
    }
    Ok(())
}

/// Sets all of `config` (sections, each an object) in the file `path`, which is created if it is not there, with values
/// as `print` prints them.
///
/// # Errors
/// The file's directory is not there, the file is no INI file, or a value cannot be written.
pub(crate) fn edit(
    tree: &Tree,
    path: &str,
    config: &Map<String, Value>,
    print: impl Fn(&Value) -> Result<String, Error>,
) -> Result<(), Error> {
    let mut document = Document::read_or_new(tree, path)?;
    for (section, settings) in config {
        document.ensure_section(section);
        for (key, value) in settings.as_object().into_iter().flatten() {
            document.set(section, key, &print(value)?)?;
        }
    }
    tree.write(path, document.text())
}

/// Returns the value of the option `name` for a reader that takes an indented line for more of the value above.
///
/// # Errors
/// It has lines that such a reader drops or takes for something else, or blanks at its ends.
pub(crate) fn with_lines<'a>(name: &str, value: &'a str) -> Result<&'a str, Error> {
    for line in value.split('\n') {
        one_line::trimmed(name, line)?;
    }
    let more = value.split('\n').skip(1);
    if more.into_iter().any(|line| line.is_empty() || line.starts_with(['#', ';'])) {
        let reason = "has a line that is empty or looks like a comment, which the file cannot hold";
        return Err(Error::failed(format!("the option `{name}` {reason}: {value:?}")));
    }
    Ok(value)
}

/// Returns the value of the option `name` for Python's `configparser`, which takes `%%` for a `%` and replaces
/// `%(name)s`.
///
/// A value that is written so already, as osbuild demands it, stays.
///
/// # Errors
/// As [`with_lines`].
pub(crate) fn interpolated(name: &str, value: &str) -> Result<String, Error> {
    let value = with_lines(name, value)?;
    Ok(if has_lone_percent(&value.replace("%%", "")) { value.replace('%', "%%") } else { value.to_owned() })
}

/// Returns whether there is a `%` besides those of `%(name)s`.
fn has_lone_percent(value: &str) -> bool {
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        let after = &rest[at + 1..];
        let name = after.strip_prefix('(').and_then(|name| Some((name.find(')')?, name)));
        match name {
            Some((end, name)) if end > 0 && name[end..].starts_with(")s") => rest = &name[end + 2..],
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use osbc_fixtures::has_tool;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_are_written_in_order_each_key_once() {
        let mut file = Sections::default();
        file.section("b").unwrap().set("Key", "1").unwrap();
        file.section("a").unwrap().line("x=1");
        file.section("b").unwrap().set("other", "two\nlines").unwrap();
        file.section("b").unwrap().set("Key", "3").unwrap();
        file.section("a").unwrap().line("x=1");
        assert_eq!(file.text("="), "[b]\nKey=3\nother=two\n\tlines\n\n[a]\nx=1\n\n");
        assert!(file.has("a") && !file.has("c"));
        assert!(file.section("DEFAULT").is_err());
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused() {
        let mut file = Sections::default();
        for name in ["a]", "a\nb", ""] {
            assert!(file.section(name).is_err(), "{name}");
        }
        for key in ["a=b", "a:b", "#a", ";a", "[a", " a", "a\nb", ""] {
            assert!(file.section("s").unwrap().set(key, "").is_err(), "{key}");
        }
        for value in [" a", "a ", "a\r", "a\n\nb", "a\n#b", "a\n;b", "a\n b", "a\n"] {
            let error = with_lines("name", value).unwrap_err().to_string();
            assert!(error.contains("`name`"), "{error}");
        }
    }

    #[test]
    fn percent_signs_are_doubled_unless_they_are_already_or_name_something() {
        for value in ["", "a", "50%%", "%(name)s%%", "%%%(x)s"] {
            assert_eq!(interpolated("name", value).unwrap(), value);
        }
        for (value, written) in
            [("50%", "50%%"), ("a%20b%%", "a%%20b%%%%"), ("%()s", "%%()s"), ("%(name)d", "%%(name)d")]
        {
            assert_eq!(interpolated("name", value).unwrap(), written);
        }
    }

    /// Writes a file, and returns the value that Python's `configparser` reads from it.
    fn read(value: &str, interpolation: &str) -> String {
        let mut file = Sections::default();
        file.section("s").unwrap().set("key", value).unwrap();
        let script = format!(
            "import configparser, sys; c = configparser.ConfigParser(interpolation={interpolation}); \
             c.read_string(sys.stdin.read()); sys.stdout.write(c.get('s', 'key'))"
        );
        let mut python = Command::new("python3");
        let python = python.args(["-X", "utf8", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        python.stdin.take().unwrap().write_all(file.text("=").as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{value:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn python_reads_back_what_was_written(value in "([ -~]|%|[\n\té€;#]){0,20}") {
            if !has_tool("python3") {
                return Ok(());
            }
            if let Ok(written) = with_lines("name", &value) {
                prop_assert_eq!(read(written, "None"), value.clone());
                let written = interpolated("name", &value).unwrap();
                let meant = if written == value { value.replace("%%", "%") } else { value };
                prop_assert_eq!(read(&written, "configparser.BasicInterpolation()"), meant);
            }
        }
    }
}
