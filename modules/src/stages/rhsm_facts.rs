//! Stores facts about the image for Red Hat Subscription Management.
//!
//! Writes `/etc/rhsm/facts/osbuild.facts`, which must not be there yet.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rhsm.facts",
//!   "options": { "facts": { "image-builder.osbuild-composer.api-type": "cloudapi-v2" } }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::options::required;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.rhsm.facts",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"facts": "a"}}"#, r#"{"options": {"facts": []}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct Options {
    /// The facts, by name
    facts: Option<Map<String, Value>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { facts } = cx.options()?;
    let facts = required(facts, "facts")?;
    cx.tree.create_dir_all("etc/rhsm/facts", 0o777)?;
    cx.tree.write_new("etc/rhsm/facts/osbuild.facts", osbc_pytext::json::to_string(&Value::Object(facts)))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "etc/rhsm/facts/osbuild.facts";

    #[test]
    fn the_facts_are_stored_in_their_order() {
        let done = Case::new(&MODULE).run(json!({"facts": {"b": "ü", "a": [1, true]}, "other": 1})).ok();
        assert_eq!(done.text(FILE), r#"{"b": "\u00fc", "a": [1, true]}"#);
    }

    #[test]
    fn facts_must_be_given_and_none_be_there() {
        assert_eq!(Case::new(&MODULE).run(json!({})).err(), "the option `facts` is missing");
        for case in [Case::new(&MODULE).file(FILE, "{}"), Case::new(&MODULE).link(FILE, "/nowhere")] {
            assert!(case.run(json!({"facts": {}})).err().contains("File exists"));
        }
    }
}
