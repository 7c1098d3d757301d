//! GRUB's menu on a disc that installs a system: which entries it has, and what is before them.

use osbc_ir::Number;
use osbc_module_api::*;

use crate::boot::grub_script;
use crate::texts::template;

/// What is installed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Product {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
}

/// The kernel that the disc boots.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Kernel {
    /// The directory of `vmlinuz` and `initrd.img` on the disc.
    dir: String,
    /// Its options, which may be none but must be given.
    opts: Option<Vec<String>>,
}

/// An entry of one's own. `${root}`, `${product}` and the like in it are filled in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Custom {
    /// What the menu says.
    name: String,
    /// The kernel and its options.
    linux: String,
    /// The initrd.
    initrd: String,
}

/// Settings of GRUB.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How many seconds the menu waits.
    #[schemars(with = "i64", range(min = 0))]
    timeout: Number,
    /// The number of the entry that is booted.
    #[schemars(with = "Option<i64>")]
    default: Option<Number>,
}

impl Default for Config {
    fn default() -> Self {
        Self { timeout: Number::from(60), default: None }
    }
}

/// The firmware that loads GRUB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// UEFI.
    Uefi,
    /// BIOS or Open Firmware.
    Other,
}

/// The menu.
#[derive(Debug)]
pub(crate) struct Menu {
    /// What is installed.
    pub(crate) product: Product,
    /// The kernel that the disc boots.
    pub(crate) kernel: Kernel,
    /// The disc's label.
    pub(crate) isolabel: String,
    /// Whether there is an entry to install.
    pub(crate) install: bool,
    /// Whether there is an entry to check the disc and install.
    pub(crate) test: bool,
    /// Whether there is an entry to install in FIPS mode.
    pub(crate) fips: bool,
    /// Whether there are entries for trouble.
    pub(crate) troubleshooting: bool,
    /// Entries before all others.
    pub(crate) custom: Vec<Custom>,
    /// Settings of GRUB.
    pub(crate) config: Config,
}

const HEAD: &str = "$defaultentry
function load_video {
$video}

load_video
set gfxpayload=keep
insmod gzio
insmod part_gpt
insmod ext2
$modules
set timeout=${timeout}
### END /etc/grub.d/00_header ###

search --no-floppy --set=root -l '${isolabel}'

$customentries
$installentry
$testentry
$fipsentry
$troubleshootingentry
";

/// What every entry is.
const CLASSES: &str = "--class fedora --class gnu-linux --class gnu --class os";

impl Menu {
    /// The file `grub.cfg`.
    ///
    /// # Errors
    /// The kernel's options are missing.
    pub(crate) fn text(&self, firmware: Firmware) -> Result<String, Error> {
        let Self { product: Product { name, version }, kernel, isolabel, config, .. } = self;
        let options = kernel.opts.as_ref().ok_or_else(|| Error::failed("the kernel's `opts` are missing"))?.join(" ");
        let options = grub_script::kernel_options("kernel.opts", &options)?;
        let (name, version) = (grub_script::in_single_quotes(name), grub_script::in_single_quotes(version));
        let in_directory = |file: &str| match kernel.dir.as_str() {
            "" => file.to_owned(),
            directory if directory.ends_with('/') => format!("{directory}{file}"),
            directory => format!("{directory}/{file}"),
        };
        let [linux, initrd] = ["vmlinuz", "initrd.img"].map(|file| grub_script::word(&in_directory(file)));
        let timeout = config.timeout.to_string();
        let default = match &config.default {
            Some(number) => format!("set default=\"{number}\"\n"),
            None => String::new(),
        };
        let entry = |depth: usize, title: &str, words: &str| {
            let tabs = "\t".repeat(depth);
            let start = format!("\n{tabs}menuentry '{title}' {CLASSES} {{\n{tabs}\tlinux {linux} {options}{words}");
            format!("{start}\n{tabs}\tinitrd {initrd}\n{tabs}}}")
        };
        let if_so = |wanted: bool, text: String| if wanted { text } else { String::new() };
        let install = format!("Install {name} {version}");
        let trouble = [
            "\nsubmenu 'Troubleshooting -->' {",
            &entry(1, &format!("{install} in basic graphics mode"), " nomodeset quiet"),
            &entry(1, &format!("Rescue a {name} system"), " inst.rescue quiet"),
            &if_so(
                firmware == Firmware::Other,
                format!("\n\tmenuentry 'Boot first drive' {CLASSES} {{\n\t\tchainloader (hd0)+1\n\t}}"),
            ),
            "\n}",
        ];
        let (video, modules): (&[&str], _) = match firmware {
            Firmware::Uefi => (&["efi_gop", "efi_uga", "video_bochs", "video_cirrus", "all_video"], ""),
            Firmware::Other => (&["all_video"], "insmod chain\n"),
        };
        let video: String = video.iter().map(|module| format!("  insmod {module}\n")).collect();
        let mut values = vec![
            ("version", version.clone()),
            ("product", name.clone()),
            ("kernelpath", linux.clone()),
            ("initrdpath", initrd.clone()),
            ("isolabel", grub_script::in_single_quotes(isolabel)),
            ("root", options.clone()),
            ("timeout", timeout),
            ("defaultentry", default),
        ];
        let custom = self.custom_entries(&values);
        values.extend([
            ("customentries", custom),
            ("installentry", if_so(self.install, entry(0, &install, " quiet"))),
            (
                "testentry",
                if_so(
                    self.test,
                    entry(0, &format!("Test this media & install {name} {version}"), " rd.live.check quiet"),
                ),
            ),
            ("fipsentry", if_so(self.fips, entry(0, &format!("{install} in FIPS mode"), " quiet fips=1") + "\n")),
            ("troubleshootingentry", if_so(self.troubleshooting, trouble.concat())),
            ("video", video),
            ("modules", modules.to_owned()),
        ]);
        Ok(filled(HEAD, &values))
    }

    fn custom_entries(&self, values: &[(&str, String)]) -> String {
        let mut entries = String::new();
        for Custom { name, linux, initrd } in &self.custom {
            let name = grub_script::in_single_quotes(name);
            let entry = format!("\nmenuentry '{name}' {CLASSES} {{\n\tlinux {linux}\n\tinitrd {initrd}\n}}");
            // The entries before it, and those that there are not yet.
            let mut all = values.to_vec();
            all.push(("customentries", entries.clone()));
            all.extend(
                ["fipsentry", "installentry", "testentry", "troubleshootingentry"].map(|name| (name, String::new())),
            );
            entries += &filled(&entry, &all);
        }
        entries
    }
}

fn filled(text: &str, values: &[(&str, String)]) -> String {
    template::fill(text, &values.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu() -> Menu {
        Menu {
            product: Product { name: "Fedora".into(), version: "42".into() },
            kernel: Kernel { dir: "/images".into(), opts: Some(vec!["a".into(), "b".into()]) },
            isolabel: "Disc".into(),
            install: true,
            test: false,
            fips: false,
            troubleshooting: false,
            custom: Vec::new(),
            config: Config::default(),
        }
    }

    const INSTALL: &str = "
menuentry 'Install Fedora 42' --class fedora --class gnu-linux --class gnu --class os {
\tlinux /images/vmlinuz a b quiet
\tinitrd /images/initrd.img
}
";

    #[test]
    fn the_head_depends_on_the_firmware() {
        let text = menu().text(Firmware::Uefi).unwrap();
        let head = "\nfunction load_video {\n  insmod efi_gop\n  insmod efi_uga\n  insmod video_bochs\n";
        assert!(text.starts_with(head), "{text}");
        let rest = format!(
            "insmod ext2\n\nset timeout=60\n### END /etc/grub.d/00_header ###\n\nsearch --no-floppy \
                            --set=root -l 'Disc'\n\n\n{INSTALL}\n\n\n"
        );
        assert!(text.ends_with(&rest), "{text}");
        let text = menu().text(Firmware::Other).unwrap();
        assert!(
            text.contains("{\n  insmod all_video\n}\n") && text.contains("insmod ext2\ninsmod chain\n\n"),
            "{text}"
        );
    }

    #[test]
    fn each_entry_can_be_had() {
        let custom =
            Custom { name: "My ${product}".into(), linux: "${kernelpath} ${root} x $y".into(), initrd: "i".into() };
        let menu = Menu {
            install: false,
            test: true,
            fips: true,
            troubleshooting: true,
            custom: vec![custom],
            config: Config { timeout: Number::from(5), default: Some(Number::from(1)) },
            ..menu()
        };
        let text = menu.text(Firmware::Other).unwrap();
        assert!(text.starts_with("set default=\"1\"\n\nfunction"), "{text}");
        for part in [
            "-l 'Disc'\n\n\nmenuentry 'My Fedora' --class",
            "\n\tlinux /images/vmlinuz a b x $y\n\tinitrd i\n}\n\n\nmenuentry 'Test this media & install Fedora 42' --class",
            "rd.live.check quiet\n\tinitrd /images/initrd.img\n}\n\nmenuentry 'Install Fedora 42 in FIPS mode'",
            "a b quiet fips=1\n\tinitrd /images/initrd.img\n}\n\n\nsubmenu 'Troubleshooting -->' {\n\tmenuentry 'Install",
            "\n\t\tlinux /images/vmlinuz a b nomodeset quiet\n\t\tinitrd /images/initrd.img\n\t}\n\tmenuentry 'Rescue a",
            "\n\tmenuentry 'Boot first drive' --class fedora --class gnu-linux --class gnu --class os {\n\t\tchain",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.ends_with("chainloader (hd0)+1\n\t}\n}\n"), "{text}");
        assert!(!menu.text(Firmware::Uefi).unwrap().contains("first drive"));
    }

    #[test]
    fn the_kernels_options_must_be_given() {
        let menu = Menu { kernel: Kernel { dir: String::new(), opts: None }, ..menu() };
        assert_eq!(menu.text(Firmware::Uefi).unwrap_err().to_string(), "the kernel's `opts` are missing");
    }
}
