//! Writes pacman's list of mirrors.
//!
//! A line for each mirror, with an empty one between. The directory of the file is made.
//!
//! ```json
//! {
//!   "type": "org.osbuild.pacman.mirrorlist.conf",
//!   "options": { "mirrors": ["https://example.com/$repo/os/$arch"] }
//! }
//! ```

use std::path::Path;

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pacman.mirrorlist.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": 1}}"#,
        r#"{"options": {"mirrors": "https://example.com"}}"#,
        r#"{"options": {"other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file
    #[serde(default = "filename")]
    filename: String,
    /// The mirrors' URLs, best first
    #[serde(default)]
    mirrors: Vec<String>,
}

fn filename() -> String {
    "/etc/pacman.d/mirrorlist".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, mirrors } = cx.options()?;
    if let Some(directory) = Path::new(&filename).parent() {
        cx.tree.create_dir_all(directory, 0o777)?;
    }
    let lines: Vec<String> = mirrors.iter().map(|mirror| format!("Server = {mirror}\n")).collect();
    cx.tree.write(filename, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_mirror_has_a_line() {
        let done = Case::new(&MODULE).run(json!({"mirrors": ["a", "b"]})).ok();
        assert_eq!(done.text("etc/pacman.d/mirrorlist"), "Server = a\n\nServer = b\n");
        let done = Case::new(&MODULE).run(json!({"filename": "list"})).ok();
        assert_eq!(done.text("list"), "");
    }
}
