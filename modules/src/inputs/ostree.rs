//! OSTree commits, in a repository of their own.
//!
//! A reference is the id of a commit that a source has fetched, or a pipeline that has made one: its tree has the
//! repository `/repo`, and `/compose.json` names the commit. With `ref` the commit gets that name in the repository.
//! Calls `ostree` of the host. The stage gets the options of each commit under `refs`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree",
//!   "origin": "org.osbuild.source",
//!   "references": { "439911411ce7868f7030c7b5b1a1a3ccf3b6a8b0e7b0a4c0e7b9d2f3c1d5e6f7": { "ref": "os/stable" } }
//! }
//! ```
//!
//! ```json
//! { "type": "org.osbuild.ostree", "origin": "org.osbuild.pipeline", "references": ["name:ostree-commit"] }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_repository::{Repository, input_schema, referenced};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.ostree",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("ostree")],
    schema: || Schema::version_2(input_schema("org.osbuild.ostree", 1, options_schema::<Options>())),
    rejects: &[
        r#"{"origin": "org.osbuild.source"}"#,
        r#"{"references": ["aa"]}"#,
        r#"{"origin": "org.osbuild.source", "references": []}"#,
        r#"{"origin": "org.osbuild.source", "references": {"aa": {"name": "n"}}}"#,
        r#"{"origin": "org.osbuild.source", "references": [{"id": "aa"}, {"id": "bb"}]}"#,
        r#"{"origin": "elsewhere", "references": ["aa"]}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Input(map),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name that the commit gets in the repository.
    #[serde(rename = "ref")]
    reference: Option<String>,
}

fn map(context: &InputContext) -> Result<MappedInput, Error> {
    let path = context.target.join("repo");
    let repository = Repository { path: &path, interrupted: &|| false };
    repository.init()?;
    let mut refs = Map::new();
    for item in referenced(context)? {
        let options = Options::deserialize(&item.options).map_err(Error::Options)?;
        repository.pull_local(&item.repository, &item.commit)?;
        if let Some(name) = options.reference.filter(|name| !name.is_empty()) {
            repository.call(&["refs", "--create", &name, &item.commit], "")?;
        }
        refs.insert(item.commit, item.options);
    }
    Ok(MappedInput { path, data: json!({ "refs": refs }) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use osbc_fixtures::has_tool;

    use super::*;
    use crate::ostrees::ostree_repository::sample;

    fn mapped(origin: InputOrigin, id: &str, path: &Path, options: Value) -> Result<(String, Value), String> {
        let target = tempfile::tempdir().unwrap();
        let context = InputContext {
            origin,
            references: vec![InputReference { id: id.to_owned(), options, path: path.to_owned() }],
            options: json!({}),
            target: target.path().to_owned(),
        };
        let input = map(&context).map_err(|error| error.to_string())?;
        let repository = Repository { path: &input.path, interrupted: &|| false };
        Ok((repository.call(&["refs"], "").unwrap(), input.data))
    }

    #[test]
    fn commits_of_the_source_and_of_pipelines_are_handed_over_with_their_names() {
        if !has_tool("ostree") {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let commit = sample(&place.path().join("repo"));
        let named = json!({"ref": "os/stable"});
        let (refs, data) = mapped(InputOrigin::Source, &commit, &place.path().join(&commit), named.clone()).unwrap();
        assert_eq!(refs.trim(), "os/stable");
        assert_eq!(data, json!({"refs": {commit.clone(): named}}));
        fs::write(place.path().join("compose.json"), json!({"ostree-commit": commit}).to_string()).unwrap();
        let (refs, data) = mapped(InputOrigin::Pipeline, "id", place.path(), json!({})).unwrap();
        assert_eq!((refs.trim(), data), ("", json!({"refs": {commit: {}}})));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        if !has_tool("ostree") {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        sample(&place.path().join("repo"));
        let missing = "0".repeat(64);
        let refused = mapped(InputOrigin::Source, &missing, &place.path().join(&missing), json!({})).unwrap_err();
        assert!(refused.contains("pull-local"), "{refused}");
        fs::write(place.path().join("compose.json"), "{}").unwrap();
        let refused = mapped(InputOrigin::Pipeline, "id", place.path(), json!({})).unwrap_err();
        assert_eq!(refused, "compose.json of the pipeline names no commit");
    }
}
