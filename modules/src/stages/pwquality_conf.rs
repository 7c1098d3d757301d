//! Sets which passwords are good enough.
//!
//! Changes `/etc/security/pwquality.conf`, which must be there: the first line `key = value` of a setting is replaced, a
//! setting that has none is added at the end. Comments stay, also those that show a default. The file is replaced by a
//! new one, a link too.
//!
//! ```json
//! { "type": "org.osbuild.pwquality.conf", "options": { "config": { "minlen": 9, "minclass": 0 } } }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::settings::{self, Format};
use osbc_pytext::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pwquality.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"config": {"minlen": "9"}}}"#,
        r#"{"options": {"config": {"minlen": 9.5}}}"#,
        r#"{"options": {"config": {"maxlen": 9}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FORMAT: Format = Format {
    split: |line| line.split_once(" = ").filter(|(_, value)| !value.contains(" = ")),
    between: " = ",
    ignores_case: false,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The settings
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Config {
    /// How long a password must be
    #[schemars(with = "Option<i64>")]
    minlen: Option<Number>,
    /// How much digits count, or how many there must be if negative
    #[schemars(with = "Option<i64>")]
    dcredit: Option<Number>,
    /// How much upper case letters count, or how many there must be if negative
    #[schemars(with = "Option<i64>")]
    ucredit: Option<Number>,
    /// How much lower case letters count, or how many there must be if negative
    #[schemars(with = "Option<i64>")]
    lcredit: Option<Number>,
    /// How much other characters count, or how many there must be if negative
    #[schemars(with = "Option<i64>")]
    ocredit: Option<Number>,
    /// How many kinds of characters there must be
    #[schemars(with = "Option<i64>")]
    minclass: Option<Number>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { config } = cx.options()?;
    let settings = config.entries.iter().filter_map(|(key, value)| Some((key.as_str(), text::str(value)?)));
    let settings: Vec<_> = settings.collect();
    for (key, value) in &settings {
        one_line::refuse(key, one_line::trimmed(key, value)?, |c| c == '#', "a `#`, which begins a comment")?;
    }
    settings::change(&cx.tree, "etc/security/pwquality.conf", FORMAT, settings)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "etc/security/pwquality.conf";

    #[test]
    fn settings_are_changed_or_added_and_comments_stay() {
        let old = "# minlen = 8\nminlen = 8\ndcredit=1\nucredit = 1 = 2\nminlen = 7\n";
        let case = Case::new(&MODULE).file(FILE, old).mode(FILE, 0o600);
        let done = case.run(json!({"config": {"ucredit": -1, "minlen": 9, "dcredit": 0}})).ok();
        let new = "# minlen = 8\nminlen = 9\ndcredit=1\nucredit = 1 = 2\nminlen = 7\nucredit = -1\ndcredit = 0\n";
        assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), (new, 0o600));
        assert!(Case::new(&MODULE).run(json!({"config": {}})).err().contains("No such file"));
    }

    #[test]
    fn a_link_is_replaced_by_a_file() {
        let case = Case::new(&MODULE).file("etc/other", "minlen = 1\n").link(FILE, "/etc/other");
        let done = case.run(json!({"config": {"minlen": 9}})).ok();
        assert_eq!((done.text(FILE).as_str(), done.text("etc/other").as_str()), ("minlen = 9\n", "minlen = 1\n"));
    }
}
