//! Installs the boot loader by bootupd.
//!
//! `bootupctl` of the system that is mounted, or of its OSTree `deployment`, puts GRUB on the mounts for UEFI, and with
//! `bios` to a device for BIOS. It runs in a chroot of that system, which sees `/dev`, `/sys`, `/run`, `/var` and
//! `/tmp` of the build, and has the rights of the stage, since it finds and mounts partitions; the mounts are in there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.bootupd",
//!   "options": { "deployment": { "default": true }, "static-configs": true, "bios": { "device": "disk" } },
//!   "devices": { "disk": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img", "partscan": true } } },
//!   "mounts": [{ "name": "root", "type": "org.osbuild.ext4", "source": "disk", "partition": 4, "target": "/" }]
//! }
//! ```

use std::path::Path;

use osbc_module_api::location::MOUNTS;
use osbc_module_api::*;

use crate::disks::partition_table::Report;
use crate::ostrees::ostree::Deployment;
use crate::trees::chroot::Program;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.bootupd",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("sfdisk"), Requirement::TreePrograms],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"deployment": {"osname": "a"}}}"#,
        r#"{"options": {"deployment": {"default": true, "serial": 1}}}"#,
        r#"{"options": {"static-configs": "yes"}}"#,
        r#"{"options": {"bios": {}}}"#,
        r#"{"options": {"bios": {"device": "disk", "partition": "1"}}}"#,
        r#"{"options": {"bios": {"device": "disk", "number": 1}}}"#,
        r#"{"options": {"uefi": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| install(cx, &Tree::open(MOUNTS)?)),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The deployment whose `bootupctl` is run
    deployment: Option<Deployment>,
    /// Whether Fedora CoreOS' configuration of GRUB is installed too
    #[serde(default)]
    static_configs: bool,
    /// Where GRUB goes for BIOS
    bios: Option<Bios>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Bios {
    /// The stage's device
    device: String,
    /// The partition on it, counted from 1; the device itself unless given
    #[schemars(with = "Option<f64>")]
    partition: Option<usize>,
}

/// What the program sees of the build.
const SHARED: &[&str] = &["dev", "sys", "run", "var", "tmp"];

fn install(cx: &StageContext, mounts: &Tree) -> Result<(), Error> {
    let Options { deployment, static_configs, bios } = cx.options()?;
    let root = match deployment {
        Some(deployment) => mounts.subtree(deployment.path(mounts)?)?,
        None => mounts.try_clone()?,
    };
    let mut program = Program::find(&root, "/usr/bin/bootupctl")?.shares(SHARED).args(["backend", "install"]);
    if let Some(Bios { device, partition }) = bios.filter(|bios| !bios.device.is_empty()) {
        let disk = cx.device(&device)?.path.display().to_string();
        let target = match partition.filter(|number| *number != 0) {
            Some(number) => partition_of(cx, &disk, number)?,
            None => disk,
        };
        program = program.arg(format!("--device={target}"));
    }
    if static_configs {
        program = program.arg("--with-static-configs");
    }
    program.arg(MOUNTS).run()
}

/// The node of a partition, counted from 1.
fn partition_of(cx: &StageContext, disk: &str, number: usize) -> Result<String, Error> {
    let table = Report::of(cx.tool("sfdisk")?, Path::new(disk))?;
    let partition = table.partitions.into_iter().nth(number - 1);
    partition.map(|partition| partition.node).ok_or_else(|| Error::failed(format!("{disk} has no partition {number}")))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::trees::chroot::testing::with_script;

    /// The stage with the tree in the place of the mounts.
    static HERE: ModuleDef = ModuleDef { entry: Entry::Stage(|cx| install(cx, &cx.tree)), ..MODULE };

    fn case(script: &str) -> Option<Case> {
        let case = with_script(&HERE, "usr/bin/bootupctl", script)?;
        Some(SHARED.iter().fold(case.dir("proc"), |case, directory| case.dir(directory)))
    }

    #[test]
    fn the_systems_program_sees_the_build() {
        let outside = tempfile::Builder::new().tempfile_in("/tmp").unwrap();
        let script = format!(
            "echo \"$@\" >/etc/said; busybox ls {} /dev/null /proc/self/exe >>/etc/said",
            outside.path().display()
        );
        let Some(case) = case(&script) else { return };
        let done = case.device("disk", "/dev/null", json!({})).run(json!({
            "static-configs": true, "bios": {"device": "disk", "partition": 0},
        }));
        let said = done.ok().text("etc/said");
        let seen = format!("/dev/null\n/proc/self/exe\n{}\n", outside.path().display());
        let arguments = "backend install --device=/dev/null --with-static-configs /run/osbuild/mounts\n";
        assert_eq!(said, format!("{arguments}{seen}"));
    }

    #[test]
    fn a_partition_is_named_by_its_node() {
        let Some(case) = case("echo \"$@\" >/etc/said") else { return };
        if !has_tool("sfdisk") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        File::create(&disk).unwrap().set_len(16 << 20).unwrap();
        let mut sfdisk = Command::new("sfdisk").arg("-q").arg(&disk).stdin(Stdio::piped()).spawn().unwrap();
        sfdisk.stdin.take().unwrap().write_all(b"label: gpt\nsize=2MiB\nsize=4MiB\n").unwrap();
        assert!(sfdisk.wait().unwrap().success());
        let done = case.device("disk", &disk, json!({})).run(json!({"bios": {"device": "disk", "partition": 2}}));
        let said = done.ok().text("etc/said");
        assert_eq!(said, format!("backend install --device={}2 /run/osbuild/mounts\n", disk.display()));
        let case = self::case("exit 0").unwrap().device("disk", &disk, json!({}));
        let error = case.run(json!({"bios": {"device": "disk", "partition": 3}})).err();
        assert!(error.ends_with("has no partition 3"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Case::new(&HERE).run(json!({})).err();
        assert_eq!(error, "the tool `bootupctl` is not in the tree; install the package `bootupd` there");
        let error = Case::new(&HERE).run(json!({"deployment": {"default": true}})).err();
        assert_eq!(error, "the tree has no OSTree deployment");
        let Some(case) = case("exit 0") else { return };
        let error = case.run(json!({"bios": {"device": "disk"}})).err();
        assert_eq!(error, "the stage needs a device called `disk`");
    }
}
