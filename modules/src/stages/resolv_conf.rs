//! Configures the resolver of host names.
//!
//! Writes `/etc/resolv.conf` anew, in place of the file or link that may be there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.resolv-conf",
//!   "options": { "nameserver": ["192.0.2.53", "2001:db8::53"], "search": ["example.com"] }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.resolv-conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"nameserver": "192.0.2.53"}}"#,
        r#"{"options": {"search": [1]}}"#,
        r#"{"options": {"options": []}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/resolv.conf";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The addresses of the servers to ask
    #[serde(default)]
    nameserver: Vec<String>,
    /// The domains that short names are looked for in
    #[serde(default)]
    search: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { nameserver, search } = cx.options()?;
    for (name, words) in [("search", &search), ("nameserver", &nameserver)] {
        words.iter().try_for_each(|word| one_line::word(name, word).map(drop))?;
    }
    let mut text = "# This file was created by osbuild\n".to_owned();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    text.extend(nameserver.iter().map(|server| format!("nameserver {server}\n")));
    cx.tree.create_dir_all("etc", 0o777)?;
    if cx.tree.symlink_metadata(FILE).is_ok() {
        cx.tree.remove_file(FILE)?;
    }
    cx.tree.write_new(FILE, text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_file_is_new_whatever_was_there() {
        let case = || Case::new(&MODULE).file("run/stub", "kept");
        for case in [case(), case().link(FILE, "/run/stub"), case().file(FILE, "old").mode(FILE, 0o600)] {
            let done = case.run(json!({"search": ["a", "b"], "nameserver": ["192.0.2.1", "::1"]})).ok();
            let text = "# This file was created by osbuild\nsearch a b\nnameserver 192.0.2.1\nnameserver ::1\n";
            assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), (text, 0o644));
            assert_eq!(done.text("run/stub"), "kept");
        }
        let done = Case::new(&MODULE).run(json!({})).ok();
        assert_eq!(done.text(FILE), "# This file was created by osbuild\n");
        assert!(Case::new(&MODULE).dir(FILE).run(json!({})).err().contains("remove"));
    }
}
