//! Makes the tree of an EFI boot image: GRUB 2, the programs that load it, and a menu that installs a system.
//!
//! The programs of `vendor` for each of `architectures` come from `/boot/efi/EFI` of the build root and go to
//! `/EFI/BOOT`, which must not be there, under the names that every firmware looks for.
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2.iso",
//!   "options": {
//!     "product": { "name": "Fedora", "version": "42" },
//!     "kernel": { "dir": "/images/pxeboot", "opts": ["inst.stage2=hd:LABEL=Fedora-42"] },
//!     "isolabel": "Fedora-42",
//!     "architectures": ["X64"],
//!     "vendor": "fedora"
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::boot::grub;
use crate::boot::iso_menu::{Config, Custom, Firmware, Kernel, Menu, Product};
use crate::texts::one_line;
use crate::texts::options::required;
use crate::trees::build_root;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.grub2.iso",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::File(grub::FONT)],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}}}"#,
        r#"{"options": {"product": {"name": "a"}, "kernel": {"dir": "/"}, "isolabel": "l"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {}, "isolabel": "l"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "architectures": "X64"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "custom": [{"name": "x"}]}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "config": {"timeout": -1}}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "platform": "i386-pc"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &build_root::here()?)),
};

const DIRECTORY: &str = "EFI/BOOT";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What is installed.
    product: Product,
    /// The kernel that the disc boots.
    kernel: Kernel,
    /// The disc's label.
    isolabel: String,
    /// EFI's names of the architectures, e.g. `X64` or `IA32`; needed, if only for a list without any.
    architectures: Option<Vec<String>>,
    /// Whose programs they are: the name of their directory; needed.
    vendor: Option<String>,
    /// Whether there is an entry to install in FIPS mode.
    #[serde(default)]
    fips: bool,
    /// Whether there are entries for trouble.
    #[serde(default = "yes")]
    troubleshooting: bool,
    /// Whether there is an entry to check the disc and install.
    #[serde(default = "yes")]
    test: bool,
    /// Whether there is an entry to install.
    #[serde(default = "yes")]
    install: bool,
    /// Entries before all others.
    #[serde(default)]
    custom: Vec<Custom>,
    /// Settings of GRUB.
    #[serde(default)]
    config: Config,
}

fn yes() -> bool {
    true
}

fn run(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let options: Options = cx.options()?;
    let architectures = required(options.architectures, "architectures")?;
    let vendor = required(options.vendor, "vendor")?;
    let Options { product, kernel, isolabel, fips, troubleshooting, test, install, custom, config, .. } = options;
    let menu = Menu { product, kernel, isolabel, fips, troubleshooting, test, install, custom, config };
    let menu = menu.text(Firmware::Uefi)?;
    cx.tree.create_dir_all("EFI", 0o777)?;
    cx.tree.create_dir(DIRECTORY, 0o777)?;
    for name in &architectures {
        let name = name.to_lowercase();
        for (source, target) in [
            (format!("shim{name}.efi"), format!("BOOT{}.EFI", name.to_uppercase())),
            (format!("mm{name}.efi"), format!("mm{name}.efi")),
            (format!("gcd{name}.efi"), format!("grub{name}.efi")),
        ] {
            let source = format!("boot/efi/EFI/{vendor}/{source}");
            build_root::copy_file(root, source, &cx.tree, format!("{DIRECTORY}/{target}"))?;
        }
    }
    grub::copy_font(root, &cx.tree, DIRECTORY)?;
    cx.tree.write(format!("{DIRECTORY}/grub.cfg"), &menu)?;
    if architectures.iter().any(|name| name == "IA32") {
        build_root::copy_file(&cx.tree, format!("{DIRECTORY}/grub.cfg"), &cx.tree, format!("{DIRECTORY}/BOOT.cfg"))?;
    }
    Ok(())
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

    fn options(architectures: Value) -> Value {
        let product = json!({"name": "Fedora", "version": "42"});
        let kernel = json!({"dir": "/images", "opts": []});
        json!({
            "product": product, "kernel": kernel, "isolabel": "L", "vendor": "fedora", "architectures": architectures,
        })
    }

    #[test]
    fn programs_get_the_names_that_firmware_looks_for() {
        let done = Case::new(&TEST).run(options(json!(["X64"]))).ok();
        assert_eq!(done.text("EFI/BOOT/BOOTX64.EFI"), "shim");
        assert_eq!(done.text("EFI/BOOT/mmx64.efi"), "manager");
        assert_eq!(done.text("EFI/BOOT/grubx64.efi"), "grub");
        assert_eq!(done.text("EFI/BOOT/fonts/unicode.pf2"), "font");
        assert!(done.text("EFI/BOOT/grub.cfg").contains("linux /images/vmlinuz  rd.live.check quiet\n"));
        assert!(!done.tree.exists("EFI/BOOT/BOOT.cfg").unwrap());
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let done = Case::new(&TEST).run(options(json!(["IA32"])));
        assert_eq!(done.err(), "cannot open /boot/efi/EFI/fedora/shimia32.efi: No such file or directory (os error 2)");
        let done = Case::new(&TEST).dir("EFI/BOOT").run(options(json!([])));
        assert!(done.err().starts_with("cannot create the directory /EFI/BOOT"));
        let mut without = options(json!([]));
        without.as_object_mut().unwrap().remove("vendor");
        assert_eq!(Case::new(&TEST).run(without).err(), "the option `vendor` is missing");
    }
}
