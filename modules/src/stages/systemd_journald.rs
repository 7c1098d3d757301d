//! Configures the journal of systemd.
//!
//! Writes a drop-in file of `/usr/lib/systemd/journald.conf.d`, which must not be there yet, in the manifest's order.
//! The directory is made.
//!
//! ```json
//! {
//!   "type": "org.osbuild.systemd-journald",
//!   "options": {
//!     "filename": "10-persistent.conf",
//!     "config": { "Journal": { "Storage": "persistent", "Compress": "yes" } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::ini::{self, Sections};
use crate::texts::options::InOrder;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.systemd-journald",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a.conf", "config": {}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"Journal": {}}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"Journal": {"Storage": "disk"}}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"Journal": {"Audit": true}}}}"#,
        r#"{"options": {"filename": "a", "config": {"Journal": {"Audit": "no"}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name of the file
    #[schemars(regex(pattern = r"^[a-zA-Z0-9_\.-]{1,250}\.conf$"))]
    filename: String,
    /// The settings, by section
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Config {
    /// The section `[Journal]`
    journal: Option<Journal>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Journal {
    /// Where entries are stored
    #[schemars(extend("enum" = ["volatile", "persistent", "auto", "none"]))]
    storage: Option<String>,
    /// Whether large entries are compressed, or from which size on
    compress: Option<String>,
    /// Whether each user has a file
    #[schemars(extend("enum" = ["uid", "none"]))]
    split_mode: Option<String>,
    /// After which time a new file is begun
    max_file_sec: Option<String>,
    /// After which time entries are deleted
    max_retention_sec: Option<String>,
    /// How long entries may wait for the disk
    sync_interval_sec: Option<String>,
    /// Whether the kernel's auditing is switched on
    #[schemars(extend("enum" = ["yes", "no", ""]))]
    audit: Option<String>,
}

const DIRECTORY: &str = "usr/lib/systemd/journald.conf.d";

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, config } = cx.options()?;
    let mut file = Sections::default();
    for (section, settings) in &config.entries {
        ini::fill(file.section(section)?, settings)?;
    }
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    cx.tree.write_new(format!("{DIRECTORY}/{filename}"), file.text("="))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn settings_keep_their_order_and_no_file_is_overwritten() {
        let journal = json!({"Storage": "auto", "Audit": "", "Compress": "512K"});
        let options = json!({"filename": "a.conf", "config": {"Journal": journal}});
        let done = Case::new(&MODULE).run(options.clone()).ok();
        let text = "[Journal]\nStorage=auto\nAudit=\nCompress=512K\n\n";
        assert_eq!(done.text("usr/lib/systemd/journald.conf.d/a.conf"), text);
        let done = Case::new(&MODULE).file("usr/lib/systemd/journald.conf.d/a.conf", "old").run(options);
        assert!(done.err().contains("File exists"));
    }

    #[test]
    fn percent_signs_stay_and_line_breaks_are_refused() {
        let with = |value: &str| json!({"filename": "a.conf", "config": {"Journal": {"Compress": value}}});
        let done = Case::new(&MODULE).run(with("5%")).ok();
        assert_eq!(done.text("usr/lib/systemd/journald.conf.d/a.conf"), "[Journal]\nCompress=5%\n\n");
        assert!(Case::new(&MODULE).run(with("5\n6")).err().contains("`Compress` has a line break"));
    }
}
