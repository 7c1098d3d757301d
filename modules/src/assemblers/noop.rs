//! Makes nothing.
//!
//! Takes no options; the result is an empty tree.
//!
//! ```json
//! { "type": "org.osbuild.noop", "options": {} }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.noop",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[r#"{"options": {"note": "nothing happens"}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(|_| Ok(())),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}
