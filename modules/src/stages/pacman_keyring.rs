//! Initializes pacman's keyring.
//!
//! The tree's own `pacman-key` makes the keyring and fills it with the keys of `keyrings`, in a chroot of the tree.
//!
//! ```json
//! { "type": "org.osbuild.pacman-keyring", "options": { "keyrings": ["archlinux", "archlinuxarm"] } }
//! ```

use osbc_module_api::*;

use crate::trees::chroot::Program;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pacman-keyring",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"keyrings": "archlinux"}}"#, r#"{"options": {"keyrings": [], "other": 1}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The keyrings, by the names of their files in `/usr/share/pacman/keyrings`
    #[serde(default = "usual")]
    keyrings: Vec<Value>,
}

fn usual() -> Vec<Value> {
    vec![json!("archlinux")]
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { keyrings } = cx.options()?;
    let name = |keyring: &Value| match keyring {
        Value::String(name) => Ok(name.clone()),
        other => Err(Error::failed(format!("a keyring is to be named by a text, not by {other}"))),
    };
    let names: Vec<String> = keyrings.iter().map(name).collect::<Result<_, _>>()?;
    Program::find(&cx.tree, "pacman-key")?.arg("--init").run()?;
    Program::find(&cx.tree, "pacman-key")?.arg("--populate").args(names).run()
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    #[test]
    fn the_keyring_is_made_and_filled() {
        for (options, names) in [(json!({}), "archlinux"), (json!({"keyrings": ["a", "b"]}), "a b")] {
            let Some(case) = with_script(&MODULE, "usr/bin/pacman-key", "echo \"$@\" >>/etc/said") else { return };
            assert_eq!(case.run(options).ok().text("etc/said"), format!("--init\n--populate {names}\n"));
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_before_anything_is() {
        let error = Case::new(&MODULE).run(json!({"keyrings": [1]})).err();
        assert_eq!(error, "a keyring is to be named by a text, not by 1");
        let error = Case::new(&MODULE).run(json!({})).err();
        assert_eq!(error, "the tool `pacman-key` is not in the tree; install the package `pacman` there");
    }
}
