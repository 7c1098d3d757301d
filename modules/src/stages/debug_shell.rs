//! Starts a root shell early in the boot on a terminal, for debugging.
//!
//! Creates the unit `osbuild-debug-shell.service` and enables it in `sysinit.target.wants` below `/etc/systemd/system`, which
//! must be there.
//!
//! ```json
//! { "type": "org.osbuild.debug-shell", "options": { "tty": "/dev/ttyS0" } }
//! ```

use crate::texts::systemd_unit;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.debug-shell",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {}}"#, r#"{"options": {"tty": 1}}"#, r#"{"options": {"tty": "/dev/tty1", "user": "a"}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const UNIT: &str = "etc/systemd/system/osbuild-debug-shell.service";
const LINK: &str = "etc/systemd/system/sysinit.target.wants/osbuild-debug-shell.service";

/// Settings of the locale, which consoles have trouble with.
const LOCALE: [&str; 14] = [
    "LANG",
    "LANGUAGE",
    "LC_CTYPE",
    "LC_NUMERIC",
    "LC_TIME",
    "LC_COLLATE",
    "LC_MONETARY",
    "LC_MESSAGES",
    "LC_PAPER",
    "LC_NAME",
    "LC_ADDRESS",
    "LC_TELEPHONE",
    "LC_MEASUREMENT",
    "LC_IDENTIFICATION",
];

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The terminal's device, as an absolute path.
    tty: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { tty } = cx.options()?;
    cx.tree.write(UNIT, unit(systemd_unit::setting("tty", &tty)?))?;
    cx.tree.symlink("../osbuild-debug-shell.service", LINK)
}

fn unit(tty: &str) -> String {
    let locale = LOCALE.join(" ");
    format!(
        "
[Unit]
Description=Early root shell on {tty} FOR DEBUGGING ONLY
DefaultDependencies=no
IgnoreOnIsolate=yes
ConditionPathExists={tty}

[Service]
Environment=TERM=linux
ExecStart=/bin/sh
Restart=always
RestartSec=0
StandardInput=tty
TTYPath={tty}
TTYReset=yes
TTYVHangup=yes
KillMode=process
IgnoreSIGPIPE=no
# bash ignores SIGTERM
KillSignal=SIGHUP

# Unset locale for the console getty since the console has problems
# displaying some internationalized messages.
UnsetEnvironment={locale}
"
    )
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE).dir("etc/systemd/system/sysinit.target.wants")
    }

    #[test]
    fn the_unit_is_enabled() {
        let done = case().run(json!({"tty": "/dev/ttyS1"})).ok();
        assert_eq!(done.text(UNIT).matches("/dev/ttyS1\n").count(), 2);
        assert_eq!(done.link(LINK), "../osbuild-debug-shell.service");
    }

    #[test]
    fn a_unit_that_is_enabled_already_is_an_error() {
        let done = case().file(LINK, "").run(json!({"tty": "/dev/ttyS1"}));
        assert!(done.err().starts_with("cannot create the link"));
    }
}
