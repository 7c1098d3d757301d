//! Imports public keys into the tree's RPM database.
//!
//! Calls `rpmkeys` of the build root on each file of the input `keys`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rpmkeys.import",
//!   "inputs": {
//!     "keys": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": ["sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]
//!     }
//!   },
//!   "options": {}
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.rpmkeys.import",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("rpmkeys")],
    schema: || Schema::stage::<Options>().inputs(&["keys"]).version_2_alone(),
    rejects: &[r#"{"options": {"keys": []}}"#, r#"{"inputs": {}}"#, r#"{"inputs": {"keys": {}, "more": {}}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// None.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}

fn run(cx: &StageContext) -> Result<(), Error> {
    let input = cx.input("keys")?;
    let root = cx.tree.path_for_tools("/")?;
    let keys = input.data.get("files").and_then(Value::as_object);
    for name in keys.into_iter().flat_map(Map::keys) {
        let key = input.path.join(name);
        cx.tool("rpmkeys")?.args(["--verbose", "--root"]).arg(&root).arg("--import").arg(key).run()?;
    }
    Ok(())
}
