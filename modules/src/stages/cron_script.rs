//! Runs a command every hour, day, week or month.
//!
//! Writes an executable script to `/etc/cron.<interval>/`, which must be there: the package of the cron daemon makes
//! it. The first line is `!/bin/bash`, as osbuild writes it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.cron.script",
//!   "options": {
//!     "interval": "daily",
//!     "filename": "clean",
//!     "simple": { "command": "/usr/bin/clean --all", "comment": ["Keep the disk empty"] }
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.cron.script",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"interval": "daily", "filename": "a"}}"#,
        r#"{"options": {"interval": "yearly", "filename": "a", "simple": {"command": "x"}}}"#,
        r#"{"options": {"interval": "daily", "filename": "a/b", "simple": {"command": "x"}}}"#,
        r#"{"options": {"interval": "daily", "filename": "a", "simple": {}}}"#,
        r#"{"options": {"interval": "daily", "filename": "a", "simple": {"command": "x", "comment": "y"}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// How often.
    interval: Interval,
    /// The script's name.
    #[schemars(regex(pattern = r"^[\w.-]{1,255}$"))]
    filename: String,
    /// What to run.
    simple: Simple,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Interval {
    Hourly,
    Daily,
    Weekly,
    Monthly,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Simple {
    /// Lines of comment.
    #[serde(default)]
    comment: Vec<String>,
    /// The command line.
    command: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { interval, filename, simple: Simple { comment, command } } = cx.options()?;
    comment.iter().try_for_each(|line| one_line::line("simple.comment", line).map(drop))?;
    let directory = match interval {
        Interval::Hourly => "etc/cron.hourly",
        Interval::Daily => "etc/cron.daily",
        Interval::Weekly => "etc/cron.weekly",
        Interval::Monthly => "etc/cron.monthly",
    };
    let comment: String = comment.iter().map(|line| format!("# {line}\n")).collect();
    let path = format!("{directory}/{filename}");
    cx.tree.write(&path, format!("!/bin/bash\n{comment}{command}\n"))?;
    cx.tree.chmod(&path, 0o755)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn options(comment: Value) -> Value {
        json!({"interval": "weekly", "filename": "a", "simple": {"command": "x y", "comment": comment}})
    }

    #[test]
    fn the_script_is_executable() {
        let done = Case::new(&MODULE).dir("etc/cron.weekly").run(options(json!(["b", "c"]))).ok();
        assert_eq!(done.text("etc/cron.weekly/a"), "!/bin/bash\n# b\n# c\nx y\n");
        assert_eq!(done.mode("etc/cron.weekly/a"), 0o755);
        let done = Case::new(&MODULE).file("etc/cron.weekly/a", "old").run(options(json!([]))).ok();
        assert_eq!(done.text("etc/cron.weekly/a"), "!/bin/bash\nx y\n");
    }

    #[test]
    fn the_directory_must_be_there() {
        assert!(Case::new(&MODULE).run(options(json!([]))).err().starts_with("cannot write /etc/cron.weekly/a"));
    }
}
