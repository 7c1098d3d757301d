//! Corrects paths in boot entries.
//!
//! Tools that write boot entries ask the kernel where `/boot` is mounted, and get the build machine's word. In every line of
//! `/boot/loader/entries/*.conf` all up to the last `/boot` is replaced by `prefix`. Unless `require_boot_prefix` is off, that
//! needs something before `/boot`.
//!
//! ```json
//! { "type": "org.osbuild.fix-bls", "options": { "prefix": "" } }
//! ```

use osbc_module_api::*;
use regex::{NoExpand, Regex};

use crate::boot::bls;
use crate::texts::one_line;
use crate::texts::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.fix-bls",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"prefix": 1}}"#,
        r#"{"options": {"require_boot_prefix": "no"}}"#,
        r#"{"options": {"path": "/boot"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What the paths are to begin with.
    #[serde(default = "boot")]
    prefix: String,
    /// Whether only paths are changed in which something is before `/boot`.
    #[serde(default = "yes")]
    require_boot_prefix: bool,
}

fn boot() -> String {
    "/boot".to_owned()
}

fn yes() -> bool {
    true
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { prefix, require_boot_prefix } = cx.options()?;
    let path = if require_boot_prefix { "(/.*)+/boot" } else { "(/.*)*/boot" };
    let path = Regex::new(path).expect("a valid expression");
    for entry in bls::entries(&cx.tree, "/boot")? {
        let text = text::read(&cx.tree, &entry)?;
        let fixed: String =
            osbc_pytext::text::lines(&text).into_iter().map(|line| path.replace_all(line, NoExpand(&prefix))).collect();
        cx.tree.write(&entry, fixed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const ENTRY: &str = "boot/loader/entries/a.conf";

    fn fixed(entry: &str, options: Value) -> String {
        let done = Case::new(&MODULE).file(ENTRY, entry).mode(ENTRY, 0o600).run(options).ok();
        assert_eq!(done.mode(ENTRY), 0o600);
        done.text(ENTRY)
    }

    #[test]
    fn paths_of_the_build_machine_are_cut() {
        let entry = "title /boot\nlinux /work/tree/boot/vmlinuz\ninitrd /a/boot/b/boot/initrd\noptions x=/y\n";
        let expected = "title /boot\nlinux /boot/vmlinuz\ninitrd /boot/initrd\noptions x=/y\n";
        assert_eq!(fixed(entry, json!({})), expected);
        assert_eq!(fixed("linux /tree/boot/vmlinuz\n", json!({"prefix": "$0/x"})), "linux $0/x/vmlinuz\n");
    }

    #[test]
    fn the_prefix_may_go_where_nothing_is_before_it() {
        let entry = "linux /boot/vmlinuz";
        assert_eq!(fixed(entry, json!({"prefix": ""})), entry);
        assert_eq!(fixed(entry, json!({"prefix": "", "require_boot_prefix": false})), "linux /vmlinuz");
    }

    #[test]
    fn without_entries_nothing_is_done() {
        Case::new(&MODULE).run(json!({})).ok();
    }
}
