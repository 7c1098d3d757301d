//! Writes a file of commands that GRUB 2 reads besides its own, such as `console.cfg`.
//!
//! The file is written anew, with the directories above it: `serial`, then the terminals.
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2.d",
//!   "options": {
//!     "path": "tree:///boot/grub2/console.cfg",
//!     "config": { "serial": "serial --speed=115200", "terminal_output": ["serial", "console"] }
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.grub2.d",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"path": "tree:///a"}}"#,
        r#"{"options": {"path": "tree:///a", "config": {}}}"#,
        r#"{"options": {"path": "/a", "config": {"serial": "x"}}}"#,
        r#"{"options": {"path": "mount:///a", "config": {"serial": "x"}}}"#,
        r#"{"options": {"path": "tree:///a", "config": {"timeout": 1}}}"#,
        r#"{"options": {"path": "tree:///a", "config": {"terminal_input": "x"}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file: `tree:///path` or `mount://NAME/path`.
    #[schemars(extend("oneOf" = [{"pattern": "^mount://[^/]+/"}, {"pattern": "^tree:///"}]))]
    path: String,
    /// The commands.
    config: Config,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct Config {
    /// Terminals for input.
    #[serde(default)]
    terminal_input: Vec<String>,
    /// Terminals for output.
    #[serde(default)]
    terminal_output: Vec<String>,
    /// The command that sets up the serial console.
    #[serde(default)]
    serial: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { path, config: Config { terminal_input, terminal_output, serial } } = cx.options()?;
    let Location { tree, path, .. } = cx.location(&path)?;
    let terminals = |command: &str, terminals: &[String]| {
        if terminals.is_empty() { String::new() } else { format!("{command} {}\n", terminals.join(" ")) }
    };
    let mut commands = if serial.is_empty() { String::new() } else { format!("{serial}\n") };
    commands += &terminals("terminal_input", &terminal_input);
    commands += &terminals("terminal_output", &terminal_output);
    if let Some(directory) = path.parent() {
        tree.create_dir_all(directory, 0o777)?;
    }
    tree.write(&path, commands)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn commands_stand_in_one_order() {
        let config = json!({"terminal_output": ["a", "b"], "serial": "serial x", "terminal_input": ["c"]});
        let done = Case::new(&MODULE).run(json!({"path": "tree:///boot/grub2/x.cfg", "config": config})).ok();
        assert_eq!(done.text("boot/grub2/x.cfg"), "serial x\nterminal_input c\nterminal_output a b\n");
        let done = Case::new(&MODULE).run(json!({"path": "tree:///x", "config": {"serial": ""}})).ok();
        assert_eq!(done.text("x"), "");
    }

    #[test]
    fn the_file_may_be_in_a_mount() {
        let case = Case::new(&MODULE).mount("boot", |_| ());
        let done = case.run(json!({"path": "mount://boot/a/x", "config": {"serial": "s"}})).ok();
        assert_eq!(done.mount("boot").read_to_string("a/x").unwrap(), "s\n");
    }
}
