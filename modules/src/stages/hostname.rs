//! Sets the host name.
//!
//! Replaces `/etc/hostname`. Names have labels of letters, digits and inner hyphens, at most 64 characters in all; a
//! final dot is dropped.
//!
//! ```json
//! { "type": "org.osbuild.hostname", "options": { "hostname": "web-1.example.com" } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.hostname",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {}}"#, r#"{"options": {"hostname": 42}}"#, r#"{"options": {"hostname": "a", "b": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/hostname";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name, with or without a domain.
    hostname: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { hostname } = cx.options()?;
    if !is_valid(&hostname) {
        return Err(Error::failed(format!("`{hostname}` is no valid host name")));
    }
    cx.tree.create_dir_all("etc", 0o755)?;
    cx.tree.replace(FILE, format!("{}\n", hostname.trim_end_matches('.')), 0o644)
}

fn is_valid(hostname: &str) -> bool {
    let name = match hostname.strip_suffix('.') {
        // A name without a domain has no final dot.
        Some(name) if name.contains('.') => name,
        _ => hostname,
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label =
        |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.chars().all(inner);
    hostname.len() <= 64 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_file_is_replaced_and_not_followed() {
        let case = || Case::new(&MODULE).file("etc/other", "kept\n");
        for case in [case(), case().link(FILE, "other"), case().file(FILE, "old").mode(FILE, 0o600)] {
            let done = case.run(json!({"hostname": "web-1"})).ok();
            assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), ("web-1\n", 0o644));
            assert_eq!(done.text("etc/other"), "kept\n");
        }
    }

    #[test]
    fn the_directory_is_made() {
        assert_eq!(Case::new(&MODULE).run(json!({"hostname": "a"})).ok().mode("etc"), 0o755);
    }

    #[test]
    fn names_are_those_of_systemd() {
        let (long, longer) = ("a".repeat(64), "a".repeat(65));
        for name in ["a", "A1", "a.b", "a.b.", "a--b", &long] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a..b", "a.b..", "-a", "a-", "a-.b", "a.-b", "a_b", "a b", "ä", &longer] {
            assert!(!is_valid(name), "{name}");
        }
        let done = Case::new(&MODULE).run(json!({"hostname": "a.b."})).ok();
        assert_eq!(done.text(FILE), "a.b\n");
        let done = Case::new(&MODULE).run(json!({"hostname": "a_b"}));
        assert_eq!(done.err(), "`a_b` is no valid host name");
    }
}
