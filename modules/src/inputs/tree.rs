//! The tree of another pipeline.
//!
//! It is shown read-only. There is exactly one reference; where it is empty, or names a pipeline without stages, the
//! tree is empty too.
//!
//! ```json
//! { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:os"] }
//! ```
//!
//! ```json
//! { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": { "name:os": {} } }
//! ```

use osbc_module_api::*;

use crate::trees::bind::{Access, bind};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.tree",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema()),
    rejects: &[
        r#"{"references": ["name:os"]}"#,
        r#"{"origin": "org.osbuild.pipeline"}"#,
        r#"{"origin": "org.osbuild.source", "references": ["name:os"]}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": ["name:os", "name:other"]}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": {"name:os": {"file": "etc"}}}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": [{"options": {}}]}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": ["name:os"], "options": {}}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Input(map),
};

fn schema() -> Value {
    let none = json!({"type": "object", "additionalProperties": false});
    let one =
        |item: Value| json!({"type": "array", "additionalItems": false, "minItems": 1, "maxItems": 1, "items": [item]});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["type", "origin", "references"],
        "properties": {
            "type": {"enum": ["org.osbuild.tree"]},
            "origin": {"description": "Trees come from pipelines.", "type": "string", "enum": ["org.osbuild.pipeline"]},
            "references": {
                "description": "Exactly one pipeline.",
                "oneOf": [
                    one(json!({"type": "string"})),
                    {
                        "type": "object",
                        "additionalProperties": false,
                        "patternProperties": {".*": none},
                        "minProperties": 1,
                        "maxProperties": 1
                    },
                    one(json!({
                        "type": "object",
                        "additionalProperties": false,
                        "required": ["id"],
                        "properties": {"id": {"type": "string"}, "options": none}
                    }))
                ]
            }
        }
    })
}

fn map(context: &InputContext) -> Result<MappedInput, Error> {
    let target = &context.target;
    match context.references.as_slice() {
        [] => {}
        [reference] if reference.id.is_empty() => {}
        [reference] => {
            let (source, over) = (Tree::open(&reference.path)?, Tree::open(target)?);
            bind(source, over, Access::ReadOnly).map_err(Error::io("bind the tree to", target))?;
        }
        several => {
            let reason = format!("the input takes the tree of one pipeline, not of {}", several.len());
            return Err(Error::failed(reason));
        }
    }
    Ok(MappedInput { path: target.clone(), data: json!({}) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use osbc_fixtures::has_root;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    fn context(references: &[(&str, &Path)], target: &Path) -> InputContext {
        let reference = |(id, path): &(&str, &Path)| InputReference {
            id: (*id).to_owned(),
            options: json!({}),
            path: (*path).to_owned(),
        };
        InputContext {
            origin: InputOrigin::Pipeline,
            references: references.iter().map(reference).collect(),
            options: json!({}),
            target: target.to_owned(),
        }
    }

    #[test]
    fn root_the_tree_is_shown_and_cannot_be_written() {
        if !has_root() {
            return;
        }
        let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(tree.path().join("file"), "content").unwrap();
        in_own_namespace(|| {
            let mapped = map(&context(&[("id", tree.path())], target.path())).unwrap();
            assert_eq!(mapped.path, target.path());
            assert_eq!(fs::read_to_string(mapped.path.join("file")).unwrap(), "content");
            assert!(fs::write(mapped.path.join("file"), "other").is_err());
        });
    }

    #[test]
    fn no_reference_is_an_empty_tree_and_several_are_refused() {
        let target = tempfile::tempdir().unwrap();
        for none in [&[][..], &[("", Path::new("/nowhere"))]] {
            let mapped = map(&context(none, target.path())).unwrap();
            assert_eq!(fs::read_dir(mapped.path).unwrap().count(), 0);
        }
        let several = map(&context(&[("a", Path::new("/")), ("b", Path::new("/"))], target.path()));
        assert_eq!(several.unwrap_err().to_string(), "the input takes the tree of one pipeline, not of 2");
    }
}
