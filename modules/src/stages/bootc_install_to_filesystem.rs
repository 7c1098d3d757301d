//! Installs a bootable container to the mounts.
//!
//! Calls `bootc install to-filesystem` of the build root with the one image of the input `images`. While it runs,
//! `/dev` is the kernel's own, as it may make loop devices. The mounts have to be all that the system boots with: `/`,
//! `/boot`, `/boot/efi`, on one disk.
//!
//! ```json
//! {
//!   "type": "org.osbuild.bootc.install-to-filesystem",
//!   "inputs": {
//!     "images": {
//!       "type": "org.osbuild.containers",
//!       "origin": "org.osbuild.source",
//!       "references": {
//!         "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": { "name": "quay.io/example/os" }
//!       }
//!     }
//!   },
//!   "options": {
//!     "kernel-args": ["console=ttyS0"],
//!     "target-imgref": "quay.io/example/os:latest",
//!     "root-ssh-authorized-keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE admin@example.com"]
//!   },
//!   "devices": { "disk": { "type": "org.osbuild.loopback", "options": { "filename": "disk.raw", "partscan": true } } },
//!   "mounts": [{ "name": "root", "type": "org.osbuild.ext4", "source": "disk", "partition": 4, "target": "/" }]
//! }
//! ```

use std::io::Write;
use std::path::Path;

use osbc_module_api::location::MOUNTS;
use osbc_module_api::*;
use tempfile::NamedTempFile;

use crate::containers::container_image::Image;
use crate::trees::kernel_devices::KernelDevices;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.bootc.install-to-filesystem",
    revision: 1,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[Requirement::Tool("bootc")],
    schema: || Schema::stage::<Options>().inputs(&["images"]).any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {}, "inputs": {}}"#,
        r#"{"options": {}, "inputs": {"images": {}, "manifest-lists": {}}}"#,
        r#"{"options": {"kernel-args": "quiet"}, "inputs": {"images": {}}}"#,
        r#"{"options": {"root-ssh-authorized-keys": [1]}, "inputs": {"images": {}}}"#,
        r#"{"options": {"bootloader": "lilo"}, "inputs": {"images": {}}}"#,
        r#"{"options": {"composefs": "yes"}, "inputs": {"images": {}}}"#,
        r#"{"options": {"other": 1}, "inputs": {"images": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// Keys by which root may log in
    #[serde(default)]
    root_ssh_authorized_keys: Vec<String>,
    /// More arguments of the kernel
    #[serde(default)]
    kernel_args: Vec<String>,
    /// Where updates come from
    #[serde(default)]
    target_imgref: String,
    /// The name of the stateroot
    #[serde(default)]
    stateroot: String,
    /// How the kernel finds the root: by its UUID unless given, by nothing if empty
    root_mount_spec: Option<String>,
    /// How `/boot` is found: by its UUID unless given, by nothing if empty
    boot_mount_spec: Option<String>,
    /// Whether bootupd does not learn the UUID of `/boot`
    #[serde(default)]
    bootupd_skip_boot_uuid: bool,
    /// The boot loader
    bootloader: Option<BootLoader>,
    /// Whether composefs holds the system, not OSTree
    #[serde(default)]
    composefs: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BootLoader {
    Grub,
    Systemd,
    None,
}

impl BootLoader {
    fn name(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::Systemd => "systemd",
            Self::None => "none",
        }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let images = Image::of_inputs(cx)?;
    let [image] = images.as_slice() else {
        let count = images.len();
        return Err(Error::failed(format!("the input `images` must have exactly one image, but has {count}")));
    };
    let tool = cx.tool("bootc")?;
    let source = image.open()?;
    let keys = keys(&options.root_ssh_authorized_keys)?;
    let arguments = arguments(&options, &source.reference, keys.as_ref().map(NamedTempFile::path));
    let _devices = KernelDevices::mount()?;
    // Else it refuses to work where the kernel has no SELinux and the image wants it.
    tool.env("BOOTC_SKIP_SELINUX_HOST_CHECK", "true").args(arguments).arg(MOUNTS).run()
}

/// A file of the keys, if there are any.
fn keys(keys: &[String]) -> Result<Option<NamedTempFile>, Error> {
    if keys.is_empty() {
        return Ok(None);
    }
    let mut file = NamedTempFile::new().map_err(Error::io("create a file in", std::env::temp_dir()))?;
    let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
    file.write_all(lines.as_bytes()).map_err(Error::io("write", file.path()))?;
    Ok(Some(file))
}

fn arguments(options: &Options, source: &str, keys: Option<&Path>) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["install", "to-filesystem", "--source-imgref", source, "--skip-fetch-check", "--generic-image"]
            .map(str::to_owned)
            .into();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    if let Some(keys) = keys {
        add(&["--root-ssh-authorized-keys", &keys.display().to_string()]);
    }
    options.kernel_args.iter().for_each(|argument| add(&["--karg", argument]));
    for (name, value) in [("--target-imgref", &options.target_imgref), ("--stateroot", &options.stateroot)] {
        if !value.is_empty() {
            add(&[name, value]);
        }
    }
    for (name, value) in
        [("--root-mount-spec", &options.root_mount_spec), ("--boot-mount-spec", &options.boot_mount_spec)]
    {
        match value.as_deref() {
            None => {}
            Some("") => add(&[&format!("{name}=")]),
            Some(value) => add(&[name, value]),
        }
    }
    if options.bootupd_skip_boot_uuid {
        add(&["--bootupd-skip-boot-uuid"]);
    }
    if let Some(loader) = options.bootloader {
        add(&["--bootloader", loader.name()]);
    }
    if options.composefs {
        add(&["--composefs-backend"]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn said(options: Value, keys: Option<&Path>) -> String {
        arguments(&Options::deserialize(options).unwrap(), "dir:/image", keys).join(" ")
    }

    const START: &str = "install to-filesystem --source-imgref dir:/image --skip-fetch-check --generic-image";

    #[test]
    fn only_what_is_given_is_said() {
        assert_eq!(said(json!({}), None), START);
        let off = json!({"target-imgref": "", "kernel-args": [], "composefs": false, "bootupd-skip-boot-uuid": false});
        assert_eq!(said(off, None), START);
        let empty = json!({"root-mount-spec": "", "boot-mount-spec": ""});
        assert_eq!(said(empty, None), format!("{START} --root-mount-spec= --boot-mount-spec="));
    }

    #[test]
    fn all_options_reach_the_tool() {
        let options = json!({
            "kernel-args": ["a", "b=c"], "target-imgref": "t", "stateroot": "s", "root-mount-spec": "LABEL=r",
            "boot-mount-spec": "LABEL=b", "bootupd-skip-boot-uuid": true, "bootloader": "systemd", "composefs": true,
        });
        let rest = "--root-ssh-authorized-keys /keys --karg a --karg b=c --target-imgref t --stateroot s \
                    --root-mount-spec LABEL=r --boot-mount-spec LABEL=b --bootupd-skip-boot-uuid --bootloader systemd \
                    --composefs-backend";
        assert_eq!(said(options, Some(Path::new("/keys"))), format!("{START} {rest}"));
    }

    #[test]
    fn keys_are_lines_of_a_file() {
        assert!(keys(&[]).unwrap().is_none());
        let file = keys(&["one".to_owned(), "two".to_owned()]).unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn one_image_and_the_tool_are_wanted() {
        let case = Case::new(&MODULE).input("images", json!({"archives": {}}), |_| {});
        let error = case.run(json!({})).err();
        assert_eq!(error, "the input `images` must have exactly one image, but has 0");
        if !Path::new("/usr/bin/bootc").exists() {
            let image = json!({"archives": {"a": {"format": "oci-archive", "name": "a"}}});
            let error = Case::new(&MODULE).input("images", image, |_| {}).run(json!({})).err();
            assert_eq!(error, "the tool `bootc` is not in the build root; install the package `bootc` there");
        }
    }
}
