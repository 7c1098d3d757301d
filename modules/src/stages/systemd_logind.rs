//! Configures the manager of logins of systemd.
//!
//! Writes a drop-in file of `/usr/lib/systemd/logind.conf.d`, in the manifest's order. The directory is made.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd-logind",
//!   "options": { "filename": "10-ec2-getty-fix.conf", "config": { "Login": { "NAutoVTs": 0 } } }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::ini::{self, Sections};
use crate::texts::options::InOrder;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd-logind",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a.conf", "config": {}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"Login": {}}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"Login": {"NAutoVTs": -1}}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"Login": {"ReserveVT": "6"}}}}"#,
        r#"{"options": {"filename": "a/b.conf", "config": {"Login": {"ReserveVT": 6}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name of the file
    #[schemars(regex(pattern = r"^[\w.-]{1,250}\.conf$"))]
    filename: String,
    /// The settings, by section
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Config {
    /// The section `[Login]`
    login: Option<Login>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Login {
    /// How many virtual terminals get a login when they are switched to
    #[serde(rename = "NAutoVTs")]
    #[schemars(with = "Option<u32>")]
    automatic: Option<Number>,
    /// The virtual terminal that always has a login
    #[serde(rename = "ReserveVT")]
    #[schemars(with = "Option<u32>")]
    reserved: Option<Number>,
}

const DIRECTORY: &str = "usr/lib/systemd/logind.conf.d";

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, config } = cx.options()?;
    let mut file = Sections::default();
    for (section, settings) in &config.entries {
        ini::fill(file.section(section)?, settings)?;
    }
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    cx.tree.write(format!("{DIRECTORY}/{filename}"), file.text("="))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn settings_keep_their_order_and_a_file_is_overwritten() {
        let options = json!({"filename": "a.conf", "config": {"Login": {"ReserveVT": 0, "NAutoVTs": 6}}});
        let done = Case::new(&MODULE).file("usr/lib/systemd/logind.conf.d/a.conf", "old").run(options).ok();
        assert_eq!(done.text("usr/lib/systemd/logind.conf.d/a.conf"), "[Login]\nReserveVT=0\nNAutoVTs=6\n\n");
    }
}
