//! Creates symlinks and hard links.
//!
//! `link_name` is a location in the tree or a mount where nothing may be yet. A symlink says `target` to the letter. For
//! a hard link `target` is a path in the same tree or mount; osbuild looks for it from the working directory of the
//! stage instead, where it is only found by a path into the sandbox such as `/run/osbuild/tree/usr/bin/sh`, which is
//! understood too.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ln",
//!   "options": {
//!     "paths": [{ "target": "../usr/share/zoneinfo/UTC", "link_name": "tree:///etc/zone", "symbolic": true }]
//!   }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.ln",
//!   "options": { "paths": [{ "target": "/etc/os-release", "link_name": "tree:///etc/second-name" }] }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ln",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"paths": []}}"#,
        r#"{"options": {"paths": "not-an-array"}}"#,
        r#"{"options": {"paths": [{"link_name": "a", "target": "b"}]}}"#,
        r#"{"options": {"paths": [{"target": "b"}]}}"#,
        r#"{"options": {"paths": [{"link_name": "tree:///a"}]}}"#,
        r#"{"options": {"paths": [{"link_name": "tree:///a", "target": "b", "symbolic": "no"}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// Where the sandbox has the tree.
const TREE: &str = "/run/osbuild/tree/";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The links, in order.
    #[schemars(length(min = 1))]
    paths: Vec<Link>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    /// What the link leads to.
    target: String,
    /// Where the link is: `tree:///path` or `mount://NAME/path`.
    #[schemars(extend("oneOf" = [{"pattern": "^mount://[^/]+/"}, {"pattern": "^tree://"}]))]
    link_name: String,
    /// Whether it is a symlink.
    #[serde(default)]
    symbolic: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { paths } = cx.options()?;
    for Link { target, link_name, symbolic } in &paths {
        let Location { tree, path, .. } = cx.location(link_name)?;
        match target.strip_prefix(TREE) {
            _ if *symbolic => tree.symlink(target, path)?,
            Some(inside) if !link_name.starts_with("mount:") => tree.hard_link(inside, path)?,
            _ => tree.hard_link(target, path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn link(case: Case, target: &str, link_name: &str, symbolic: bool) -> Done {
        case.run(json!({"paths": [{"target": target, "link_name": link_name, "symbolic": symbolic}]}))
    }

    #[test]
    fn symlinks_say_their_target_to_the_letter() {
        for target in ["file", "../a", "/etc/os-release", "no such/file", "/run/osbuild/tree/x"] {
            let done = link(Case::new(&MODULE).dir("a"), target, "tree:///a/link", true).ok();
            assert_eq!(done.link("a/link"), target);
        }
    }

    #[test]
    fn hard_links_are_made_by_path_in_the_tree() {
        for target in ["a/file", "/a/file", "/run/osbuild/tree/a/file"] {
            let done = link(Case::new(&MODULE).file("a/file", "x"), target, "tree:///b", false).ok();
            let inode = |path| done.tree.metadata(path).unwrap().ino();
            assert_eq!(inode("a/file"), inode("b"));
        }
    }

    #[test]
    fn links_are_made_in_mounts() {
        let case = Case::new(&MODULE).mount("root", |tree| tree.write("file", "x").unwrap());
        let done = link(case, "file", "mount://root/name", false).ok();
        assert_eq!(done.mount("root").read_to_string("name").unwrap(), "x");
    }

    #[test]
    fn nothing_is_overwritten() {
        for symbolic in [true, false] {
            let done = link(Case::new(&MODULE).file("a", "").file("b", "kept"), "a", "tree:///b", symbolic);
            assert!(done.err().contains("File exists"));
            assert_eq!(done.text("b"), "kept");
        }
    }
}
