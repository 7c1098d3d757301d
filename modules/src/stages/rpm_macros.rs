//! Sets macros of RPM.
//!
//! Writes a file of macros, in the manifest's order. Its directory is made.
//!
//! ```json
//! {
//!   "type": "org.osbuild.rpm.macros",
//!   "options": {
//!     "filename": "/etc/rpm/macros.image-language-conf",
//!     "macros": { "_install_langs": ["de", "en_US"], "_dbpath": "/usr/share/rpm" }
//!   }
//! }
//! ```

use std::path::Path;

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::InOrder;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.rpm.macros",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "/etc/rpm/macros"}}"#,
        r#"{"options": {"filename": "/etc/rpm/macros", "macros": {}}}"#,
        r#"{"options": {"filename": "/etc/rpm/macros", "macros": {"_other": "a"}}}"#,
        r#"{"options": {"filename": "/etc/rpm/macros", "macros": {"_install_langs": []}}}"#,
        r#"{"options": {"filename": "/etc/rpm/macros", "macros": {"_install_langs": ["a", "a"]}}}"#,
        r#"{"options": {"filename": "/etc/rpm/macros", "macros": {"_dbpath": 1}}}"#,
        r#"{"options": {"macros": {"_dbpath": "/a"}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file
    filename: String,
    /// The macros, by name
    macros: InOrder<Macros>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct Macros {
    /// The locales whose files are installed
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    _install_langs: Option<Vec<String>>,
    /// Where the database of packages lies
    _dbpath: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, macros } = cx.options()?;
    let value = |value: &Value| match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(":"),
        value => value.as_str().unwrap_or_default().to_owned(),
    };
    if let Some((name, _)) = macros.entries.iter().find(|(_, own)| value(own).ends_with('\\')) {
        let reason = "ends with a `\\`, which takes the next line for more of it";
        return Err(Error::failed(format!("the option `macros.{name}` {reason}; leave it out")));
    }
    let lines: String = macros.entries.iter().map(|(name, own)| format!("%{name} {}\n", value(own))).collect();
    if let Some(directory) = Path::new(&filename).parent() {
        cx.tree.create_dir_all(directory, 0o777)?;
    }
    cx.tree.write(filename, lines)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn macros_keep_their_order_and_lists_are_joined() {
        let macros = json!({"_install_langs": ["de", "en_US"], "_dbpath": "/db"});
        let done = Case::new(&MODULE).run(json!({"filename": "/etc/rpm/macros.a", "macros": macros})).ok();
        assert_eq!(done.text("etc/rpm/macros.a"), "%_install_langs de:en_US\n%_dbpath /db\n");
        let macros = json!({"_dbpath": "/db", "_install_langs": ["de"]});
        let done = Case::new(&MODULE).run(json!({"filename": "macros", "macros": macros})).ok();
        assert_eq!(done.text("macros"), "%_dbpath /db\n%_install_langs de\n");
    }
}
