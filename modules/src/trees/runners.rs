//! The runners that osbc brings along, what they do ([`preparation`]), and the one that fits the host, found from the
//! text of its `os-release`.

pub(crate) mod preparation;

use std::collections::BTreeMap;

use osbc_ir::Runner;
use osbc_module_api::runner::choose;

/// The names of osbuild's runners, sorted.
pub const BUILT_IN: [&str; 20] = [
    "org.osbuild.AutoSD9",
    "org.osbuild.almalinux8",
    "org.osbuild.almalinux9",
    "org.osbuild.arch",
    "org.osbuild.asahi-fedora-remix",
    "org.osbuild.autosd",
    "org.osbuild.centos8",
    "org.osbuild.centos9",
    "org.osbuild.debian",
    "org.osbuild.eln11",
    "org.osbuild.fedora-asahi-remix",
    "org.osbuild.fedora30",
    "org.osbuild.fedora38",
    "org.osbuild.linux",
    "org.osbuild.ol9",
    "org.osbuild.rhel7",
    "org.osbuild.rhel81",
    "org.osbuild.rhel82",
    "org.osbuild.rhivos",
    "org.osbuild.ubuntu1804",
];

/// What is used for a host that has no runner of its own.
const FALLBACK: &str = "org.osbuild.linux";

/// The runner for the host with this `os-release` (empty when it has none), out of those that there are.
///
/// It is named after itself, as osbuild names the host's.
pub fn for_host<'a>(os_release: &str, known: impl IntoIterator<Item = &'a str>) -> Runner {
    let chosen = choose(&wanted(os_release), known).unwrap_or(FALLBACK).to_owned();
    Runner { name: chosen.clone(), exec: chosen }
}

/// The name of the runner that a host would like best: `org.osbuild.`, `ID`, and `VERSION_ID` without dots.
fn wanted(os_release: &str) -> String {
    let facts = self::os_release(os_release);
    let fact = |name: &str| facts.get(name).map(String::as_str);
    let version = fact("VERSION_ID").unwrap_or_default();
    format!("org.osbuild.{}{}", fact("ID").unwrap_or("linux"), version.replace('.', ""))
}

/// What an `os-release` says, by name.
pub(crate) fn os_release(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), unquoted(value))).collect()
}

/// A value of `os-release` as a shell would read it.
fn unquoted(value: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = value.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, quote) {
            (_, Some(open)) if char == open => quote = None,
            ('"' | '\'', None) => quote = Some(char),
            ('\\', None) => out.extend(chars.next()),
            ('\\', Some('"')) => out.push(chars.next_if(|next| "\"\\$`".contains(*next)).unwrap_or('\\')),
            (' ' | '\t' | '#', None) => break,
            _ => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(BUILT_IN.is_sorted());
    }

    #[test]
    fn the_host_gets_its_own_runner_or_the_common_one() {
        for (os_release, runner) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", "org.osbuild.debian"),
            ("# comment\nNAME='Fedora Linux'\nID=fedora\nVERSION_ID=42", "org.osbuild.fedora38"),
            ("ID=\"rhel\"\nVERSION_ID=\"8.10\"\n", "org.osbuild.rhel82"),
            ("ID=ubuntu\nVERSION_ID=\"24.04\"", "org.osbuild.ubuntu1804"),
            ("ID=arch\n", "org.osbuild.arch"),
            ("ID=gentoo\nVERSION_ID=2", "org.osbuild.linux"),
            ("", "org.osbuild.linux"),
        ] {
            let chosen = for_host(os_release, BUILT_IN);
            assert_eq!((chosen.name.as_str(), chosen.exec.as_str()), (runner, runner), "{os_release}");
        }
    }
}
