//! Changes a unit of systemd by a drop-in file.
//!
//! Writes `UNIT.d/DROPIN` below `/usr/lib/systemd/system`, or for the `unit-type` `global` below
//! `/usr/lib/systemd/user`, in the manifest's order. The directory is made. An `Environment` may be one text, or
//! variables that get a line each.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd.unit",
//!   "options": {
//!     "unit": "nm-cloud-setup.service",
//!     "dropin": "10-rh-enable-for-ec2.conf",
//!     "config": { "Service": { "Environment": [{ "key": "NM_CLOUD_SETUP_EC2", "value": "yes" }] } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::Sections;
use crate::texts::options::InOrder;
use crate::texts::systemd_unit::{self, Directory, Variable};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd.unit",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"unit": "a.service", "dropin": "b.conf"}}"#,
        r#"{"options": {"unit": "a.socket", "dropin": "b.conf", "config": {}}}"#,
        r#"{"options": {"unit": "a/b.service", "dropin": "b.conf", "config": {}}}"#,
        r#"{"options": {"unit": "a.service", "dropin": "b", "config": {}}}"#,
        r#"{"options": {"unit": "a.service", "dropin": "b.conf", "config": {"Service": {"ExecStart": "a"}}}}"#,
        r#"{"options": {"unit": "a.service", "dropin": "b.conf", "config": {"Service": {"Environment": 1}}}}"#,
        r#"{"options": {"unit": "a.service", "dropin": "b.conf", "config": {"Unit": {"ConditionPathExists": []}}}}"#,
        r#"{"options": {"unit": "a.service", "dropin": "b.conf", "config": {}, "unit-type": "user"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The unit
    #[schemars(regex(pattern = r"^[\w:.\\-]+[@]{0,1}[\w:.\\-]*\.(service|timer)$"))]
    unit: String,
    /// The name of the file
    #[schemars(regex(pattern = r"^[\w.-]{1,250}\.conf$"))]
    dropin: String,
    /// The settings, by section
    config: InOrder<Config>,
    /// Whether it is a unit of the system or of all users
    #[serde(default)]
    unit_type: Directory,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Config {
    /// The section `[Unit]`
    unit: Option<Unit>,
    /// The section `[Service]`
    service: Option<Service>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Unit {
    /// A path without which the unit is not started
    condition_path_exists: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Service {
    /// Variables of the environment
    #[schemars(schema_with = "environment_schema")]
    environment: Option<Value>,
}

fn environment_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"oneOf": [{"type": "string"}, Vec::<Variable>::json_schema(generator)]})
}

/// The longest name that a file system takes.
const LONGEST: usize = 255;

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { unit, dropin, config, unit_type } = cx.options()?;
    if unit.chars().count() + ".d".len() > LONGEST {
        return Err(Error::failed(format!("the name of the unit `{unit}` is too long for a directory of drop-ins")));
    }
    let mut file = Sections::default();
    systemd_unit::fill(&mut file, &config.entries)?;
    let directory = format!("usr/lib/systemd/{}/{unit}.d", unit_type.name());
    cx.tree.create_dir_all(&directory, 0o777)?;
    cx.tree.write(format!("{directory}/{dropin}"), file.text("="))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn write(config: Value) -> Done {
        Case::new(&MODULE).run(json!({"unit": "a@b.service", "dropin": "c.conf", "config": config}))
    }

    #[test]
    fn settings_keep_their_order_and_variables_have_a_line_each() {
        let environment = json!([
            {"key": "B", "value": "1 %h"},
            {"key": "A", "value": "2"},
            {"key": "B", "value": "1 %h"},
        ]);
        let config = json!({"Service": {"Environment": environment}, "Unit": {"ConditionPathExists": "!/a"}});
        let text = "[Service]\nEnvironment=\"B=1 %h\"\nEnvironment=\"A=2\"\n\n[Unit]\nConditionPathExists=!/a\n\n";
        assert_eq!(write(config).ok().text("usr/lib/systemd/system/a@b.service.d/c.conf"), text);
        let done = write(json!({"Service": {"Environment": "A=1"}, "Unit": {}})).ok();
        let text = "[Service]\nEnvironment=A=1\n\n[Unit]\n\n";
        assert_eq!(done.text("usr/lib/systemd/system/a@b.service.d/c.conf"), text);
    }

    #[test]
    fn units_of_users_have_a_directory_of_their_own_and_long_names_are_refused() {
        let mut options = json!({"unit": "a.timer", "dropin": "c.conf", "unit-type": "global", "config": {}});
        let done = Case::new(&MODULE).run(options.clone()).ok();
        assert_eq!(done.text("usr/lib/systemd/user/a.timer.d/c.conf"), "");
        options["unit"] = json!(format!("{}.timer", "a".repeat(250)));
        assert!(Case::new(&MODULE).run(options).err().contains("too long"));
    }

    #[test]
    fn a_variable_needs_key_and_value() {
        let done = write(json!({"Service": {"Environment": [{"key": "A"}]}}));
        assert!(done.err().contains("needs a `key` and a `value`"), "{}", done.err());
    }
}
