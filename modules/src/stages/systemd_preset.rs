//! Presets which services are enabled.
//!
//! Writes `/usr/lib/systemd/system-preset/50-osbuild.preset` with a line for each unit; the directory must be there. A
//! unit may be named once. Without `presets` nothing is written.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd.preset",
//!   "options": { "presets": [{ "name": "sshd.service", "state": "enable" }] }
//! }
//! ```

use std::collections::BTreeSet;

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd.preset",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"presets": []}}"#,
        r#"{"options": {"presets": [{"name": "a"}]}}"#,
        r#"{"options": {"presets": [{"name": "a", "state": "mask"}]}}"#,
        r#"{"options": {"other": []}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The units, in order
    #[schemars(length(min = 1))]
    presets: Option<Vec<Preset>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Preset {
    /// The unit
    name: String,
    /// What to do with it
    #[schemars(extend("enum" = ["enable", "disable"]))]
    state: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { presets: Some(presets) } = cx.options()? else { return Ok(()) };
    let mut names = BTreeSet::new();
    if let Some(Preset { name, .. }) = presets.iter().find(|preset| !names.insert(preset.name.as_str())) {
        return Err(Error::failed(format!("the unit `{name}` has more than one preset")));
    }
    presets.iter().try_for_each(|preset| one_line::word("presets.name", &preset.name).map(drop))?;
    let lines: String = presets.iter().map(|Preset { name, state }| format!("{state} {name}\n")).collect();
    cx.tree.write("usr/lib/systemd/system-preset/50-osbuild.preset", lines)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE).dir("usr/lib/systemd/system-preset")
    }

    #[test]
    fn each_unit_has_one_line() {
        let presets = json!([{"name": "b.service", "state": "enable"}, {"name": "a.timer", "state": "disable"}]);
        let done = case().run(json!({ "presets": presets })).ok();
        let text = "enable b.service\ndisable a.timer\n";
        assert_eq!(done.text("usr/lib/systemd/system-preset/50-osbuild.preset"), text);
        let presets = json!([{"name": "a", "state": "enable"}, {"name": "a", "state": "enable"}]);
        assert_eq!(case().run(json!({ "presets": presets })).err(), "the unit `a` has more than one preset");
        assert!(case().run(json!({})).ok().tree.read_dir("usr/lib/systemd/system-preset").unwrap().is_empty());
    }
}
