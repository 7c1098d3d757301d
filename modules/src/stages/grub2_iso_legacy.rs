//! Puts GRUB 2 and a menu that installs a system on a disc that boots without UEFI.
//!
//! All that the build root has of GRUB for `platform` goes to the directory `grub2dir` of the tree, with the menu
//! beside it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.grub2.iso.legacy",
//!   "options": {
//!     "product": { "name": "Fedora", "version": "42" },
//!     "kernel": { "dir": "/images/pxeboot", "opts": ["inst.stage2=hd:LABEL=Fedora-42"] },
//!     "isolabel": "Fedora-42"
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::boot::grub;
use crate::boot::iso_menu::{Config, Custom, Firmware, Kernel, Menu, Product};
use crate::texts::one_line;
use crate::trees::build_root;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.grub2.iso.legacy",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Named(|options| vec![grub::files(options["platform"].as_str().unwrap_or("i386-pc"))])],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}}}"#,
        r#"{"options": {"product": {"name": "a"}, "kernel": {"dir": "/"}, "isolabel": "l"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {}, "isolabel": "l"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "platform": "x86"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "vendor": "fedora"}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "isolabel": "l", "config": {"default": "1"}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &build_root::here()?)),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// GRUB's directory in the tree. An empty one is the usual one.
    #[serde(default = "directory")]
    grub2dir: String,
    /// What is installed.
    product: Product,
    /// The kernel that the disc boots.
    kernel: Kernel,
    /// The disc's label.
    isolabel: String,
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
    /// GRUB's platform.
    #[serde(default)]
    platform: Platform,
    /// Entries before all others.
    #[serde(default)]
    custom: Vec<Custom>,
    /// Settings of GRUB.
    #[serde(default)]
    config: Config,
}

fn directory() -> String {
    "boot/grub2".to_owned()
}

fn yes() -> bool {
    true
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
enum Platform {
    #[default]
    #[serde(rename = "i386-pc")]
    Bios,
    #[serde(rename = "powerpc-ieee1275")]
    OpenFirmware,
}

fn run(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { grub2dir, platform, product, kernel, isolabel, fips, .. } = cx.options()?;
    let Options { troubleshooting, test, install, custom, config, .. } = cx.options()?;
    let menu = Menu { product, kernel, isolabel, fips, troubleshooting, test, install, custom, config };
    let menu = menu.text(Firmware::Other)?;
    let directory = if grub2dir.is_empty() { directory() } else { grub2dir };
    let platform = match platform {
        Platform::Bios => "i386-pc",
        Platform::OpenFirmware => "powerpc-ieee1275",
    };
    cx.tree.create_dir_all(&directory, 0o777)?;
    build_root::copy_directory(root, grub::files(platform), &cx.tree, format!("{directory}/{platform}"), true)?;
    cx.tree.write(format!("{directory}/grub.cfg"), menu)
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

    fn options(directory: &str, platform: &str) -> Value {
        let product = json!({"name": "Fedora", "version": "42"});
        let kernel = json!({"dir": "/images/", "opts": ["a"]});
        json!({"product": product, "kernel": kernel, "isolabel": "L", "grub2dir": directory, "platform": platform})
    }

    #[test]
    fn all_of_a_platform_is_copied() {
        for (directory, place) in [("", "boot/grub2"), ("/x/y", "x/y")] {
            let case = Case::new(&TEST).file(&format!("{place}/i386-pc/normal.mod"), "old");
            let done = case.run(options(directory, "i386-pc")).ok();
            assert_eq!(done.text(&format!("{place}/i386-pc/normal.mod")), "module");
            assert_eq!(done.text(&format!("{place}/i386-pc/boot.img")), "image");
            assert!(done.text(&format!("{place}/grub.cfg")).contains("linux /images/vmlinuz a quiet\n"));
        }
    }

    #[test]
    fn the_platform_must_be_in_the_build_root() {
        let done = Case::new(&TEST).run(options("", "powerpc-ieee1275"));
        assert!(done.err().starts_with("cannot list /usr/lib/grub/powerpc-ieee1275"));
    }
}
