//! Configures the Anaconda installer.
//!
//! Writes `/etc/anaconda/conf.d/90-osbuild.conf` with a list for each option, in the manifest's order. Options that are
//! not named here are written in the same way.
//!
//! ```json
//! {
//!   "type": "org.osbuild.anaconda",
//!   "options": { "activatable-modules": ["org.fedoraproject.Anaconda.Modules.Network"] }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::python;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.anaconda",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"kickstart-modules": []}}"#,
        r#"{"options": {"optional-modules": "a"}}"#,
        r#"{"options": {"forbidden-modules": [1]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const DIRECTORY: &str = "etc/anaconda/conf.d";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "the options are written as they come")]
struct Options {
    /// Kickstart modules to enable.
    #[schemars(length(min = 1))]
    kickstart_modules: Option<Vec<String>>,
    /// Kickstart modules to activate.
    #[schemars(length(min = 1))]
    activatable_modules: Option<Vec<String>>,
    /// Kickstart modules to forbid.
    #[schemars(length(min = 1))]
    forbidden_modules: Option<Vec<String>>,
    /// Kickstart modules to activate that may fail.
    #[schemars(length(min = 1))]
    optional_modules: Option<Vec<String>>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let options: InOrder<Options> = cx.options()?;
    let mut text = "\n# osbuild customizations\n\n[Anaconda]\n".to_owned();
    for (name, value) in &options.entries {
        let Value::Array(items) = value else { return Err(Error::failed(format!("`{name}` is to be a list"))) };
        text += &format!("{}=\n", name.replace('-', "_"));
        for item in items {
            let item = python::scalar(item)?;
            one_line::refuse(name, one_line::word(name, &item)?, |c| matches!(c, '#' | ';'), "what begins a comment")?;
            text += &format!("    {item}\n");
        }
    }
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    cx.tree.write(format!("{DIRECTORY}/90-osbuild.conf"), text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const FILE: &str = "etc/anaconda/conf.d/90-osbuild.conf";

    #[test]
    fn lists_are_written_in_the_manifests_order() {
        let options = json!({"optional-modules": ["a", "b"], "kickstart-modules": ["c"], "other-thing": ["d"]});
        let done = Case::new(&MODULE).run(options).ok();
        let lists = "optional_modules=\n    a\n    b\nkickstart_modules=\n    c\nother_thing=\n    d\n";
        assert_eq!(done.text(FILE), format!("\n# osbuild customizations\n\n[Anaconda]\n{lists}"));
        assert_eq!(done.mode(FILE), 0o644);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(Case::new(&MODULE).run(json!({"other": 1})).err(), "`other` is to be a list");
    }
}
