//! Puts isolinux on a disc: the boot loader for a BIOS, its menu, the kernel and the initrd.
//!
//! The loader and its picture come from the tree of the input `data`, the kernel from the directory `kernel.dir` of the
//! disc, from where it gets a second name. All goes to `/isolinux`, which must not be there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.isolinux",
//!   "options": {
//!     "product": { "name": "Fedora", "version": "42" },
//!     "kernel": { "dir": "/images/pxeboot", "opts": ["inst.stage2=hd:LABEL=Fedora-42"] }
//!   },
//!   "inputs": {
//!     "data": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:bootiso-data"] }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::boot::iso_menu::Product;
use crate::texts::one_line;
use crate::texts::template;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.isolinux",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["data"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"kernel": {"dir": "/"}}, "inputs": {"data": {}}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {}}, "inputs": {"data": {}}}"#,
        r#"{"options": {"product": {"name": "a", "version": 1}, "kernel": {"dir": "/"}}, "inputs": {"data": {}}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}}, "inputs": {}}"#,
        r#"{"options": {"product": {"name": "a", "version": "1"}, "kernel": {"dir": "/"}, "debug": true}, "inputs": {"data": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const DIRECTORY: &str = "isolinux";
const PROGRAMS: [&str; 5] = ["isolinux.bin", "ldlinux.c32", "libcom32.c32", "libutil.c32", "vesamenu.c32"];

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What is installed.
    product: Product,
    /// The kernel that the disc boots.
    kernel: Kernel,
    /// Whether there is an entry to install in FIPS mode.
    #[serde(default)]
    fips: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Kernel {
    /// The directory of `vmlinuz` and `initrd.img` on the disc.
    dir: String,
    /// The kernel's options.
    #[serde(default)]
    opts: Vec<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { product, kernel, fips } = cx.options()?;
    let data = Tree::open(&cx.input("data")?.path)?;
    cx.tree.create_dir(DIRECTORY, 0o777)?;
    let splash = data.read("usr/share/anaconda/boot/syslinux-splash.png")?;
    cx.tree.write(format!("{DIRECTORY}/splash.png"), splash)?;
    for name in PROGRAMS {
        let target = format!("{DIRECTORY}/{name}");
        cx.tree.write(&target, data.read(format!("usr/share/syslinux/{name}"))?)?;
        cx.tree.chmod(&target, 0o755)?;
    }
    cx.tree.write(format!("{DIRECTORY}/isolinux.cfg"), menu(&product, &kernel.opts.join(" "), fips))?;
    for name in ["vmlinuz", "initrd.img"] {
        let kernel = format!("{}/{name}", kernel.dir.trim_matches('/'));
        cx.tree.hard_link(kernel, format!("{DIRECTORY}/{name}"))?;
    }
    Ok(())
}

/// The menu as the installer's discs have it.
fn menu(product: &Product, options: &str, fips: bool) -> String {
    let values = [("product", product.name.as_str()), ("version", &product.version), ("cmdline", options)];
    let fips = if fips { template::fill(FIPS, &values) } else { String::new() };
    template::fill(MENU, &[&values[..], &[("fipsentry", fips.as_str())]].concat())
}

const FIPS: &str = "
label fips
  menu label ^Install ${product} ${version} in FIPS mode
  kernel vmlinuz
  append initrd=initrd.img ${cmdline} quiet fips=1

";

const MENU: &str = "
default vesamenu.c32
timeout 600

display boot.msg

# Clear the screen when exiting the menu, instead of leaving the menu displayed.
# For vesamenu, this means the graphical background is still displayed without
# the menu itself for as long as the screen remains in graphics mode.
menu clear
menu background splash.png
menu title ${product} ${version}
menu vshift 8
menu rows 18
menu margin 8
#menu hidden
menu helpmsgrow 15
menu tabmsgrow 13

# Border Area
menu color border * #00000000 #00000000 none

# Selected item
menu color sel 0 #ffffffff #00000000 none

# Title bar
menu color title 0 #ff7ba3d0 #00000000 none

# Press [Tab] message
menu color tabmsg 0 #ff3a6496 #00000000 none

# Unselected menu item
menu color unsel 0 #84b8ffff #00000000 none

# Selected hotkey
menu color hotsel 0 #84b8ffff #00000000 none

# Unselected hotkey
menu color hotkey 0 #ffffffff #00000000 none

# Help text
menu color help 0 #ffffffff #00000000 none

# A scrollbar of some type? Not sure.
menu color scrollbar 0 #ffffffff #ff355594 none

# Timeout msg
menu color timeout 0 #ffffffff #00000000 none
menu color timeout_msg 0 #ffffffff #00000000 none

# Command prompt text
menu color cmdmark 0 #84b8ffff #00000000 none
menu color cmdline 0 #ffffffff #00000000 none

# Do not display the actual menu unless the user presses a key. All that is displayed is a timeout message.

menu tabmsg Press Tab for full configuration options on menu items.

menu separator # insert an empty line
menu separator # insert an empty line

label linux
  menu label ^Install ${product} ${version}
  kernel vmlinuz
  append initrd=initrd.img ${cmdline} quiet

label check
  menu label Test this ^media & install ${product} ${version}
  menu default
  kernel vmlinuz
  append initrd=initrd.img ${cmdline} rd.live.check quiet

$fipsentry
menu separator # insert an empty line

# utilities submenu
menu begin ^Troubleshooting
  menu title Troubleshooting ${product} ${version}

label basic
  menu indent count 5
  menu label Install using ^basic graphics mode
  text help
\tTry this option out if you're having trouble installing
\t${product} ${version}.
  endtext
  kernel vmlinuz
  append initrd=initrd.img ${cmdline} nomodeset quiet
label rescue
  menu indent count 5
  menu label ^Rescue a ${product} system
  text help
\tIf the system will not boot, this lets you access files
\tand edit config files to try to get it booting again.
  endtext
  kernel vmlinuz
  append initrd=initrd.img ${cmdline} inst.rescue quiet
label memtest
  menu label Run a ^memory test
  text help
\tIf your system is having issues, a problem with your
\tsystem's memory may be the cause. Use this utility to
\tsee if the memory is working correctly.
  endtext
  kernel memtest

menu separator # insert an empty line

label local
  menu label Boot from ^local drive
  localboot 0xffff

menu separator # insert an empty line
menu separator # insert an empty line

label returntomain
  menu label Return to ^main menu
  menu exit

";

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case(programs: &[&str]) -> Case {
        let case = Case::new(&MODULE).file("images/vmlinuz", "kernel").file("images/initrd.img", "initrd");
        case.input("data", json!({}), |tree| {
            tree.create_dir_all("usr/share/anaconda/boot", 0o755).unwrap();
            tree.create_dir_all("usr/share/syslinux", 0o755).unwrap();
            tree.write("usr/share/anaconda/boot/syslinux-splash.png", "picture").unwrap();
            for name in programs {
                tree.write(format!("usr/share/syslinux/{name}"), name).unwrap();
            }
        })
    }

    fn options() -> Value {
        json!({"product": {"name": "Fedora", "version": "42"}, "kernel": {"dir": "/images/", "opts": ["a", "b"]}})
    }

    #[test]
    fn loader_kernel_and_menu_lie_in_one_directory() {
        let done = case(&PROGRAMS).run(options()).ok();
        assert_eq!(
            (done.text("isolinux/vesamenu.c32").as_str(), done.mode("isolinux/vesamenu.c32")),
            ("vesamenu.c32", 0o755)
        );
        assert_eq!((done.text("isolinux/splash.png").as_str(), done.mode("isolinux/splash.png")), ("picture", 0o644));
        let links = std::os::unix::fs::MetadataExt::nlink(&done.tree.metadata("isolinux/vmlinuz").unwrap());
        assert_eq!((done.text("isolinux/initrd.img").as_str(), links), ("initrd", 2));
        let menu = done.text("isolinux/isolinux.cfg");
        assert!(menu.starts_with("\ndefault vesamenu.c32\n") && menu.ends_with("  menu exit\n\n"), "{menu}");
        assert!(menu.contains("append initrd=initrd.img a b rd.live.check quiet\n\n\nmenu separator"), "{menu}");
        assert!(menu.contains("\tFedora 42.\n") && !menu.contains("${"), "{menu}");
    }

    #[test]
    fn fips_has_an_entry_on_demand() {
        let product = Product { name: "P".into(), version: "1".into() };
        let text = menu(&product, "", true);
        let entry = "\n\n\nlabel fips\n  menu label ^Install P 1 in FIPS mode\n  kernel vmlinuz\n  append initrd=initrd.img  \
                     quiet fips=1\n\n\nmenu separator";
        assert!(text.contains(entry), "{text}");
    }

    #[test]
    fn what_is_missing_is_an_error() {
        assert!(case(&PROGRAMS[1..]).run(options()).err().starts_with("cannot read /usr/share/syslinux/isolinux.bin"));
        assert!(
            case(&PROGRAMS).dir("isolinux").run(options()).err().starts_with("cannot create the directory /isolinux")
        );
    }
}
