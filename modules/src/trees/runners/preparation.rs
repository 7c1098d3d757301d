//! What osbuild's runners make in a build root before a stage runs in it: the cache of libraries, users, directories,
//! the absence of a file.
//!
//! A built-in runner does it once, in a sandbox of its own, and its result is what every stage in that build root
//! finds.
//!
//! What a build root has no tool for is left out: stages that need none can run in it all the same.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::LazyLock;

use osbc_module_api::snapshot::Snapshot;
use osbc_module_api::{Deserialize, Entry, Error, Kind, ModuleDef, Schema, StageContext, Tool, json};

use super::BUILT_IN;

/// The file systems that a runner can write to: the root and what is a file system of its own there.
const PLACES: [&str; 2] = ["", "var"];
/// What is in there and is the stage's own.
const OF_THE_STAGE: [&str; 2] = ["dev", "run/osbuild"];

/// One thing that a runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The cache of libraries, with these directories besides the usual ones.
    Libraries(&'static [&'static str]),
    /// Users and groups that the build root's packages declare.
    Users,
    /// An id of the machine, where there is none.
    MachineId,
    /// Files and directories that the build root's packages declare.
    Files,
    /// No configuration of name services, whose modules need running services.
    NoNameServices,
    /// The default cryptographic policy.
    CryptoPolicy,
    /// `python3` where only a versioned one is there.
    Python,
    /// A user root.
    Root,
}

/// osbuild's family of runners with everything.
const FULL: &[Step] =
    &[Step::Libraries(&[]), Step::Users, Step::MachineId, Step::Files, Step::NoNameServices, Step::CryptoPolicy];

/// What a runner does.
pub(crate) fn steps(runner: &str) -> &'static [Step] {
    match runner.strip_prefix("org.osbuild.").unwrap_or(runner) {
        "arch" | "linux" => &[Step::Root],
        "debian" | "ubuntu1804" => &[Step::Libraries(&[]), Step::Users, Step::Files, Step::NoNameServices],
        "rhel7" => &[Step::Libraries(&["/usr/lib64/iscsi"]), Step::NoNameServices],
        "fedora30" | "asahi-fedora-remix" => {
            &[Step::Libraries(&[]), Step::Users, Step::MachineId, Step::Files, Step::NoNameServices]
        }
        "rhel81" => {
            &[Step::Libraries(&[]), Step::Users, Step::MachineId, Step::Files, Step::NoNameServices, Step::Python]
        }
        "almalinux8" | "centos8" | "rhel82" | "rhivos" => &[
            Step::Libraries(&[]),
            Step::Users,
            Step::MachineId,
            Step::Files,
            Step::NoNameServices,
            Step::CryptoPolicy,
            Step::Python,
        ],
        _ => FULL,
    }
}

/// The built-in runner of that name.
pub(crate) fn definition(name: &str) -> Option<&'static ModuleDef> {
    static ALL: LazyLock<Vec<ModuleDef>> = LazyLock::new(|| BUILT_IN.map(runner).into());
    ALL.iter().find(|runner| runner.name == name)
}

fn runner(name: &'static str) -> ModuleDef {
    ModuleDef {
        kind: Kind::Runner,
        name,
        revision: 1,
        capabilities: &[],
        requires: &[],
        schema: || Schema::version_2(json!({})),
        rejects: &[],
        parse: |_| Ok(()),
        entry: Entry::Stage(prepare),
    }
}

/// What a runner gets.
#[derive(Deserialize)]
struct Options {
    /// Its own name.
    runner: String,
}

/// Prepares the build root that it runs in, and gives all that it made as its metadata.
fn prepare(context: &StageContext) -> Result<(), Error> {
    let options: Options = context.options()?;
    for step in steps(&options.runner) {
        run(*step)?;
    }
    let made = Snapshot::take(Path::new("/"), &PLACES, &OF_THE_STAGE)?;
    context.set_metadata(serde_json::to_value(made).map_err(|error| Error::failed(error.to_string()))?);
    Ok(())
}

fn run(step: Step) -> Result<(), Error> {
    match step {
        Step::Libraries(directories) => {
            // Without the file ldconfig complains.
            write(
                "/etc/ld.so.conf",
                &directories.iter().map(|directory| format!("{directory}\n")).collect::<String>(),
            )?;
            tool("ldconfig").map_or(Ok(()), Tool::run)
        }
        Step::Users => tool("systemd-sysusers").map_or(Ok(()), Tool::run),
        Step::MachineId => {
            if Path::new("/etc/machine-id").exists() {
                return Ok(());
            }
            write("/etc/machine-id", "ffffffffffffffffffffffffffffffff\n")?;
            let mode = fs::Permissions::from_mode(0o444);
            fs::set_permissions("/etc/machine-id", mode).map_err(Error::io("set the mode of", "/etc/machine-id"))
        }
        Step::Files => {
            if let Some(tool) = tool("systemd-tmpfiles") {
                // Some packages want files of users that do not exist here; the others are made all the same.
                tool.arg("--create").run().or_else(|error| match error {
                    Error::ToolFailed { .. } => Ok(()),
                    other => Err(other),
                })?;
            }
            Ok(())
        }
        Step::NoNameServices => absent(fs::remove_file("/etc/nsswitch.conf"), "remove", "/etc/nsswitch.conf"),
        Step::CryptoPolicy => {
            let from = Path::new("/usr/share/crypto-policies/back-ends/DEFAULT");
            if from.is_dir() { copy(from, Path::new("/etc/crypto-policies/back-ends")) } else { Ok(()) }
        }
        Step::Python => {
            let directory = "/etc/alternatives";
            fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
            match symlink("/usr/bin/python3.6", "/etc/alternatives/python3") {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result.map_err(Error::io("make", directory)),
            }
        }
        Step::Root if Path::new("/etc/passwd").exists() => Ok(()),
        Step::Root => write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash"),
    }
}

/// A tool, where the build root has it.
fn tool(name: &str) -> Option<Tool> {
    Tool::find(name).ok()
}

fn write(path: &str, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io("write", path))
}

fn absent(result: io::Result<()>, act: &'static str, path: &str) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(act, path)(error)),
        _ => Ok(()),
    }
}

/// Copies a directory, and what links in it lead to.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::io("make", to))?;
    for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
        let name = entry.map_err(Error::io("list", from))?.file_name();
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(Error::io("copy", &from))?;
        }
    }
    Ok(())
}

/// Whether the text of an on-disk runner does exactly what the built-in one of its name does: every line of it is
/// known.
pub(crate) fn is_built_in(name: &str, text: &str) -> bool {
    let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut found = Vec::new();
    let (mut prepared, mut runs) = (false, false);
    for line in code {
        let step = match line {
            "import subprocess" | "import sys" | "from osbuild import api" | "from osbuild.util import runners" => {
                continue;
            }
            "if __name__ == \"__main__\":" => continue,
            "with api.exception_handler():" => {
                prepared = true;
                continue;
            }
            "r = subprocess.run(sys.argv[1:], check=False)"
            | "r = subprocess.run(sys.argv[1:], env=env, check=False)" => {
                runs = true;
                continue;
            }
            "sys.exit(r.returncode)" => continue,
            // It sets a variable for the stage on some machines.
            "env = runners.quirks()" if cfg!(not(target_arch = "aarch64")) => continue,
            "runners.ldconfig()" => Step::Libraries(&[]),
            "runners.ldconfig(\"/usr/lib64/iscsi\")" => Step::Libraries(&["/usr/lib64/iscsi"]),
            "runners.sysusers()" => Step::Users,
            "with runners.create_machine_id_if_needed():" => Step::MachineId,
            "runners.tmpfiles()" => Step::Files,
            "runners.nsswitch()" => Step::NoNameServices,
            "runners.sequoia()" => Step::CryptoPolicy,
            "runners.python_alternatives()" => Step::Python,
            "runners.minimal_passwd()" => Step::Root,
            _ => return false,
        };
        found.push(step);
    }
    prepared && runs && BUILT_IN.contains(&name) && found == steps(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runner as osbuild writes them.
    fn text(steps: &str) -> String {
        format!(
            "#!/usr/bin/python3\n\nimport subprocess\nimport sys\n\nfrom osbuild import api\n\
             from osbuild.util import runners\n\nif __name__ == \"__main__\":\n    with api.exception_handler():\n\
             {steps}\n        r = subprocess.run(sys.argv[1:], check=False)\n\n        sys.exit(r.returncode)\n"
        )
    }

    #[test]
    fn only_a_runner_that_does_the_same_is_a_built_in_one() {
        let debian = "runners.ldconfig()\nrunners.sysusers()\nrunners.tmpfiles()\nrunners.nsswitch()";
        assert!(is_built_in("org.osbuild.debian", &text(debian)));
        assert!(is_built_in("org.osbuild.linux", &text("runners.minimal_passwd()")));
        assert!(!is_built_in("org.osbuild.debian", &text("runners.ldconfig()")), "it does less");
        assert!(!is_built_in("org.osbuild.debian", &text(&format!("{debian}\nos.remove('/etc')"))), "it does more");
        assert!(!is_built_in("org.osbuild.mine", &text(debian)), "there is none of that name");
        assert!(!is_built_in("org.osbuild.linux", "runners.minimal_passwd()\n"), "it runs nothing");
        assert!(!is_built_in("org.osbuild.linux", "#!/bin/sh\nexec \"$@\"\n"));
    }

    #[test]
    fn every_runner_prepares_something() {
        for name in BUILT_IN {
            assert!(!steps(name).is_empty(), "{name}");
            assert_eq!(definition(name).map(|runner| runner.name), Some(name));
        }
        assert!(definition("org.osbuild.none").is_none());
    }
}
