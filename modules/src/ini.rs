//! INI files: written from nothing as Python's `configparser` does ([`Sections`]), and changed in place with comments and
//! order kept as its `iniparse` does ([`Document`]). Other modules' formats are neither; see `text.rs`.

mod document;

use std::fmt::Write as _;

use osbc_module_api::*;

pub(crate) use document::Document;

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
    /// `DEFAULT` is no section but settings for all of them.
    pub(crate) fn section(&mut self, name: &str) -> Result<&mut Section, Error> {
        if name == "DEFAULT" {
            return Err(Error::failed("a section cannot be called `DEFAULT`"));
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
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, Some(value.into()));
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
/// A value has a `%` that means nothing.
pub(crate) fn fill(section: &mut Section, settings: &Value) -> Result<(), Error> {
    for (key, value) in settings.as_object().into_iter().flatten() {
        section.set(key, interpolated(&text::str(value).unwrap_or_default())?);
    }
    Ok(())
}

/// Sets all of `config` (sections, each an object) in the file `path`, which is created if it is not there, with values as
/// `print` prints them.
///
/// # Errors
/// The file's folder is not there, the file is no INI file, or a value cannot be written.
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

/// A value for a file whose readers replace `%(name)s`.
///
/// # Errors
/// It has a `%` that is neither part of that nor doubled.
pub(crate) fn interpolated(value: &str) -> Result<&str, Error> {
    if has_lone_percent(&value.replace("%%", "")) {
        return Err(Error::failed(format!("`{value}` has a `%` that means nothing; write `%%`")));
    }
    Ok(value)
}

/// Whether there is a `%` besides those of `%(name)s`.
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
    use super::*;

    #[test]
    fn sections_are_written_in_order_each_key_once() {
        let mut file = Sections::default();
        file.section("b").unwrap().set("Key", "1");
        file.section("a").unwrap().line("x=1");
        file.section("b").unwrap().set("other", "two\nlines");
        file.section("b").unwrap().set("Key", "3");
        file.section("a").unwrap().line("x=1");
        assert_eq!(file.text("="), "[b]\nKey=3\nother=two\n\tlines\n\n[a]\nx=1\n\n");
        assert!(file.has("a") && !file.has("c"));
        assert!(file.section("DEFAULT").is_err());
    }

    #[test]
    fn percent_signs_are_doubled_or_name_something() {
        for value in ["", "a", "50%%", "%(name)s%%", "%%%(x)s"] {
            assert_eq!(interpolated(value).unwrap(), value);
        }
        for value in ["50%", "%", "%%%", "%()s", "%(name)", "%(name)d", "%s"] {
            assert!(interpolated(value).is_err(), "{value}");
        }
    }
}
