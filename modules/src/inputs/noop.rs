//! Hands the references on to the stage and makes nothing visible.
//!
//! The stage finds them, with their options, under `refs`. Any options of the input are accepted and ignored. osbuild
//! also makes a directory with a random name; here the input is an empty directory.
//!
//! ```json
//! {
//!   "type": "org.osbuild.noop",
//!   "origin": "org.osbuild.pipeline",
//!   "references": { "name:os": { "note": "handed on" } }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.noop",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || {
        Schema::version_2(json!({
            "additionalProperties": true,
            "properties": {"origin": {"enum": ["org.osbuild.source", "org.osbuild.pipeline"]}}
        }))
    },
    rejects: &[r#"{"origin": "elsewhere", "references": {"name:os": {}}}"#],
    parse: |_| Ok(()),
    entry: Entry::Input(|context| {
        let references = context.references.iter().map(|reference| (reference.id.clone(), reference.options.clone()));
        let references: Map<String, Value> = references.collect();
        Ok(MappedInput { path: context.target.clone(), data: json!({ "refs": references }) })
    }),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_references_are_handed_on_with_their_options() {
        let target = tempfile::tempdir().unwrap();
        let Entry::Input(map) = MODULE.entry else { panic!("an input") };
        let reference = |id: &str, options| InputReference { id: id.into(), options, path: "/nowhere".into() };
        let mapped = map(&InputContext {
            origin: InputOrigin::Pipeline,
            references: vec![reference("b", json!({"note": 1})), reference("a", json!({}))],
            options: json!({}),
            target: target.path().to_owned(),
        });
        let expected =
            MappedInput { path: target.path().to_owned(), data: json!({"refs": {"b": {"note": 1}, "a": {}}}) };
        assert_eq!(mapped.unwrap(), expected);
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
    }
}
