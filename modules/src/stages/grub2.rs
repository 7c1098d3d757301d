//! Configures GRUB 2 for kernels that have boot entries (BLS).
//!
//! Writes `/etc/default/grub`, the environment block `/boot/grub2/grubenv` and `grub.cfg`. With `uefi` the latter lies
//! in the vendor's directory of the EFI partition; together with `legacy` (or `unified`) it lies in `/boot/grub2`, and
//! the EFI partition has one that leads there. `legacy` names a platform of GRUB, or is true for `i386-pc`, whose
//! modules come from the build root, as the EFI programs do with `install`.
//!
//! Without `"compat_version": 2` the `grub.cfg` keeps placeholders such as `${serial}` for settings that are not made,
//! which GRUB takes for empty variables.
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2",
//!   "options": {
//!     "compat_version": 2,
//!     "rootfs": { "uuid": "9c6ae55b-cf88-45b8-84e8-64990759f39d" },
//!     "kernel_opts": "ro console=ttyS0",
//!     "config": { "timeout": 5, "terminal_output": ["console"] }
//!   }
//! }
//! ```

use osbc_module_api::*;
use std::borrow::Cow;

use osbc_ir::Number;
use schemars::{SchemaGenerator, json_schema};
use serde::Deserializer;
use serde::de::Error as _;

use crate::boot::grub::{self, FileSystem, Uuid};
use crate::boot::grub_script;
use crate::texts::one_line;
use crate::texts::shell;
use crate::texts::template;
use crate::trees::build_root;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.grub2",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Named(files)],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"rootfs": {}}}"#,
        r#"{"options": {"rootfs": {"uuid": "x"}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "root_fs_uuid": "6699-AFB5"}}"#,
        r#"{"options": {"rootfs": {"label": "a", "uuid": "6699-AFB5"}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "compat_version": 3}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "legacy": 1}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {"vendor": ""}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "config": {"timeout": -1}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "config": {"timeout_style": "fast"}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "config": {"x": 1}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &build_root::here()?)),
};

/// The main file, as far as it is always the same.
const MAIN: &str = r#"
set timeout=${timeout}

# load the grubenv file
load_env

# selection of the next boot entry via variables 'next_entry' and
# `saved_entry` present in the 'grubenv' file. Both variables are
# set by grub tools, like grub2-reboot, grub2-set-default

if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi

search --no-floppy --set=root $search
set boot=$${root}
function load_video {
  insmod all_video
}
${features}${serial}${terminal_input}${terminal_output}
blscfg
"#;

/// The file that leads to the main one.
const REDIRECT: &str = "
search --no-floppy --set prefix --file ${root}grub2/grub.cfg
set prefix=($$prefix)${root}grub2
configfile $$prefix/grub.cfg
";

/// What lets Ignition run on the first boot; as Fedora CoreOS has it.
const IGNITION: &str = r#"
# Ignition support
set ignition_firstboot=""
if [ -f "${root}ignition.firstboot" ]; then
    # Default networking parameters to be used with ignition.
    set ignition_network_kcmdline=''

    # Source in the `ignition.firstboot` file which could override the
    # above $ignition_network_kcmdline with static networking config.
    # This override feature is primarily used by coreos-installer to
    # persist static networking config provided during install to the
    # first boot of the machine.
    source "${root}ignition.firstboot"

    set ignition_firstboot="ignition.firstboot $${ignition_network_kcmdline}"
fi
"#;

/// What counts boots that did not succeed.
const GREENBOOT: &str = r#"
# greenboot support, aka boot counter and boot success reporting
insmod increment
# Check if boot_counter exists and boot_success=0 to activate this behaviour.
if [ -n "${boot_counter}" -a "${boot_success}" = "0" ]; then
  # if countdown has ended, choose to boot rollback deployment,
  # i.e. default=1 on OSTree-based systems.
  if  [ "${boot_counter}" = "0" -o "${boot_counter}" = "-1" ]; then
    set default=1
    set boot_counter=-1
  # otherwise decrement boot_counter
  else
    decrement boot_counter
  fi
  save_env boot_counter
fi

# Reset boot_success for current boot
set boot_success=0
save_env boot_success
"#;

const MAIN_FILE: &str = "boot/grub2/grub.cfg";
const ENVIRONMENT: &str = "boot/grub2/grubenv";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["root_fs_uuid"]}, {"required": ["rootfs"]}]))]
struct Options {
    /// Which of osbuild's ways to go about settings that are not made: 1, or 2 without placeholders in `grub.cfg`.
    #[serde(default = "first")]
    #[schemars(with = "f64", extend("enum" = [1, 2]))]
    compat_version: Number,
    /// The root file system.
    rootfs: Option<FileSystem>,
    /// The file system of `/boot`, where it has its own.
    bootfs: Option<FileSystem>,
    /// The root file system's UUID, an older form of `rootfs`.
    root_fs_uuid: Option<Uuid>,
    /// The UUID of the file system of `/boot`, an older form of `bootfs`.
    boot_fs_uuid: Option<Uuid>,
    /// Further options of the kernel.
    #[serde(default)]
    kernel_opts: String,
    /// Whether to boot without UEFI too, or for which platform.
    legacy: Option<Legacy>,
    /// Booting with UEFI.
    uefi: Option<Uefi>,
    /// The entry that is booted unless another one is chosen.
    saved_entry: Option<String>,
    /// Whether to write `/etc/default/grub`.
    #[serde(default = "yes")]
    write_defaults: bool,
    /// Whether the environment block says the kernel's options.
    #[serde(default = "yes")]
    write_cmdline: bool,
    /// Whether Ignition may run on the first boot.
    #[serde(default)]
    ignition: bool,
    /// Whether boots that did not succeed are counted.
    #[serde(default)]
    greenboot: bool,
    /// Settings of GRUB.
    #[serde(default = "usual")]
    config: Config,
}

fn usual() -> Config {
    Config {
        default: None,
        disable_recovery: None,
        disable_submenu: None,
        distributor: None,
        terminal: None,
        terminal_input: None,
        terminal_output: None,
        timeout: zero(),
        timeout_style: None,
        serial: None,
    }
}

fn first() -> Number {
    Number::from(1)
}

fn yes() -> bool {
    true
}

/// Yes, no or a platform of GRUB.
#[derive(Debug)]
enum Legacy {
    Said(bool),
    Platform(String),
}

impl<'de> Deserialize<'de> for Legacy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(said) => Ok(Self::Said(said)),
            Value::String(platform) => Ok(Self::Platform(platform)),
            other => Err(D::Error::custom(format!("expected yes, no or a platform, not {other}"))),
        }
    }
}

impl JsonSchema for Legacy {
    fn schema_name() -> Cow<'static, str> {
        "Legacy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({"oneOf": [{"type": "boolean"}, {"type": "string"}]})
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Uefi {
    /// Whose programs they are: the name of their directory.
    #[schemars(regex(pattern = "^(.+)$"))]
    vendor: String,
    /// Where the build root has the programs.
    #[serde(default = "efi")]
    efi_src_dir: String,
    /// Whether to take the programs from the build root.
    #[serde(default)]
    install: bool,
    /// Whether the main `grub.cfg` lies in `/boot/grub2` in any case.
    #[serde(default)]
    unified: bool,
}

fn efi() -> String {
    "/boot/efi/EFI".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The entry that is booted.
    default: Option<String>,
    /// Whether not to have entries for recovery.
    disable_recovery: Option<bool>,
    /// Whether all entries stand in one menu.
    disable_submenu: Option<bool>,
    /// The distributor's name.
    distributor: Option<String>,
    /// Terminals for input and output.
    terminal: Option<Vec<String>>,
    /// Terminals for input.
    terminal_input: Option<Vec<String>>,
    /// Terminals for output.
    terminal_output: Option<Vec<String>>,
    /// How many seconds the menu waits.
    #[serde(default = "zero")]
    #[schemars(with = "i64", range(min = 0))]
    timeout: Number,
    /// What is shown in the meantime.
    timeout_style: Option<TimeoutStyle>,
    /// The command that sets up the serial console.
    serial: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TimeoutStyle {
    Hidden,
    Menu,
    Countdown,
}

fn zero() -> Number {
    Number::from(0)
}

/// The platform whose modules are taken from the build root, if any are.
fn platform_of(options: &Value) -> Option<&str> {
    match &options["legacy"] {
        Value::Bool(true) => Some("i386-pc"),
        platform => platform.as_str().filter(|platform| !platform.is_empty()),
    }
}

/// What is taken from the build root.
fn files(options: &Value) -> Vec<String> {
    let mut files = platform_of(options).map_or(vec![], |platform| vec![grub::files(platform), grub::FONT.to_owned()]);
    let uefi = &options["uefi"];
    if let (true, Some(source)) = (uefi["install"] == true, uefi["efi_src_dir"].as_str()) {
        let vendor = uefi["vendor"].as_str().unwrap_or_default();
        files.extend(["BOOT", vendor].map(|directory| format!("/{}/{directory}", source.trim_start_matches('/'))));
    }
    files
}

fn run(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let mut options: Options = cx.options()?;
    let from_uuid = |uuid: Option<Uuid>| uuid.map(|uuid| FileSystem { uuid: Some(uuid), label: None });
    let root_fs = options.rootfs.take().or_else(|| from_uuid(options.root_fs_uuid.take()));
    let root_fs = root_fs.ok_or_else(|| Error::failed("the root file system is not given"))?;
    let boot_fs = options.bootfs.take().or_else(|| from_uuid(options.boot_fs_uuid.take()));
    let legacy = match options.legacy.take() {
        Some(Legacy::Said(true)) => Some("i386-pc".to_owned()),
        Some(Legacy::Platform(platform)) if !platform.is_empty() => Some(platform),
        _ => None,
    };
    let hybrid = options.uefi.is_some() && legacy.is_some();
    if options.write_defaults {
        cx.tree.create_dir_all("etc/default", 0o777)?;
        cx.tree.write("etc/default/grub", options.defaults())?;
    }
    cx.tree.create_dir_all("boot/grub2", 0o777)?;
    if hybrid && cx.tree.symlink_metadata(ENVIRONMENT).is_ok() {
        // With UEFI alone it is a link to the EFI partition, which the package of GRUB makes.
        cx.tree.remove_file(ENVIRONMENT)?;
    }
    cx.tree.write(ENVIRONMENT, options.environment(&root_fs)?)?;
    let home = if boot_fs.is_some() { "/" } else { "/boot/" };
    let mut main_file = MAIN_FILE.to_owned();
    if let Some(Uefi { vendor, efi_src_dir, install, unified }) = &options.uefi {
        if *install {
            grub::copy_efi(root, efi_src_dir, &cx.tree, vendor)?;
        }
        let file = format!("boot/efi/EFI/{vendor}/grub.cfg");
        if hybrid || *unified {
            cx.tree.write(&file, template::fill(REDIRECT, &[("root", home)]))?;
        } else {
            main_file = file;
        }
    }
    let grub_fs = boot_fs.unwrap_or(root_fs);
    cx.tree.write(&main_file, options.main(&grub_fs, home)?)?;
    if let Some(platform) = legacy {
        grub::copy_modules(root, &cx.tree, &platform, "boot/grub2")?;
        grub::copy_font(root, &cx.tree, "boot/grub2")?;
    }
    Ok(())
}

impl Options {
    /// The file `/etc/default/grub`.
    fn defaults(&self) -> String {
        let Config { default, disable_recovery, disable_submenu, distributor, serial, .. } = &self.config;
        let Config { terminal, terminal_input, terminal_output, timeout, timeout_style, .. } = &self.config;
        let timeout = timeout.to_string();
        let options = shell::quoted(&self.kernel_opts);
        let mut text = format!("GRUB_CMDLINE_LINUX={options}\nGRUB_TIMEOUT={timeout}\nGRUB_ENABLE_BLSCFG=true\n");
        for (name, said) in [("RECOVERY", disable_recovery), ("SUBMENU", disable_submenu)] {
            text += &said.map(|said| format!("GRUB_DISABLE_{name}={said}\n")).unwrap_or_default();
        }
        text += &grub::distributor(distributor.as_ref());
        text += &grub::quoted(&[
            ("GRUB_SERIAL_COMMAND", grub::set(serial.as_ref())),
            ("GRUB_TERMINAL", grub::words(terminal.as_deref())),
            ("GRUB_TERMINAL_INPUT", grub::words(terminal_input.as_deref())),
            ("GRUB_TERMINAL_OUTPUT", grub::words(terminal_output.as_deref())),
        ]);
        text += match timeout_style {
            Some(TimeoutStyle::Hidden) => "GRUB_TIMEOUT_STYLE=hidden\n",
            Some(TimeoutStyle::Menu) => "GRUB_TIMEOUT_STYLE=menu\n",
            Some(TimeoutStyle::Countdown) => "GRUB_TIMEOUT_STYLE=countdown\n",
            None => "",
        };
        text +=
            &default.as_ref().map(|default| format!("GRUB_DEFAULT={}\n", shell::assigned(default))).unwrap_or_default();
        text
    }

    fn environment(&self, root_fs: &FileSystem) -> Result<String, Error> {
        let (kind, name) = root_fs.name()?;
        let root = grub_script::root(Some(kind), name)?;
        let options = self.write_cmdline.then(|| ("kernelopts", format!("{root} {}", self.kernel_opts)));
        let entry = grub::set(self.saved_entry.as_ref()).map(|entry| ("saved_entry", entry));
        grub::environment(&[options, entry].into_iter().flatten().collect::<Vec<_>>())
    }

    /// The main `grub.cfg`.
    fn main(&self, grub_fs: &FileSystem, home: &str) -> Result<String, Error> {
        let (kind, name) = grub_fs.name()?;
        let timeout = self.config.timeout.to_string();
        let search = format!("{} {}", grub::search(kind), grub_script::word(name));
        let ignition = self.ignition.then(|| template::fill(IGNITION, &[("root", home)]));
        let greenboot = self.greenboot.then(|| GREENBOOT.to_owned());
        let features = [ignition, greenboot].into_iter().flatten().collect::<Vec<_>>().join("\n");
        let Config { serial, terminal_input, terminal_output, .. } = &self.config;
        let serial = grub::set(serial.as_ref()).map(|serial| format!("\n{serial}"));
        let input = grub::terminals("terminal_input", terminal_input.as_deref());
        let output = grub::terminals("terminal_output", terminal_output.as_deref());
        let mut values = vec![("timeout", timeout.as_str()), ("search", &search), ("features", &features)];
        for (name, value) in [("serial", &serial), ("terminal_input", &input), ("terminal_output", &output)] {
            match value {
                Some(value) => values.push((name, value)),
                None if self.compat_version.as_f64() >= Some(2.0) => values.push((name, "")),
                None => {}
            }
        }
        Ok(template::fill(MAIN, &values))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    static TEST: ModuleDef = ModuleDef {
        entry: Entry::Stage(|cx| {
            let (_directory, root) = grub::test_root();
            run(cx, &root)
        }),
        ..MODULE
    };

    const UUID: &str = "9c6ae55b-cf88-45b8-84e8-64990759f39d";

    #[test]
    fn without_firmware_the_configuration_lies_in_boot() {
        let options = json!({"rootfs": {"uuid": UUID}, "kernel_opts": "ro", "saved_entry": "e"});
        let done = Case::new(&TEST).run(options).ok();
        let defaults = "GRUB_CMDLINE_LINUX=\"ro\"\nGRUB_TIMEOUT=0\nGRUB_ENABLE_BLSCFG=true\n";
        assert_eq!(done.text("etc/default/grub"), defaults);
        let environment = done.text(ENVIRONMENT);
        let lines = format!("# GRUB Environment Block\nkernelopts=root=UUID={UUID} ro\nsaved_entry=e\n##");
        assert!(environment.starts_with(&lines) && environment.len() == 1024, "{environment}");
        let main = done.text(MAIN_FILE);
        assert!(
            main.contains(&format!("search --no-floppy --set=root --fs-uuid {UUID}\nset boot=${{root}}\n")),
            "{main}"
        );
        assert!(main.ends_with("}\n${serial}${terminal_input}${terminal_output}\nblscfg\n"), "{main}");
    }

    #[test]
    fn all_settings_are_written() {
        let config = json!({
            "default": "saved", "disable_recovery": true, "disable_submenu": false, "distributor": "D", "timeout": 5,
            "timeout_style": "menu", "terminal": ["a", "b"], "terminal_input": ["c"], "terminal_output": ["d", "e"],
            "serial": "serial --unit=0",
        });
        let options = json!({
            "rootfs": {"label": "r"}, "bootfs": {"label": "b"}, "compat_version": 2, "config": config, "ignition": true,
            "greenboot": true, "write_cmdline": false,
        });
        let done = Case::new(&TEST).run(options).ok();
        let lines = [
            "GRUB_CMDLINE_LINUX=\"\"\nGRUB_TIMEOUT=5\nGRUB_ENABLE_BLSCFG=true\n",
            "GRUB_DISABLE_RECOVERY=true\nGRUB_DISABLE_SUBMENU=false\nGRUB_DISTRIBUTOR=\"D\"\n",
            "GRUB_SERIAL_COMMAND=\"serial --unit=0\"\nGRUB_TERMINAL=\"a b\"\nGRUB_TERMINAL_INPUT=\"c\"\n",
            "GRUB_TERMINAL_OUTPUT=\"d e\"\nGRUB_TIMEOUT_STYLE=menu\nGRUB_DEFAULT=saved\n",
        ];
        assert_eq!(done.text("etc/default/grub"), lines.concat());
        assert!(done.text(ENVIRONMENT).starts_with("# GRUB Environment Block\n##"));
        let main = done.text(MAIN_FILE);
        assert!(main.contains("--label b\n") && main.contains("if [ -f \"/ignition.firstboot\" ]"), "{main}");
        assert!(main.contains("ignition.firstboot ${ignition_network_kcmdline}\"\nfi\n\n\n# greenboot"), "{main}");
        let end = "save_env boot_success\n\nserial --unit=0\nterminal_input c\nterminal_output d e\nblscfg\n";
        assert!(main.ends_with(end), "{main}");
    }

    #[test]
    fn with_both_firmwares_the_efi_partition_leads_to_boot() {
        let options = json!({
            "root_fs_uuid": UUID, "boot_fs_uuid": "6699-AFB5", "legacy": true, "write_defaults": false,
            "uefi": {"vendor": "fedora", "install": true},
        });
        let done = Case::new(&TEST).link(ENVIRONMENT, "../efi/EFI/fedora/grubenv").run(options.clone()).ok();
        let redirect = "\nsearch --no-floppy --set prefix --file /grub2/grub.cfg\nset prefix=($prefix)/grub2\n\
                        configfile $prefix/grub.cfg\n";
        assert_eq!(done.text("boot/efi/EFI/fedora/grub.cfg"), redirect);
        assert!(done.tree.symlink_metadata(ENVIRONMENT).unwrap().is_file());
        assert_eq!(done.text("boot/grub2/i386-pc/normal.mod"), "module");
        assert_eq!(done.tree.read_dir("boot/grub2/i386-pc").unwrap(), ["fs.lst", "normal.mod"]);
        assert_eq!(done.text("boot/grub2/fonts/unicode.pf2"), "font");
        assert_eq!(done.text("boot/efi/EFI/BOOT/BOOTX64.EFI"), "shim");
        assert!(!done.tree.exists("etc/default").unwrap());
        let done = Case::new(&TEST).dir("boot/efi/EFI/fedora").run(options);
        assert_eq!(done.err(), "/boot/efi/EFI/fedora is there already");
    }

    #[test]
    fn with_uefi_alone_the_configuration_lies_in_the_vendors_directory() {
        let case = || Case::new(&TEST).dir("boot/efi/EFI/x").link(ENVIRONMENT, "../efi/EFI/x/grubenv");
        let options = |unified: bool| json!({"rootfs": {"label": "r"}, "uefi": {"vendor": "x", "unified": unified}});
        let done = case().run(options(false)).ok();
        assert!(done.text("boot/efi/EFI/x/grub.cfg").contains("blscfg"));
        assert_eq!(done.text("boot/efi/EFI/x/grubenv").len(), 1024);
        assert!(!done.tree.exists(MAIN_FILE).unwrap());
        let done = case().run(options(true)).ok();
        assert!(done.text("boot/efi/EFI/x/grub.cfg").contains("--file /boot/grub2/grub.cfg"));
        assert!(done.text(MAIN_FILE).contains("blscfg"));
    }

    #[test]
    fn an_environment_that_is_too_large_is_refused() {
        let done = Case::new(&TEST).run(json!({"rootfs": {"label": "r"}, "kernel_opts": "x".repeat(1000)}));
        assert_eq!(done.err(), "GRUB's environment has 1050 bytes, but 1024 is the most");
    }

    #[test]
    fn values_are_as_their_readers_take_them() {
        let kernel_opts = "ro dyndbg=\"file a/* +p\" x=$HOME y=`id` z=\\n";
        let config = json!({"distributor": "My \"OS\" $(id)", "default": "a b"});
        let done = Case::new(&TEST).run(json!({
            "rootfs": {"label": "my root"}, "kernel_opts": kernel_opts, "config": config, "saved_entry": "a\\b",
        }));
        let done = done.ok();
        let script = "\nprintf '%s|' \"$GRUB_CMDLINE_LINUX\" \"$GRUB_DISTRIBUTOR\" \"$GRUB_DEFAULT\"";
        let script = done.text("etc/default/grub") + script;
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{kernel_opts}|My \"OS\" $(id)|a b|"));
        assert!(done.text("boot/grub2/grub.cfg").contains("search --no-floppy --set=root --label 'my root'\n"));
        assert_eq!(done.tree.metadata("boot/grub2/grubenv").unwrap().len(), 1024);
        if !has_tool("grub-editenv") {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), done.text("boot/grub2/grubenv")).unwrap();
        let output = Command::new("grub-editenv").arg(file.path()).arg("list").output().unwrap();
        let expected = format!("kernelopts=root=\"LABEL=my root\" {kernel_opts}\nsaved_entry=a\\b\n");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn the_environment_has_as_many_bytes_whatever_the_letters() {
        let done = Case::new(&TEST).run(json!({"rootfs": {"label": "é"}})).ok();
        assert_eq!(done.tree.metadata("boot/grub2/grubenv").unwrap().len(), 1024);
    }

    #[test]
    fn the_systems_own_name_may_be_the_distributors_and_no_line_is_added() {
        let own = "$(sed 's, release .*$,,g' /etc/system-release)";
        let done = Case::new(&TEST).run(json!({"rootfs": {"label": "r"}, "config": {"distributor": own}})).ok();
        assert!(done.text("etc/default/grub").contains(&format!("\nGRUB_DISTRIBUTOR=\"{own}\"\n")));
        let done = Case::new(&TEST).run(json!({"rootfs": {"label": "r"}, "kernel_opts": "a\nb"}));
        assert!(done.err().starts_with("the option `kernel_opts` has a line break"), "{}", done.err());
    }
}
