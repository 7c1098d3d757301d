//! Sets the SELinux labels of files.
//!
//! With `file_contexts`, a file of the tree, a mount or an input, all below `target` is labelled as it says, by `setfiles` of
//! the build root, except what `exclude_paths`, which start at `target`, name. `labels` are set thereafter, where links
//! lead inside the tree or mount. With `force_autorelabel` the system labels itself anew when it starts.
//!
//! ```json
//! {
//!   "type": "org.osbuild.selinux",
//!   "options": {
//!     "file_contexts": "etc/selinux/targeted/contexts/files/file_contexts",
//!     "labels": { "/usr/bin/cp": "system_u:object_r:install_exec_t:s0" }
//!   }
//! }
//! ```

use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::trees::selinux_labels;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.selinux",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[Requirement::ToolFor("setfiles", |options| {
        options["file_contexts"].as_str().is_some_and(|path| !path.is_empty())
    })],
    schema: || Schema::stage::<Options>().any_devices().mounts().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"file_contexts": 1}}"#,
        r#"{"options": {"file_contexts": "a", "target": "/boot"}}"#,
        r#"{"options": {"file_contexts": "a", "exclude_paths": "/b"}}"#,
        r#"{"options": {"labels": "a"}}"#,
        r#"{"options": {"labels": {}, "force_autorelabel": "yes"}}"#,
        r#"{"options": {"labels": {}, "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const LABEL: &str = "security.selinux";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["file_contexts"]}, {"required": ["labels"]}]))]
struct Options {
    /// What is labelled: `tree:///path` or `mount://NAME/path`
    #[serde(default = "whole_tree")]
    #[schemars(regex(pattern = "^mount://[^/]+/|^tree:///"))]
    target: String,
    /// The file that says how: a path of the tree, or a location
    file_contexts: Option<String>,
    /// What is left out, from `target` on
    #[serde(default)]
    exclude_paths: Vec<String>,
    /// Labels by location
    #[serde(default)]
    labels: Map<String, Value>,
    /// Whether the system labels itself when it starts
    #[serde(default)]
    force_autorelabel: bool,
}

fn whole_tree() -> String {
    "tree:///".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { target, file_contexts, exclude_paths, labels, force_autorelabel } = cx.options()?;
    let target = cx.location(&target)?;
    if let Some(contexts) = file_contexts.filter(|path| !path.is_empty()) {
        let contexts = contexts_file(cx, &contexts)?;
        selinux_labels::set_files(cx, &contexts, &target.tree, &target.path, &exclude_paths)?;
    }
    for (place, label) in &labels {
        let label = label.as_str().ok_or_else(|| Error::failed(format!("the label of {place} is no text")))?;
        set_label(&cx.location(place)?, label)?;
    }
    if force_autorelabel {
        // Not just an empty file, so that the labels are set in full instead of in their types alone.
        target.tree.write(".autorelabel", "-F")?;
    }
    Ok(())
}

fn contexts_file(cx: &StageContext, place: &str) -> Result<PathBuf, Error> {
    if !place.contains("://") {
        return cx.tree.path_for_tools(place);
    }
    let Location { tree, path, .. } = cx.location(place)?;
    tree.path_for_tools(path)
}

/// Labels what is at a location, where links lead. A file system that has no labels is fine if it shows this one.
fn set_label(Location { tree, path, .. }: &Location, label: &str) -> Result<(), Error> {
    let (root, place) = (tree.path_for_tools("/")?, tree.path_for_tools(path)?);
    let path = place.strip_prefix(root).unwrap_or(path);
    match tree.set_xattr(path, LABEL, label.as_bytes()) {
        Err(Error::Io { source, .. })
            if source.kind() == std::io::ErrorKind::Unsupported && label_of(tree, path)?.as_deref() == Some(label) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn label_of(tree: &Tree, path: &Path) -> Result<Option<String>, Error> {
    let label = tree.xattr(path, LABEL)?;
    Ok(label.map(|label| String::from_utf8_lossy(&label).trim_matches(['\n', '\0']).to_owned()))
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;

    const CONTEXTS: &str = "/.* system_u:object_r:default_t:s0\n/usr/bin/.* -- system_u:object_r:bin_t:s0\n\
                            /etc(/.*)? system_u:object_r:etc_t:s0\n";

    fn case() -> Case {
        Case::new(&MODULE).file("contexts", CONTEXTS).file("usr/bin/cp", "").file("etc/hosts", "").file("etc/own/x", "")
    }

    fn label(tree: &Tree, path: &str) -> Option<String> {
        label_of(tree, Path::new(path)).unwrap()
    }

    #[test]
    fn files_are_labelled_by_their_paths_in_the_tree() {
        if !has_root() || !has_tool("setfiles") {
            return;
        }
        let done = case().run(json!({"file_contexts": "contexts", "exclude_paths": ["/etc/own"]})).ok();
        assert_eq!(label(&done.tree, "usr/bin/cp").unwrap(), "system_u:object_r:bin_t:s0");
        assert_eq!(label(&done.tree, "etc/hosts").unwrap(), "system_u:object_r:etc_t:s0");
        assert_eq!(label(&done.tree, "etc/own/x"), None);
        let done = case().mount("root", |tree| {
            tree.create_dir_all("usr/bin", 0o755).unwrap();
            tree.write("usr/bin/cp", "").unwrap();
        });
        let done = done.run(json!({"file_contexts": "tree:///contexts", "target": "mount://root/usr"})).ok();
        assert_eq!(label(&done.mount("root"), "usr/bin/cp").unwrap(), "system_u:object_r:bin_t:s0");
        assert_eq!(label(&done.tree, "usr/bin/cp"), None);
    }

    #[test]
    fn single_labels_are_set_where_links_lead_inside() {
        if !has_root() {
            return;
        }
        let case = case().link("usr/bin/link", "/usr/bin/cp");
        let done = case.run(json!({"labels": {"/usr/bin/link": "u:r:t:s0", "tree:///etc/hosts": "u:r:h:s0"}})).ok();
        assert_eq!(label(&done.tree, "usr/bin/cp").unwrap(), "u:r:t:s0");
        assert_eq!(label(&done.tree, "etc/hosts").unwrap(), "u:r:h:s0");
        assert_eq!(label(&done.tree, "usr/bin/link"), None);
    }

    #[test]
    fn a_new_labelling_is_asked_for_with_the_full_context() {
        let done = case().run(json!({"labels": {}, "force_autorelabel": true})).ok();
        assert_eq!(done.text(".autorelabel"), "-F");
        assert_eq!(case().run(json!({"labels": {"/etc": 1}})).err(), "the label of /etc is no text");
        assert!(case().run(json!({"labels": {"/missing": "a"}})).result.is_err());
    }
}
