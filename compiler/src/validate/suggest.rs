//! Suggests the closest existing name ("did you mean …?").

use strsim::damerau_levenshtein;

/// How many alternatives a help line names.
const MAX_NAMED: usize = 12;

/// For how many unknown names a close one is looked for: a manifest with more has another fault than its fingers.
const MAX_LOOKS: usize = 100;

/// Beyond this many names nothing is compared: whoever has so many does not type them.
const MAX_NAMES: usize = 2_000;
/// Names longer than this are not compared.
const MAX_LENGTH: usize = 80;

/// Counts how often a close name was looked for.
#[derive(Debug, Default)]
pub(crate) struct Suggestions {
    looks: usize,
}

impl Suggestions {
    /// Returns what `look` finds, or `None` without looking if that was done often enough.
    pub(crate) fn look(&mut self, look: impl FnOnce() -> Option<String>) -> Option<String> {
        self.looks += 1;
        if self.looks > MAX_LOOKS { None } else { look() }
    }
}

/// The name that is closest to what was written, if one is close enough for a slip of the fingers.
pub(crate) fn closest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > MAX_LENGTH {
        return None;
    }
    let names = names.into_iter().take(MAX_NAMES).filter(|name| name.len() <= MAX_LENGTH);
    let scored = names.map(|name| (damerau_levenshtein(written, name), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    let length = tail(written).len().max(tail(name).len());
    (distance <= (length / 3).max(1) && distance < length && name != written).then_some(name)
}

/// The help line for it.
pub(crate) fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(written, names).map(|name| format!("did you mean `{name}`?"))
}

/// Returns a help line with the first of the names; `None` if there are no names.
pub(crate) fn alternatives<N: AsRef<str>>(title: &str, names: impl IntoIterator<Item = N>) -> Option<String> {
    let mut names = names.into_iter();
    let mut help = format!("{title}: {}", names.next()?.as_ref());
    for (index, name) in names.enumerate() {
        if index + 1 == MAX_NAMED {
            help.push_str(", …");
            break;
        }
        help.push_str(", ");
        help.push_str(name.as_ref());
    }
    Some(help)
}

/// Returns a module's name without the prefix that most have.
fn tail(name: &str) -> &str {
    name.strip_prefix("org.osbuild.").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_looked_for_so_often_and_no_more() {
        let (mut suggestions, mut looks) = (Suggestions::default(), 0);
        for _ in 0..1000 {
            suggestions.look(|| {
                looks += 1;
                None
            });
        }
        assert_eq!(looks, MAX_LOOKS);
    }

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["org.osbuild.mkdir", "org.osbuild.mkfs.ext4", "org.osbuild.ln"];
        assert_eq!(closest("org.osbuild.mkdri", names), Some("org.osbuild.mkdir"));
        assert_eq!(closest("org.osbuild.mkfs.ext", names), Some("org.osbuild.mkfs.ext4"));
        assert_eq!(closest("org.osbuild.selinux", names), None);
        assert_eq!(closest("tre", ["tree", "build"]), Some("tree"));
        assert_eq!(closest("x", ["y"]), None);
        assert_eq!(closest("", ["a"]), None);
        assert_eq!(closest("tree", ["build"]), None);
    }
}
