//! Configures GRUB 2 with an entry of its own for each kernel (without BLS).
//!
//! Writes `/etc/default/grub`, the environment block `/boot/grub2/grubenv`, and `grub.cfg`: with `bios` in
//! `/boot/grub2`, with `uefi` in the vendor's directory of the EFI partition. The modules of the BIOS's platform come
//! from the build root, as the EFI programs do with `install`. Menu entries have ids with a `$` before the kernel's
//! version only where they are saved as the default, as with osbuild. With `uefi` alone, which osbuild fails on,
//! kernels are loaded by plain `linux` and `initrd`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2.legacy",
//!   "options": {
//!     "rootfs": { "label": "root" },
//!     "uefi": { "vendor": "fedora", "install": true },
//!     "entries": [
//!       { "id": "1", "kernel": "6.1.0", "product": { "name": "Fedora", "version": "42" }, "default": true }
//!     ]
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;
use serde::Serialize;

use crate::boot::grub::{self, Uuid};
use crate::boot::grub_script;
use crate::texts::one_line;
use crate::texts::python;
use crate::texts::shell;
use crate::texts::template;
use crate::trees::build_root;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.grub2.legacy",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Named(|options| {
        let platform = options["bios"]["platform"].as_str();
        platform.map_or(vec![], |platform| vec![grub::files(platform), grub::FONT.to_owned()])
    })],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {"vendor": "x"}}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {"vendor": "x"}, "entries": []}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "entries": [{"id": "1", "kernel": "k", "product": {"name": "n", "version": "v"}}]}}"#,
        r#"{"options": {"rootfs": {}, "uefi": {"vendor": "x"}, "entries": [{"id": "1", "kernel": "k", "product": {"name": "n", "version": "v"}}]}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "bios": {"platform": "x86"}, "entries": [{"id": "1", "kernel": "k", "product": {"name": "n", "version": "v"}}]}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {"vendor": "x"}, "entries": [{"id": "1", "kernel": "k", "product": {"name": "n"}}]}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {"vendor": "x"}, "entries": [{"id": "1", "product": {"name": "n", "version": "v"}}]}}"#,
        r#"{"options": {"rootfs": {"label": "a"}, "uefi": {"vendor": "x"}, "config": {"timeout": 0.5}, "entries": [{"id": "1", "kernel": "k", "product": {"name": "n", "version": "v"}}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &build_root::here()?)),
};

/// The file, as far as it is always the same.
const MAIN: &str = r#"
# Created by osbuild

set timeout=${timeout}

# load the grubenv file
load_env

# selection of the next boot entry
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi

if [ "${prev_saved_entry}" ]; then
  set saved_entry="${prev_saved_entry}"
  save_env saved_entry
  set prev_saved_entry=
  save_env prev_saved_entry
  set boot_once=true
fi

function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
${serial}${terminal_input}${terminal_output}
"#;

/// A kernel's entry in the menu.
const ENTRY: &str = "
menuentry '${title}' --class red --class gnu-linux --class gnu --class os --unrestricted \
                     --id 'gnulinux-${kernel}-advanced-${id}' {
\tinsmod all_video
\tset gfxpayload=keep
\tsearch --no-floppy --set=root ${search}
\tlinux${loader} ${grub_home}vmlinuz-${kernel} ${cmdline}
\tinitrd${loader} ${grub_home}initramfs-${kernel}.img
}
";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["bios"]}, {"required": ["uefi"]}]))]
struct Options {
    /// The root file system.
    rootfs: FileSystem,
    /// The file system of `/boot`, where it has its own.
    bootfs: Option<FileSystem>,
    /// Booting without UEFI.
    bios: Option<Bios>,
    /// Booting with UEFI.
    uefi: Option<Uefi>,
    /// Whether to write `/etc/default/grub`.
    #[serde(default = "yes")]
    write_defaults: bool,
    /// The menu.
    #[schemars(length(min = 1))]
    entries: Vec<MenuEntry>,
    /// Settings of GRUB.
    #[serde(default)]
    config: Config,
}

fn yes() -> bool {
    true
}

/// How GRUB finds a file system.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["uuid"]}, {"required": ["label"]}, {"required": ["device"]}]))]
struct FileSystem {
    /// Its device node.
    device: Option<String>,
    /// Its label.
    label: Option<String>,
    /// Its UUID.
    uuid: Option<Uuid>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Bios {
    /// The platform.
    platform: Platform,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum Platform {
    #[serde(rename = "i386-pc")]
    Bios,
    #[serde(rename = "powerpc-ieee1275")]
    OpenFirmware,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Uefi {
    /// Whose programs they are: the name of their directory.
    #[schemars(regex(pattern = "^(.+)$"))]
    vendor: String,
    /// Whether to take the programs from the build root.
    #[serde(default)]
    install: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MenuEntry {
    /// Whether it is booted unless another one is chosen.
    #[serde(default)]
    default: bool,
    /// A UUID; GRUB's own tools take that of the root file system.
    id: String,
    /// What it boots.
    product: Product,
    /// The kernel's version.
    kernel: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Product {
    /// Its name.
    name: String,
    /// What it is called besides.
    nick: Option<String>,
    /// Its version.
    version: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Further options of the kernel.
    cmdline: String,
    /// The entry that is booted.
    default: String,
    /// Whether not to have entries for recovery.
    disable_recovery: bool,
    /// Whether all entries stand in one menu.
    disable_submenu: bool,
    /// The distributor's name.
    distributor: Option<String>,
    /// Terminals for input and output.
    terminal: Vec<String>,
    /// Terminals for input.
    terminal_input: Vec<String>,
    /// Terminals for output.
    terminal_output: Vec<String>,
    /// How many seconds the menu waits.
    #[schemars(with = "i64", range(min = 0))]
    timeout: Number,
    /// What is shown in the meantime.
    timeout_style: TimeoutStyle,
    /// The command that sets up the serial console.
    serial: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cmdline: String::new(),
            default: "saved".to_owned(),
            disable_recovery: true,
            disable_submenu: true,
            distributor: None,
            terminal: Vec::new(),
            terminal_input: Vec::new(),
            terminal_output: Vec::new(),
            timeout: Number::from(0),
            timeout_style: TimeoutStyle::Countdown,
            serial: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TimeoutStyle {
    Hidden,
    Menu,
    Countdown,
}

fn run(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let options: Options = cx.options()?;
    if options.write_defaults {
        cx.tree.create_dir_all("etc/default", 0o777)?;
        cx.tree.write("etc/default/grub", options.config.defaults()?)?;
    }
    cx.tree.create_dir_all("boot/grub2", 0o777)?;
    let defaults: Vec<&MenuEntry> = options.entries.iter().filter(|entry| entry.default).collect();
    let saved = match defaults.as_slice() {
        [] => None,
        [entry] => Some(("saved_entry", format!("gnulinux-${}-advanced-{}", entry.kernel, entry.id))),
        _ => return Err(Error::failed("more than one entry is the default one")),
    };
    cx.tree.write("boot/grub2/grubenv", grub::environment(saved.as_slice())?)?;
    if let Some(Uefi { vendor, install }) = &options.uefi {
        if *install {
            grub::copy_efi(root, "boot/efi/EFI", &cx.tree, vendor)?;
        }
        cx.tree.write(format!("boot/efi/EFI/{vendor}/grub.cfg"), options.main(true)?)?;
    }
    if let Some(Bios { platform }) = &options.bios {
        cx.tree.write("boot/grub2/grub.cfg", options.main(false)?)?;
        grub::copy_modules(root, &cx.tree, platform.name(), "boot/grub2")?;
        grub::copy_font(root, &cx.tree, "boot/grub2")?;
    }
    Ok(())
}

impl Platform {
    fn name(self) -> &'static str {
        match self {
            Self::Bios => "i386-pc",
            Self::OpenFirmware => "powerpc-ieee1275",
        }
    }
}

impl FileSystem {
    /// What says which one it is: `UUID` or `LABEL` and the name, or a device alone.
    fn name(&self) -> Result<(Option<&'static str>, &str), Error> {
        let uuid = self.uuid.as_ref().map(|uuid| (Some("UUID"), uuid.0.as_str()));
        let label = self.label.as_deref().map(|label| (Some("LABEL"), label));
        let device = self.device.as_deref().map(|device| (None, device));
        let name = [uuid, label, device].into_iter().flatten().find(|(_, name)| !name.is_empty());
        name.ok_or_else(|| Error::failed("a file system has an empty name"))
    }
}

impl MenuEntry {
    fn title(&self) -> String {
        let Product { name, nick, version } = &self.product;
        let nick = nick.as_ref().filter(|nick| !nick.is_empty()).map(|nick| format!(" ({nick})"));
        format!("{name} ({}) {version}{}", self.kernel, nick.unwrap_or_default())
    }
}

impl Config {
    /// The file `/etc/default/grub`.
    fn defaults(&self) -> Result<String, Error> {
        let Self { cmdline, default, disable_recovery, disable_submenu, distributor, serial, .. } = self;
        let style = serde_json::to_value(self.timeout_style).map_err(Error::Options)?;
        let (timeout, style) = (self.timeout.to_string(), python::scalar(&style)?);
        let first = [
            format!("GRUB_TIMEOUT={timeout}\nGRUB_CMDLINE_LINUX={}\n", shell::quoted(cmdline)),
            format!("GRUB_DISABLE_SUBMENU={disable_submenu}\nGRUB_DISABLE_RECOVERY={disable_recovery}\n"),
            format!("GRUB_TIMEOUT_STYLE={style}\nGRUB_DEFAULT={}\n", shell::assigned(default)),
            grub::distributor(distributor.as_ref()),
        ];
        let rest = grub::quoted(&[
            ("GRUB_SERIAL_COMMAND", grub::set(serial.as_ref())),
            ("GRUB_TERMINAL", grub::words(Some(&self.terminal))),
            ("GRUB_TERMINAL_INPUT", grub::words(Some(&self.terminal_input))),
            ("GRUB_TERMINAL_OUTPUT", grub::words(Some(&self.terminal_output))),
        ]);
        Ok(first.concat() + &rest)
    }
}

impl Options {
    /// The file `grub.cfg`.
    fn main(&self, uefi: bool) -> Result<String, Error> {
        let (kind, name) = self.bootfs.as_ref().unwrap_or(&self.rootfs).name()?;
        let name = grub_script::word(name);
        let search = kind.map_or(name.clone(), |kind| format!("{} {name}", grub::search(kind)));
        let (kind, name) = self.rootfs.name()?;
        let root = grub_script::root(kind, name)?;
        let loader = match &self.bios {
            Some(bios) if bios.platform == Platform::Bios => {
                if uefi {
                    "efi"
                } else {
                    "16"
                }
            }
            _ => "",
        };
        let timeout = self.config.timeout.to_string();
        let cmdline = format!("{root} {}", self.config.cmdline);
        let cmdline = grub_script::kernel_options("config.cmdline", &cmdline)?;
        let home = if self.bootfs.is_some() { "/" } else { "/boot/" };
        let Config { serial, terminal_input, terminal_output, .. } = &self.config;
        let serial = grub::set(serial.as_ref()).map(|serial| format!("\n{serial}"));
        let input = grub::terminals("terminal_input", Some(terminal_input));
        let output = grub::terminals("terminal_output", Some(terminal_output));
        let mut values = vec![
            ("timeout", timeout.as_str()),
            ("cmdline", &cmdline),
            ("search", &search),
            ("loader", loader),
            ("grub_home", home),
        ];
        // What is not set stays as a placeholder, which GRUB takes for an empty variable.
        for (name, value) in [("serial", &serial), ("terminal_input", &input), ("terminal_output", &output)] {
            values.extend(value.as_ref().map(|value| (name, value.as_str())));
        }
        let mut text = template::fill(MAIN, &values);
        for entry in &self.entries {
            let (id, title) = (grub_script::in_single_quotes(&entry.id), grub_script::in_single_quotes(&entry.title()));
            let kernel = one_line::word("entries.kernel", &entry.kernel)?;
            if grub_script::word(kernel) != kernel {
                return Err(Error::failed(format!(
                    "the option `entries.kernel` is no version of a kernel: {kernel:?}"
                )));
            }
            let own = [("id", id.as_str()), ("title", &title), ("kernel", kernel)];
            text += &template::fill(ENTRY, &[values.as_slice(), &own].concat());
        }
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    static TEST: ModuleDef = ModuleDef {
        entry: Entry::Stage(|cx| {
            let (_directory, root) = grub::test_root();
            run(cx, &root)
        }),
        ..MODULE
    };

    fn entry(default: bool) -> Value {
        let product = json!({"name": "Linux", "version": "7", "nick": "X"});
        json!({"id": "1-2", "kernel": "3.10", "product": product, "default": default})
    }

    const MENU: &str = "
menuentry 'Linux (3.10) 7 (X)' --class red --class gnu-linux --class gnu --class os --unrestricted \
                        --id 'gnulinux-3.10-advanced-1-2' {
\tinsmod all_video
\tset gfxpayload=keep
\tsearch --no-floppy --set=root --label b
\tlinux16 /vmlinuz-3.10 root=/dev/vda1 ro
\tinitrd16 /initramfs-3.10.img
}

";

    #[test]
    fn kernels_have_entries() {
        let options = json!({
            "rootfs": {"device": "/dev/vda1"}, "bootfs": {"label": "b"}, "bios": {"platform": "i386-pc"},
            "entries": [entry(true)], "config": {"cmdline": "ro", "timeout": 3, "serial": "s", "terminal": ["t", "u"]},
        });
        let done = Case::new(&TEST).run(options).ok();
        let text = done.text("boot/grub2/grub.cfg");
        assert!(text.starts_with("\n# Created by osbuild\n\nset timeout=3\n"), "{text}");
        let end = format!("\n}}\n\ns${{terminal_input}}${{terminal_output}}\n{MENU}");
        assert!(text.ends_with(&end), "{text}");
        let environment = done.text("boot/grub2/grubenv");
        assert!(environment.starts_with("# GRUB Environment Block\nsaved_entry=gnulinux-$3.10-advanced-1-2\n#"));
        let lines = [
            "GRUB_TIMEOUT=3\nGRUB_CMDLINE_LINUX=\"ro\"\nGRUB_DISABLE_SUBMENU=true\nGRUB_DISABLE_RECOVERY=true\n",
            "GRUB_TIMEOUT_STYLE=countdown\nGRUB_DEFAULT=saved\nGRUB_SERIAL_COMMAND=\"s\"\nGRUB_TERMINAL=\"t u\"\n",
        ];
        assert_eq!(done.text("etc/default/grub"), lines.concat());
        assert_eq!(done.text("boot/grub2/i386-pc/normal.mod"), "module");
    }

    #[test]
    fn the_loader_depends_on_firmware_and_platform() {
        let uefi = json!({"vendor": "fedora", "install": true});
        for (bios, loader) in [(json!({"platform": "i386-pc"}), "efi"), (Value::Null, "")] {
            let mut options = json!({"rootfs": {"label": "r"}, "uefi": uefi, "entries": [entry(false)]});
            if !bios.is_null() {
                options["bios"] = bios;
            }
            let done = Case::new(&TEST).run(options).ok();
            let text = done.text("boot/efi/EFI/fedora/grub.cfg");
            assert!(text.contains(&format!("\tlinux{loader} /boot/vmlinuz-3.10 root=LABEL=r \n")), "{text}");
        }
    }

    #[test]
    fn one_entry_is_the_default_one() {
        let options = json!({"rootfs": {"label": "r"}, "uefi": {"vendor": "x"}, "entries": [entry(true), entry(true)]});
        assert_eq!(Case::new(&TEST).run(options).err(), "more than one entry is the default one");
    }

    #[test]
    fn titles_and_options_stand_for_themselves() {
        let mut entry = entry(false);
        entry["product"] = json!({"name": "It's { Linux", "version": "7"});
        let options = json!({
            "rootfs": {"label": "my root"}, "bios": {"platform": "i386-pc"}, "entries": [entry],
            "config": {"cmdline": "a=$b;c d=\"e f\" g=`id`"},
        });
        let done = Case::new(&TEST).run(options).ok();
        let text = done.text("boot/grub2/grub.cfg");
        assert!(text.contains("\nmenuentry 'It'\\''s { Linux (3.10) 7' "), "{text}");
        assert!(text.contains("--label 'my root'\n"), "{text}");
        assert!(text.contains(" root=\"LABEL=my root\" a=\\$b\\;c d=\"e f\" g=`id`\n"), "{text}");
        assert!(done.text("etc/default/grub").contains("GRUB_CMDLINE_LINUX=\"a=\\$b;c d=\\\"e f\\\" g=\\`id\\`\"\n"));
        let options = json!({"rootfs": {"label": "r"}, "uefi": {"vendor": "x"}, "entries": [{
            "id": "1", "kernel": "3;x", "product": {"name": "L", "version": "7"},
        }]});
        assert!(Case::new(&TEST).run(options).err().contains("`entries.kernel` is no version"));
    }
}
