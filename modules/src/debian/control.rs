//! Paragraphs of Debian control data: fields with their values, and the relations that some of them hold.

/// One paragraph, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Control {
    text: String,
}

impl Control {
    /// Takes one paragraph.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.trim_matches('\n').to_owned() }
    }

    /// The paragraphs of a file such as dpkg's `status`.
    pub(crate) fn all(text: &str) -> Vec<Self> {
        text.split("\n\n").map(Self::new).filter(|paragraph| !paragraph.text.is_empty()).collect()
    }

    /// The paragraph's lines, without an end of line behind the last.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The value of a field, with its further lines where it has some.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut rest = self.text.as_str();
        loop {
            let end = value_end(rest);
            let (field, after) = rest.split_at(end);
            if let Some((key, value)) = field.split_once(':')
                && key.eq_ignore_ascii_case(name)
            {
                return Some(value.trim());
            }
            if after.is_empty() {
                return None;
            }
            rest = &after[1..];
        }
    }

    /// The value of a field that every package has; empty where this one lacks it.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.field(name).unwrap_or_default()
    }

    /// Whether a field says `yes`.
    pub(crate) fn says_yes(&self, name: &str) -> bool {
        self.value(name).eq_ignore_ascii_case("yes")
    }

    /// The names of the packages in a field of relations: of each relation its alternatives.
    pub(crate) fn relations(&self, name: &str) -> Vec<Vec<&str>> {
        let relations = self.value(name).split(',').map(|relation| relation.split('|').filter_map(package).collect());
        relations.filter(|alternatives: &Vec<&str>| !alternatives.is_empty()).collect()
    }

    /// The name by which dpkg calls the package in its database: with the architecture where two may be there at once.
    pub(crate) fn full_name(&self) -> String {
        let name = self.value("Package");
        if self.value("Multi-Arch") == "same" {
            format!("{name}:{}", self.value("Architecture"))
        } else {
            name.to_owned()
        }
    }
}

/// Where a field ends: before the first line that does not begin with white space.
fn value_end(text: &str) -> usize {
    let ends = text.match_indices('\n').find(|(at, _)| !text[at + 1..].starts_with([' ', '\t']));
    ends.map_or(text.len(), |(at, _)| at)
}

/// The package of one alternative: `name:arch (>= version) [arch] <profile>` without all that follows the name.
fn package(alternative: &str) -> Option<&str> {
    alternative.split([' ', '\t', '\n', '(', '[', '<', ':']).find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: one\nMulti-Arch: same\nArchitecture: amd64\nEssential: Yes\nDepends: libc6 (>= 2.36),\n \
                        two:any | three (= 1) , \n four\nDescription: first\n more: text\n .\nLast: x\n";

    #[test]
    fn fields_are_found_by_name_whatever_its_case() {
        let control = Control::new(TEXT);
        assert_eq!(control.field("package"), Some("one"));
        assert_eq!(control.field("Description"), Some("first\n more: text\n ."));
        assert_eq!((control.field("more"), control.field("Last"), control.value("None")), (None, Some("x"), ""));
        assert!(control.says_yes("Essential") && !control.says_yes("Protected"));
        assert_eq!(control.full_name(), "one:amd64");
    }

    #[test]
    fn relations_are_names_alone() {
        let control = Control::new(TEXT);
        assert_eq!(control.relations("Depends"), [vec!["libc6"], vec!["two", "three"], vec!["four"]]);
        assert!(control.relations("Pre-Depends").is_empty());
    }

    #[test]
    fn paragraphs_are_separated_by_empty_lines() {
        let all = Control::all("\nPackage: a\n\n\nPackage: b\nX: y\n\n");
        assert_eq!(all.iter().map(|one| one.value("Package")).collect::<Vec<_>>(), ["a", "b"]);
        assert!(Control::all("\n").is_empty());
    }
}
