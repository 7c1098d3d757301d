//! Does nothing.
//!
//! Any options, inputs, devices and mounts are accepted and ignored.
//!
//! ```json
//! { "type": "org.osbuild.noop", "options": { "note": "nothing happens" } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.noop",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(json!({"options": {"type": "object"}, "devices": {}, "inputs": {}, "mounts": {}})),
    rejects: &[r#"{"options": 1}"#, r#"{"option": {}}"#],
    parse: |_| Ok(()),
    entry: Entry::Stage(|_| Ok(())),
};
