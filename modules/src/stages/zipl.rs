//! Configures zipl, the boot loader of s390x.
//!
//! Writes `/etc/zipl.conf` anew.
//!
//! ```json
//! { "type": "org.osbuild.zipl", "options": { "timeout": 3 } }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.zipl",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"timeout": "3"}}"#, r#"{"options": {"other": 3}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// How many seconds the menu waits
    #[schemars(with = "Option<f64>")]
    timeout: Option<Number>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { timeout } = cx.options()?;
    let timeout = timeout.unwrap_or_else(|| 0.into());
    cx.tree.create_dir_all("etc", 0o777)?;
    let text = format!("[defaultboot]\ndefaultauto\nprompt=1\ntimeout={timeout}\ntarget=/boot\n");
    cx.tree.write("etc/zipl.conf", text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_menu_waits_as_long_as_given() {
        for (options, timeout) in [(json!({}), "0"), (json!({"timeout": 3}), "3"), (json!({"timeout": 1.5}), "1.5")] {
            let done = Case::new(&MODULE).file("etc/zipl.conf", "old").run(options).ok();
            let text = format!("[defaultboot]\ndefaultauto\nprompt=1\ntimeout={timeout}\ntarget=/boot\n");
            assert_eq!(done.text("etc/zipl.conf"), text);
        }
    }
}
