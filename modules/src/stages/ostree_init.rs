//! Makes an OSTree repository.
//!
//! Calls `ostree` of the build root. Directories on the way are made.
//!
//! ```json
//! { "type": "org.osbuild.ostree.init", "options": { "path": "/repo", "mode": "archive" } }
//! ```

use std::path::Path;

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{option, ostree};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.init",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"path": 1}}"#,
        r#"{"options": {"mode": "bare-split-xattrs"}}"#,
        r#"{"options": {"repo": "/repo"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// How the repository keeps files
    #[serde(default)]
    mode: Mode,
    /// The repository
    #[serde(default = "usual_path")]
    path: String,
}

fn usual_path() -> String {
    "/repo".to_owned()
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Bare,
    BareUser,
    BareUserOnly,
    #[default]
    Archive,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let mode = match options.mode {
        Mode::Bare => "bare",
        Mode::BareUser => "bare-user",
        Mode::BareUserOnly => "bare-user-only",
        Mode::Archive => "archive",
    };
    if let Some(directory) = Path::new(&options.path).parent() {
        cx.tree.create_dir_all(directory, 0o777)?;
    }
    let repository = option("repo", cx.tree.path_for_tools(&options.path)?)?;
    ostree(cx, &["init", "-v", &format!("--mode={mode}"), &repository])
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_repository_is_made_with_the_place_and_mode_given() {
        if !has_tool("ostree") {
            return;
        }
        let mode = |options: Value, path: &str| {
            let config = Case::new(&MODULE).run(options).ok().text(&format!("{path}/config"));
            config.lines().find_map(|line| line.strip_prefix("mode=")).map(str::to_owned)
        };
        assert_eq!(mode(json!({}), "repo").as_deref(), Some("archive-z2"));
        assert_eq!(
            mode(json!({"path": "srv/a/repo", "mode": "bare-user"}), "srv/a/repo").as_deref(),
            Some("bare-user")
        );
    }
}
