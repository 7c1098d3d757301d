//! The files of OSTree commits, each in a directory of the commit's id.
//!
//! A reference is the id of a commit that a source has fetched, or a pipeline that has made one, for which osbuild's
//! module fails. Calls `ostree` of the host. The stage gets the directory of each commit under `refs`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.checkout",
//!   "origin": "org.osbuild.source",
//!   "references": ["439911411ce7868f7030c7b5b1a1a3ccf3b6a8b0e7b0a4c0e7b9d2f3c1d5e6f7"]
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_repository::{Repository, input_schema, referenced};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.ostree.checkout",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("ostree")],
    schema: || {
        let none = json!({"type": "object", "additionalProperties": false});
        Schema::version_2(input_schema("org.osbuild.ostree.checkout", 0, none))
    },
    rejects: &[
        r#"{"origin": "org.osbuild.source"}"#,
        r#"{"references": ["aa"]}"#,
        r#"{"origin": "org.osbuild.source", "references": {}}"#,
        r#"{"origin": "org.osbuild.source", "references": {"aa": {"ref": "r"}}}"#,
        r#"{"origin": "elsewhere", "references": ["aa"]}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Input(map),
};

fn map(context: &InputContext) -> Result<MappedInput, Error> {
    let mut refs = Map::new();
    for item in referenced(context)? {
        let repository = Repository { path: &item.repository, interrupted: &|| false };
        let target = context.target.join(&item.commit);
        repository.call(&["checkout", &item.commit, &target.to_string_lossy()], "")?;
        refs.insert(item.commit.clone(), json!({"path": item.commit}));
    }
    Ok(MappedInput { path: context.target.clone(), data: json!({ "refs": refs }) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use osbc_fixtures::{has_root, has_tool};

    use super::*;
    use crate::ostrees::ostree_repository::sample;

    #[test]
    fn root_the_files_of_each_commit_are_in_its_directory() {
        if !has_root() || !has_tool("ostree") {
            return;
        }
        let (place, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let commit = sample(&place.path().join("repo"));
        let reference = InputReference { id: commit.clone(), options: json!({}), path: place.path().join(&commit) };
        let context = InputContext {
            origin: InputOrigin::Source,
            references: vec![reference],
            options: json!({}),
            target: target.path().to_owned(),
        };
        let input = map(&context).unwrap();
        assert_eq!(input.data, json!({"refs": {commit.clone(): {"path": commit.clone()}}}));
        assert_eq!(fs::read_to_string(input.path.join(&commit).join("file")).unwrap(), "committed");
    }
}
