//! Says which desktop a live system starts.
//!
//! Writes `/etc/sysconfig/livesys`, whose directory must be there; root owns the file.
//!
//! ```json
//! { "type": "org.osbuild.livesys", "options": { "livesys_session": "gnome" } }
//! ```

use crate::texts::one_line;
use crate::texts::shell;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.livesys",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"livesys_session": 1}}"#,
        r#"{"options": {"livesys_session": "gnome", "user": "a"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/sysconfig/livesys";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The desktop.
    livesys_session: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { livesys_session } = cx.options()?;
    cx.tree.write(FILE, format!("\nlivesys_session={}\n", shell::quoted(&livesys_session)))?;
    cx.tree.chown(FILE, Some(0), Some(0))?;
    cx.tree.chmod(FILE, 0o644)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_directory_must_be_there() {
        let done = Case::new(&MODULE).run(json!({"livesys_session": "kde"}));
        assert!(done.err().starts_with("cannot write /etc/sysconfig/livesys"));
    }

    #[test]
    fn the_file_is_roots() {
        if !osbc_fixtures::has_root() {
            return;
        }
        let case = Case::new(&MODULE).file(FILE, "a much longer text than before").mode(FILE, 0o600);
        case.tree().chown(FILE, Some(1), Some(2)).unwrap();
        let done = case.run(json!({"livesys_session": "kde"})).ok();
        assert_eq!(done.text(FILE), "\nlivesys_session=\"kde\"\n");
        assert_eq!((done.owner(FILE), done.mode(FILE)), ((0, 0), 0o644));
    }
}
