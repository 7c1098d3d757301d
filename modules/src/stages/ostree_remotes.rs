//! Adds remotes to an OSTree repository in the tree.
//!
//! Calls `ostree` of the build root. A remote without `gpgkeys` and `gpgkeypaths` does not verify its commits. One
//! whose name is taken is left as it is.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.remotes",
//!   "options": {
//!     "repo": "/ostree/repo",
//!     "remotes": [
//!       { "name": "fedora", "url": "https://example.com/repo", "gpgkeypaths": ["/etc/pki/rpm-gpg/"], "branches": ["stable"] }
//!     ]
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{self, repository};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.remotes",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"remotes": []}}"#,
        r#"{"options": {"repo": "/repo", "remotes": [{"name": "r"}]}}"#,
        r#"{"options": {"repo": "/repo", "remotes": [{"url": "https://example.com"}]}}"#,
        r#"{"options": {"repo": "/repo", "remotes": [{"name": "r", "url": "u", "gpgkeys": "k"}]}}"#,
        r#"{"options": {"repo": "/repo", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The repository
    repo: String,
    /// The remotes
    #[serde(default)]
    remotes: Vec<Remote>,
}

/// A remote; what it has besides these properties does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Remote {
    /// Its name
    name: String,
    /// Its URL
    url: String,
    /// The URL of its content, where that is elsewhere
    contenturl: Option<String>,
    /// The branches to follow
    #[serde(default)]
    branches: Vec<String>,
    /// The keys that sign its commits
    #[serde(default)]
    gpgkeys: Vec<String>,
    /// Where keys that sign its commits lie: files or directories of the system
    #[serde(default)]
    gpgkeypaths: Vec<String>,
}

impl From<Remote> for ostree_tool::Remote {
    fn from(remote: Remote) -> Self {
        let Remote { name, url, contenturl, branches, gpgkeys, gpgkeypaths } = remote;
        Self { name, url, contenturl, branches, gpgkeys, gpgkeypaths }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let repository = repository(&cx.tree, &options.repo)?;
    options.remotes.into_iter().try_for_each(|remote| ostree_tool::Remote::from(remote).add(cx, &repository))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn remotes_are_added_as_described() {
        if !has_tool("ostree") {
            return;
        }
        let case = Case::new(&MODULE);
        let repository = case.path().join("repo");
        let made = Command::new("ostree").arg("init").arg(format!("--repo={}", repository.display())).status();
        assert!(made.unwrap().success());
        let done = case.run(json!({"repo": "/repo", "remotes": [
            {"name": "plain", "url": "https://example.com/a", "branches": ["x", "y"], "contenturl": "https://example.com/b"},
            {"name": "keys", "url": "https://example.com/c", "gpgkeypaths": ["/etc/keys", "/usr/keys"], "note": 1},
            {"name": "plain", "url": "https://example.com/other"},
        ]}));
        let config = done.ok().text("repo/config");
        let lines: Vec<&str> = config.lines().skip_while(|line| !line.starts_with("[remote")).collect();
        assert_eq!(
            lines,
            [
                "[remote \"plain\"]",
                "url=https://example.com/a",
                "branches=x;y;",
                "contenturl=https://example.com/b",
                "gpg-verify=false",
                "",
                "[remote \"keys\"]",
                "url=https://example.com/c",
                "gpgkeypath=/etc/keys,/usr/keys",
                "gpg-verify=true",
            ]
        );
    }
}
