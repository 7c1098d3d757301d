//! OSTree repositories outside of stages: of sources and inputs, with the host's `ostree`.

use std::path::{Path, PathBuf};

use osbc_module_api::*;

/// The repository that all commits of the source are in, in the directory of its items.
pub(crate) const SHARED: &str = "repo";

/// A repository of the host's file system.
pub(crate) struct Repository<'a> {
    /// Its directory.
    pub(crate) path: &'a Path,
    /// Whether the work was ended.
    pub(crate) interrupted: &'a dyn Fn() -> bool,
}

impl Repository<'_> {
    /// Calls `ostree` on it and returns what that prints.
    ///
    /// # Errors
    /// It is missing or fails.
    pub(crate) fn call(&self, words: &[&str], stdin: &str) -> Result<String, Error> {
        let tool = Tool::of_host("ostree")?.args(words).arg(format!("--repo={}", self.path.display())).stdin(stdin);
        Ok(String::from_utf8_lossy(&tool.contained_output(self.interrupted)?).into_owned())
    }

    /// Makes it, unless it is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn init(&self) -> Result<(), Error> {
        self.call(&["init", "--mode=archive"], "").map(drop)
    }

    /// Whether it has a commit with all that belongs to it.
    pub(crate) fn has(&self, commit: &str) -> bool {
        let partial = self.path.join("state").join(format!("{commit}.commitpartial"));
        !partial.exists() && self.path.join("config").exists() && self.call(&["show", commit], "").is_ok()
    }

    /// Copies a commit from another one.
    ///
    /// # Errors
    /// That does not have it.
    pub(crate) fn pull_local(&self, from: &Path, commit: &str) -> Result<(), Error> {
        self.call(&["pull-local", &from.to_string_lossy(), commit], "").map(drop)
    }
}

/// A commit that an input refers to, and where it is.
#[derive(Debug)]
pub(crate) struct Referenced {
    /// Its id.
    pub(crate) commit: String,
    /// The repository that has it.
    pub(crate) repository: PathBuf,
    /// The options of the reference.
    pub(crate) options: Value,
}

/// The commits that an input refers to: items of the source, or what pipelines have committed to `/repo`.
///
/// # Errors
/// A pipeline's tree does not say which commit it has.
pub(crate) fn referenced(context: &InputContext) -> Result<Vec<Referenced>, Error> {
    let find = |reference: &InputReference| {
        let options = reference.options.clone();
        if context.origin == InputOrigin::Source {
            let shared = reference.path.parent().unwrap_or(Path::new("/")).join(SHARED);
            return Ok(Referenced { commit: reference.id.clone(), repository: shared, options });
        }
        let tree = Tree::open(&reference.path)?;
        let compose: Value = serde_json::from_slice(&tree.read("compose.json")?)
            .map_err(|error| Error::failed(format!("compose.json of the pipeline is no JSON: {error}")))?;
        let commit = compose.get("ostree-commit").and_then(Value::as_str);
        let commit = commit.ok_or_else(|| Error::failed("compose.json of the pipeline names no commit"))?;
        Ok(Referenced { commit: commit.to_owned(), repository: tree.subtree("repo")?.path_for_tools("/")?, options })
    };
    context.references.iter().map(find).collect()
}

/// The schema of an input of commits. `least` is how many there must be at least in a list of ids.
pub(crate) fn input_schema(name: &str, least: u32, options: Value) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["type", "origin", "references"],
        "properties": {
            "type": {"enum": [name]},
            "origin": {
                "description": "Commits come from sources and pipelines.",
                "type": "string",
                "enum": ["org.osbuild.source", "org.osbuild.pipeline"]
            },
            "references": {
                "description": "The commits, or the pipelines that made them.",
                "oneOf": [
                    {"type": "array", "minItems": least, "items": {"type": "string"}},
                    {
                        "type": "object",
                        "additionalProperties": false,
                        "minProperties": 1,
                        "patternProperties": {".*": options}
                    },
                    {
                        "type": "array",
                        "additionalItems": false,
                        "minItems": 1,
                        "items": [{
                            "type": "object",
                            "additionalProperties": false,
                            "required": ["id"],
                            "properties": {"id": {"type": "string"}, "options": options}
                        }]
                    }
                ]
            }
        }
    })
}

/// Makes a repository with one commit of a directory with one file, for tests; returns the commit's id.
#[cfg(test)]
pub(crate) fn sample(path: &Path) -> String {
    let repository = Repository { path, interrupted: &|| false };
    repository.init().unwrap();
    let content = tempfile::tempdir().unwrap();
    std::fs::write(content.path().join("file"), "committed").unwrap();
    let tree = format!("--tree=dir={}", content.path().display());
    repository.call(&["commit", "--branch=os/test", &tree], "").unwrap().trim().to_owned()
}
