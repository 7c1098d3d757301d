//! Configures a module of DNF's repositories.
//!
//! Writes `/etc/dnf/modules.d/<name>.module`, anew where it is there. A module needs its `name`, which must not be
//! `DEFAULT`, and its `profiles`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dnf.module-config",
//!   "options": { "conf": { "name": "nodejs", "stream": "20", "state": "enabled", "profiles": ["common", "devel"] } }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::python;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dnf.module-config",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"conf": {"name": 1}}}"#,
        r#"{"options": {"conf": {"name": "a", "profiles": "b"}}}"#,
        r#"{"options": {"conf": {"name": "a", "version": "b"}}}"#,
        r#"{"options": {"config": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The module.
    #[serde(default)]
    conf: InOrder<Conf>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Conf {
    /// Its name.
    name: Option<String>,
    /// Its stream.
    stream: Option<String>,
    /// Whether it is enabled.
    state: Option<String>,
    /// Its profiles that are installed.
    profiles: Option<Vec<String>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { conf } = cx.options()?;
    let missing = |key| Error::failed(format!("the module's `{key}` is missing in `conf`"));
    let name = conf.entries.get("name").and_then(Value::as_str).ok_or_else(|| missing("name"))?;
    if !conf.entries.contains_key("profiles") {
        return Err(missing("profiles"));
    }
    let mut ini = Sections::default();
    let section = ini.section(name)?;
    for (key, value) in &conf.entries {
        let value = match value {
            Value::Array(profiles) => python::join(", ", profiles)?,
            value => python::scalar(value)?,
        };
        section.set(key, one_line::trimmed(key, &value)?)?;
    }
    let path = format!("etc/dnf/modules.d/{name}.module");
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    cx.tree.create_dir_all(directory, 0o777)?;
    cx.tree.write(&path, ini.text(" = "))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_section_is_named_after_the_module() {
        let conf = json!({"stream": "1", "name": "a", "profiles": ["b", "c"], "state": "enabled"});
        let done = Case::new(&MODULE).run(json!({ "conf": conf })).ok();
        let text = "[a]\nstream = 1\nname = a\nprofiles = b, c\nstate = enabled\n\n";
        assert_eq!(done.text("etc/dnf/modules.d/a.module"), text);
    }

    #[test]
    fn name_and_profiles_are_needed() {
        for (conf, key) in [(json!({"profiles": []}), "name"), (json!({"name": "a"}), "profiles")] {
            let done = Case::new(&MODULE).run(json!({ "conf": conf }));
            assert_eq!(done.err(), format!("the module's `{key}` is missing in `conf`"));
        }
    }
}
