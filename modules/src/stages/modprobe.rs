//! Configures modprobe by a file below `/usr/lib/modprobe.d`.
//!
//! The file has a line for each command, in order, anew where it is there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.modprobe",
//!   "options": {
//!     "filename": "image.conf",
//!     "commands": [
//!       { "command": "blacklist", "modulename": "nouveau" },
//!       { "command": "install", "modulename": "usb-storage", "cmdline": "/bin/true" }
//!     ]
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.modprobe",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a", "commands": []}}"#,
        r#"{"options": {"filename": "a.conf", "commands": {}}}"#,
        r#"{"options": {"filename": "a.conf", "commands": [{"command": "blacklist"}]}}"#,
        r#"{"options": {"filename": "a.conf", "commands": [{"command": "blacklist", "modulename": ""}]}}"#,
        r#"{"options": {"filename": "a.conf", "commands": [{"command": "install", "modulename": "a"}]}}"#,
        r#"{"options": {"filename": "a.conf", "commands": [{"command": "blacklist", "modulename": "a", "cmdline": "b"}]}}"#,
        r#"{"options": {"filename": "a.conf", "commands": [{"command": "alias", "modulename": "a"}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const DIRECTORY: &str = "usr/lib/modprobe.d";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file's name.
    #[schemars(regex(pattern = r"^[\w.-]{1,250}\.conf$"))]
    filename: String,
    /// The commands.
    commands: Vec<Command>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Command {
    /// Does not load a module by its aliases.
    Blacklist {
        /// The module.
        #[schemars(length(min = 1))]
        modulename: String,
    },
    /// Runs a command instead of loading a module.
    Install {
        /// The module.
        #[schemars(length(min = 1))]
        modulename: String,
        /// The command.
        #[schemars(length(min = 1))]
        cmdline: String,
    },
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, commands } = cx.options()?;
    let lines = commands.iter().map(line).collect::<Result<String, _>>()?;
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    cx.tree.write(format!("{DIRECTORY}/{filename}"), lines)
}

fn line(command: &Command) -> Result<String, Error> {
    let word = |modulename| one_line::word("commands.modulename", modulename);
    Ok(match command {
        Command::Blacklist { modulename } => format!("blacklist {}\n", word(modulename)?),
        Command::Install { cmdline, .. } if cmdline.ends_with('\\') => {
            let reason = "ends with a `\\`, which takes the next line for more of it";
            return Err(Error::failed(format!("the option `commands.cmdline` {reason}: {cmdline:?}")));
        }
        Command::Install { modulename, cmdline } => format!("install {} {cmdline}\n", word(modulename)?),
    })
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_command_has_a_line() {
        let commands = json!([
            {"command": "install", "modulename": "a", "cmdline": "/bin/true x"},
            {"command": "blacklist", "modulename": "b"},
        ]);
        let done = Case::new(&MODULE).run(json!({"filename": "x.conf", "commands": commands})).ok();
        assert_eq!(done.text("usr/lib/modprobe.d/x.conf"), "install a /bin/true x\nblacklist b\n");
        let done = Case::new(&MODULE).file("usr/lib/modprobe.d/x.conf", "old").run(json!({
            "filename": "x.conf", "commands": [],
        }));
        assert_eq!(done.ok().text("usr/lib/modprobe.d/x.conf"), "");
    }

    #[test]
    fn what_takes_or_adds_a_line_is_refused() {
        let refused = |command: Value| {
            let done = Case::new(&MODULE).run(json!({"filename": "a.conf", "commands": [command]}));
            done.err().to_owned()
        };
        let error = refused(json!({"command": "blacklist", "modulename": "a b"}));
        assert!(error.contains("`commands.modulename` has a blank"), "{error}");
        let error = refused(json!({"command": "install", "modulename": "a", "cmdline": "/bin/true \\"}));
        assert!(error.contains("`commands.cmdline` ends with"), "{error}");
        let error = refused(json!({"command": "install", "modulename": "a", "cmdline": "/bin/true\ninstall b c"}));
        assert!(error.contains("`commands[0].cmdline` has a line break"), "{error}");
    }
}
