//! Choosing a runner: the one of the wanted distribution whose version is the highest that is not newer.

/// A runner's name without its version, and the version; zero when it has none.
fn parse(name: &str) -> (&str, u64) {
    let distribution = name.trim_end_matches(|char: char| char.is_ascii_digit());
    // A name of digits alone keeps its first one.
    let split = distribution.len().max(name.len().min(1));
    let version = &name[split..];
    let version = if version.is_empty() { 0 } else { version.parse().unwrap_or(u64::MAX) };
    (&name[..split], version)
}

/// Chooses the runner for `wanted` (`org.osbuild.fedora39`).
///
/// The distribution has to be the same, and the version the highest that is not above the wanted one
/// (`org.osbuild.fedora38`).
pub fn choose<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distribution, version) = parse(wanted);
    let candidates = known.into_iter().map(|name| (parse(name), name));
    let fitting = candidates.filter(|((of, at), _)| *of == distribution && *at <= version);
    fitting.max_by_key(|((_, at), _)| *at).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] =
        ["org.osbuild.arch", "org.osbuild.fedora30", "org.osbuild.fedora38", "org.osbuild.linux", "org.osbuild.rhel81"];

    #[test]
    fn the_highest_version_that_is_not_newer_is_chosen() {
        for (wanted, chosen) in [
            ("org.osbuild.fedora30", Some("org.osbuild.fedora30")),
            ("org.osbuild.fedora37", Some("org.osbuild.fedora30")),
            ("org.osbuild.fedora42", Some("org.osbuild.fedora38")),
            ("org.osbuild.fedora99999999999999999999999", Some("org.osbuild.fedora38")),
            ("org.osbuild.fedora29", None),
            ("org.osbuild.fedora", None),
            ("org.osbuild.arch", Some("org.osbuild.arch")),
            ("org.osbuild.arch5", Some("org.osbuild.arch")),
            ("org.osbuild.rhel9", None),
            ("fedora38", None),
            ("7", None),
            ("é7", None),
            ("", None),
        ] {
            assert_eq!(choose(wanted, KNOWN), chosen, "{wanted}");
        }
    }
}
