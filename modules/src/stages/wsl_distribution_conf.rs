//! Describes the image to the Windows Subsystem for Linux.
//!
//! Changes `/etc/wsl-distribution.conf`, or creates it; comments and order stay. Without settings it does nothing.
//!
//! ```json
//! {
//!   "type": "org.osbuild.wsl-distribution.conf",
//!   "options": {
//!     "oobe": { "default_uid": 1000, "default_name": "Linux" },
//!     "shortcut": { "enabled": true, "icon": "/usr/share/pixmaps/linux.ico" }
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::ini::Document;
use crate::texts::one_line;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.wsl-distribution.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"oobe": {}}}"#,
        r#"{"options": {"oobe": {"default_uid": "1000"}}}"#,
        r#"{"options": {"oobe": {"command": "a"}}}"#,
        r#"{"options": {"shortcut": {"enabled": 1}}}"#,
        r#"{"options": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/wsl-distribution.conf";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The section `[oobe]`, for the first start
    oobe: Option<FirstStart>,
    /// The section `[shortcut]`, for the start menu
    shortcut: Option<Shortcut>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct FirstStart {
    /// The number of the user who is logged in
    #[schemars(with = "Option<i64>")]
    default_uid: Option<Number>,
    /// The name of the distribution
    default_name: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shortcut {
    /// Whether there is an entry
    enabled: Option<bool>,
    /// The icon's path
    icon: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { oobe, shortcut } = cx.options()?;
    let mut settings = Vec::new();
    if let Some(FirstStart { default_uid, default_name }) = oobe {
        settings.push(("oobe", "defaultUid", default_uid.map(|number| number.to_string())));
        settings.push(("oobe", "defaultName", default_name));
    }
    if let Some(Shortcut { enabled, icon }) = shortcut {
        settings.push(("shortcut", "enabled", enabled.map(|yes| yes.to_string())));
        settings.push(("shortcut", "icon", icon));
    }
    let settings: Vec<_> =
        settings.into_iter().filter_map(|(section, key, value)| Some((section, key, value?))).collect();
    if settings.is_empty() {
        return Ok(());
    }
    let mut file = Document::read_or_new(&cx.tree, FILE)?;
    for (section, key, value) in settings {
        file.ensure_section(section);
        file.set(section, key, &value)?;
    }
    cx.tree.write(FILE, file.text())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_file_is_changed_or_created() {
        let options = json!({
            "shortcut": {"icon": "/a.ico", "enabled": true},
            "oobe": {"default_name": "Linux", "default_uid": 1000},
        });
        let done = Case::new(&MODULE).dir("etc").run(options.clone()).ok();
        let new = "[oobe]\ndefaultUid = 1000\ndefaultName = Linux\n\n[shortcut]\nenabled = true\nicon = /a.ico";
        assert_eq!(done.text(FILE), new);
        let done = Case::new(&MODULE).file(FILE, "[shortcut]\nenabled=false ; no\n[x]\n").run(options).ok();
        let new =
            "[shortcut]\nenabled=true ; no\nicon = /a.ico\n[x]\n\n\n[oobe]\ndefaultUid = 1000\ndefaultName = Linux";
        assert_eq!(done.text(FILE), new.replace("true ; no", "true  ; no"));
    }

    #[test]
    fn without_settings_there_is_no_file() {
        for options in [json!({}), json!({"shortcut": {}})] {
            assert!(!Case::new(&MODULE).dir("etc").run(options).ok().tree.exists(FILE).unwrap());
        }
    }

    #[test]
    fn percent_signs_stay_and_line_breaks_are_refused() {
        let run = |name: &str| Case::new(&MODULE).dir("etc").run(json!({"oobe": {"default_name": name}}));
        assert_eq!(run("5%").ok().text(FILE), "[oobe]\ndefaultName = 5%");
        assert!(run("a\nb").err().starts_with("the option `oobe.default_name` has a line break"));
    }
}
