//! Copies OSTree commits from an input to a repository of the tree.
//!
//! Calls `ostree` of the build root on the input `commits`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.pull",
//!   "inputs": {
//!     "commits": {
//!       "type": "org.osbuild.ostree",
//!       "origin": "org.osbuild.source",
//!       "references": { "439911411ce7868f7030c7b5b1a1a3ccf3b6a8b0e7b0a4c0e7b9d2f3c1d5e6f7": { "ref": "os/stable" } }
//!     }
//!   },
//!   "options": { "repo": "/ostree/repo", "remote": "fedora" }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{CAPABILITIES, Commits, repository};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.pull",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("ostree")],
    schema: || Schema::stage::<Options>().inputs(&["commits"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"repo": "/repo", "remote": 1}}"#,
        r#"{"options": {"repo": "/repo", "extra": 1}}"#,
        r#"{"options": {"repo": "/repo"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The repository
    repo: String,
    /// The remote that the commits are to come from
    remote: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let commits = Commits::of_input(cx, "commits")?;
    commits.pull(cx, &repository(&cx.tree, &options.repo)?, options.remote.as_deref())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn a_commit_is_wanted() {
        let case = Case::new(&MODULE).input("commits", json!({"refs": {}}), |_| {});
        assert_eq!(case.run(json!({"repo": "repo"})).err(), "the input `commits` needs at least one commit");
    }
}
