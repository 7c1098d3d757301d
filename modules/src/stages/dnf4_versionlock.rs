//! Keeps packages from being updated by DNF 4.
//!
//! Adds to `/etc/dnf/plugins/versionlock.list`, whose directory must be there, as the plugin `versionlock` does. The
//! time in the comments is the source epoch where there is one.
//!
//! ```json
//! { "type": "org.osbuild.dnf4.versionlock", "options": { "add": ["kernel-0:6.11.4-301.fc41.*"] } }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::trees::clock;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dnf4.versionlock",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"add": "a"}}"#,
        r#"{"options": {"add": [1]}}"#,
        r#"{"options": {"add": [], "remove": []}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/dnf/plugins/versionlock.list";
/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Packages, by patterns.
    add: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { add } = cx.options()?;
    let now = ctime(clock::seconds(&cx.meta))?;
    let lines: String = add.iter().map(|item| format!("\n# Added lock on {now}\n{item}\n")).collect();
    cx.tree.append(FILE, lines)
}

/// A time as C's `ctime` gives it, in UTC.
fn ctime(seconds: i64) -> Result<String, Error> {
    Ok(clock::date(seconds)?.strftime("%a %b %e %H:%M:%S %Y").to_string())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn locks_follow_what_is_there() {
        let case = Case::new(&MODULE).file(FILE, "old\n").source_epoch(1_700_000_000);
        let done = case.run(json!({"add": ["a", "b"]})).ok();
        let comment = "\n# Added lock on Tue Nov 14 22:13:20 2023\n";
        assert_eq!(done.text(FILE), format!("old\n{comment}a\n{comment}b\n"));
        assert!(Case::new(&MODULE).run(json!({"add": ["a"]})).err().starts_with(&format!("cannot write /{FILE}")));
    }

    #[test]
    fn days_have_two_places() {
        assert_eq!(ctime(0).unwrap(), "Thu Jan  1 00:00:00 1970");
        assert_eq!(ctime(-1).unwrap(), "Wed Dec 31 23:59:59 1969");
    }
}
