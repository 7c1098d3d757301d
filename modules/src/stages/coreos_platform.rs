//! Adapts a Fedora CoreOS to a platform, such as `qemu` or `aws`.
//!
//! Works on the mounts of the stage, below the root of all of them. Where they have
//! `/usr/share/coreos-assembler/platforms.json` it is copied to `/boot/coreos` and says what the platform needs:
//! commands of GRUB, which go to `/boot/grub2/console.cfg` where its directory is there, and options of the kernel,
//! which are added to all boot entries behind `ignition.platform.id`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.coreos.platform",
//!   "options": { "platform": "qemu" },
//!   "mounts": [{ "name": "root", "type": "org.osbuild.xfs", "source": "disk", "partition": 4, "target": "/" }]
//! }
//! ```

use osbc_module_api::*;
use std::os::unix::fs::PermissionsExt;

use crate::boot::bls;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.coreos.platform",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[r#"{"options": {"platform": 1}}"#, r#"{"options": {"name": "qemu"}}"#, r#"{"mounts": {}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const CONSOLE: &str = "boot/grub2/console.cfg";
const PLATFORMS: &str = "boot/coreos/platforms.json";
const SOURCE: &str = "usr/share/coreos-assembler/platforms.json";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The platform's name; as with osbuild `None` where it is not given.
    #[serde(default = "none")]
    platform: String,
}

fn none() -> String {
    "None".to_owned()
}

/// What `platforms.json` says of a platform.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    grub_commands: Vec<String>,
    kernel_arguments: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { platform } = cx.options()?;
    adapt(&cx.location("mount:///")?.tree, &platform)
}

fn adapt(root: &Tree, name: &str) -> Result<(), Error> {
    let platform = if root.exists(SOURCE)? { read(root, name)? } else { Platform::default() };
    if root.exists("boot/grub2")? {
        let commands = platform.grub_commands.join("\n");
        let (start, end) = ("# CONSOLE-SETTINGS-START", "# CONSOLE-SETTINGS-END");
        let intro = "# Any non-default console settings will be inserted here.";
        root.write(CONSOLE, format!("{intro}\n{start}\n{commands}\n{end}\n"))?;
    }
    let mut options = vec![format!("ignition.platform.id={name}")];
    options.extend(platform.kernel_arguments);
    bls::append_options(root, "/boot", &options)
}

/// Copies the list of platforms to the boot partition and looks one up.
fn read(root: &Tree, name: &str) -> Result<Platform, Error> {
    root.create_dir_all("boot/coreos", 0o755)?;
    let text = root.read(SOURCE)?;
    root.write(PLATFORMS, &text)?;
    root.chmod(PLATFORMS, root.metadata(SOURCE)?.permissions().mode() & 0o7777)?;
    let wrong = |error| Error::failed(format!("{SOURCE} cannot be understood: {error}"));
    let mut platforms: Map<String, Value> = serde_json::from_slice(&text).map_err(wrong)?;
    let platform = platforms.remove(name).map(|value| Platform::deserialize(&value)).transpose();
    Ok(platform.map_err(wrong)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const ENTRY: &str = "boot/loader/entries/a.conf";
    const JSON: &str = r#"{"qemu": {"grub_commands": ["a", "b"], "kernel_arguments": ["c"]}, "other": {}}"#;

    fn adapted(platforms: Option<&str>, name: &str) -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        for path in ["boot/loader/entries", "boot/grub2", "usr/share/coreos-assembler"] {
            tree.create_dir_all(path, 0o755).unwrap();
        }
        tree.write(ENTRY, "options ro\n").unwrap();
        if let Some(text) = platforms {
            tree.write(SOURCE, text).unwrap();
            tree.chmod(SOURCE, 0o600).unwrap();
        }
        adapt(&tree, name).unwrap();
        (directory, tree)
    }

    fn console(commands: &str) -> String {
        format!(
            "# Any non-default console settings will be inserted here.\n# CONSOLE-SETTINGS-START\n{commands}\n\
             # CONSOLE-SETTINGS-END\n"
        )
    }

    #[test]
    fn the_list_says_what_a_platform_needs() {
        let (_directory, tree) = adapted(Some(JSON), "qemu");
        assert_eq!(tree.read_to_string(ENTRY).unwrap(), "options ro ignition.platform.id=qemu c\n");
        assert_eq!(tree.read_to_string(CONSOLE).unwrap(), console("a\nb"));
        assert_eq!(tree.read_to_string(PLATFORMS).unwrap(), JSON);
        assert_eq!(tree.metadata(PLATFORMS).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn without_a_word_on_it_a_platform_is_just_named() {
        for platforms in [Some(JSON), None] {
            let (_directory, tree) = adapted(platforms, "aws");
            assert_eq!(tree.read_to_string(ENTRY).unwrap(), "options ro ignition.platform.id=aws\n");
            assert_eq!(tree.read_to_string(CONSOLE).unwrap(), console(""));
            assert_eq!(tree.exists("boot/coreos").unwrap(), platforms.is_some());
        }
    }

    #[test]
    fn the_stage_works_on_the_root_of_all_mounts() {
        let done = Case::new(&MODULE).run(json!({"platform": "qemu"}));
        assert!(done.err().contains("/run/osbuild/mounts"));
    }
}
