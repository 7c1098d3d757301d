//! Configures GRUB 2 as Debian has it, for booting by the BIOS.
//!
//! Writes `/boot/grub/grub.cfg` with an entry for each kernel `/boot/vmlinuz-VERSION`, the newest first, and its
//! `/boot/initrd.img-VERSION` where there is one, and copies GRUB's modules for `i386-pc` to `/boot/grub`, from the
//! tree that the input `grub` is, or else from the build root. Debian's GRUB knows no boot loader specification
//! entries, and its `update-grub` needs the disk that it boots from; this needs neither. `org.osbuild.grub2.inst` then
//! makes the disk bootable.
//!
//! ```json
//! {
//!   "type": "org.osbc.grub-debian",
//!   "inputs": {
//!     "grub": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:build"] }
//!   },
//!   "options": {
//!     "root": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75",
//!     "kernel_opts": ["ro", "console=ttyS0"],
//!     "serial": true,
//!     "timeout": 1
//!   }
//! }
//! ```

use std::cmp::Ordering;
use std::path::Path;

use osbc_module_api::*;

use crate::boot::bootloader;
use crate::boot::grub;
use crate::boot::grub_script;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbc.grub-debian",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Named(|_| vec![grub::files(bootloader::BIOS)])],
    schema: || Schema::stage::<Options>().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"root": "root"}}"#,
        r#"{"options": {"root": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "kernel_opts": "ro"}}"#,
        r#"{"options": {"root": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "kernel_opts": ["a\nb"]}}"#,
        r#"{"options": {"root": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "timeout": -1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let grub = cx.inputs.get("grub").map_or(Path::new("/"), |input| &input.path);
        run(cx, &Tree::open(grub)?)
    }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The UUID of the root file system, which holds `/boot`
    #[schemars(regex(pattern = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"))]
    root: String,
    /// The kernel's command line besides the root
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[^\s;{}|&$]+$")))]
    kernel_opts: Vec<String>,
    /// Whether the first serial port is a console too
    #[serde(default)]
    serial: bool,
    /// How many seconds the menu waits
    #[serde(default)]
    timeout: u32,
}

fn run(cx: &StageContext, root: &Tree) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let mut kernels = Vec::new();
    for name in cx.tree.read_dir("boot")? {
        if let Some(version) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
            let has_initrd = cx.tree.exists(format!("boot/initrd.img-{version}"))?;
            kernels.push((version.to_owned(), has_initrd));
        }
    }
    if kernels.is_empty() {
        return Err(Error::failed(
            "the tree has no kernel /boot/vmlinuz-VERSION; install a package such as linux-image-amd64",
        ));
    }
    kernels.sort_by(|(one, _), (other, _)| newer(one, other));
    grub::copy_modules(root, &cx.tree, bootloader::BIOS, "boot/grub")?;
    cx.tree.replace("boot/grub/grub.cfg", configuration(&options, &kernels)?, 0o644)
}

/// Orders versions, the newest first: numbers in them by their value.
fn newer(one: &str, other: &str) -> Ordering {
    let words = |version: &str| -> Vec<(u64, String)> {
        let parts = version.split_inclusive(|letter: char| !letter.is_ascii_digit());
        parts
            .map(|part| {
                let digits = part.trim_end_matches(|letter: char| !letter.is_ascii_digit());
                (digits.parse().unwrap_or(0), part[digits.len()..].to_owned())
            })
            .collect()
    };
    words(other).cmp(&words(one))
}

fn configuration(options: &Options, kernels: &[(String, bool)]) -> Result<String, Error> {
    let mut text = format!("set timeout={}\n", options.timeout);
    if options.serial {
        text += "serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n";
    }
    text += &format!("search --no-floppy --fs-uuid --set=root {}\n", options.root);
    let more: String = options.kernel_opts.iter().map(|word| format!(" {word}")).collect();
    let more = grub_script::kernel_options("kernel_opts", &more)?;
    for (version, has_initrd) in kernels {
        let title = grub_script::in_single_quotes(version);
        text += &format!("menuentry 'Debian GNU/Linux, with Linux {title}' {{\n");
        let kernel = grub_script::word(&format!("/boot/vmlinuz-{version}"));
        text += &format!("  linux {kernel} root=UUID={}{more}\n", options.root);
        if *has_initrd {
            text += &format!("  initrd {}\n", grub_script::word(&format!("/boot/initrd.img-{version}")));
        }
        text += "}\n";
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const ROOT: &str = "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75";

    #[test]
    fn modules_come_from_the_input_where_there_is_one() {
        let case = Case::new(&MODULE).file("boot/vmlinuz-6.1", "").input("grub", json!({}), |tree| {
            tree.create_dir_all("usr/lib/grub/i386-pc", 0o755).unwrap();
            tree.write("usr/lib/grub/i386-pc/normal.mod", "of the input").unwrap();
        });
        let done = case.run(json!({ "root": ROOT })).ok();
        assert_eq!(done.text("boot/grub/i386-pc/normal.mod"), "of the input");
    }

    /// The stage with a build root of the tests.
    static WITH_ROOT: ModuleDef = ModuleDef {
        kind: Kind::Stage,
        name: "org.osbc.grub-debian",
        revision: 1,
        capabilities: &[],
        requires: &[],
        schema: || Schema::stage::<Options>().version_2_alone(),
        rejects: &[],
        parse: parse::<Options>,
        entry: Entry::Stage(|cx| {
            let (_directory, root) = grub::test_root();
            run(cx, &root)
        }),
    };

    #[test]
    fn kernels_are_in_the_menu_the_newest_first() {
        let case = Case::new(&WITH_ROOT).file("boot/vmlinuz-6.1.0-9-amd64", "").file("boot/vmlinuz-6.1.0-10-amd64", "");
        let case = case.file("boot/initrd.img-6.1.0-10-amd64", "").file("boot/config-6.1.0-10-amd64", "");
        let options = json!({"root": ROOT, "kernel_opts": ["ro", "console=ttyS0"], "serial": true, "timeout": 2});
        let done = case.run(options).ok();
        let entry = |version: &str, initrd: &str| {
            format!(
                "menuentry 'Debian GNU/Linux, with Linux {version}' {{\n  linux /boot/vmlinuz-{version} root=UUID={ROOT} ro \
                 console=ttyS0\n{initrd}}}\n"
            )
        };
        let expected = format!(
            "set timeout=2\nserial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console \
             serial\nsearch --no-floppy --fs-uuid --set=root {ROOT}\n{}{}",
            entry("6.1.0-10-amd64", "  initrd /boot/initrd.img-6.1.0-10-amd64\n"),
            entry("6.1.0-9-amd64", ""),
        );
        assert_eq!(done.text("boot/grub/grub.cfg"), expected);
        assert_eq!(done.text("boot/grub/i386-pc/normal.mod"), "module");
    }

    #[test]
    fn a_tree_without_a_kernel_is_refused() {
        let done = Case::new(&WITH_ROOT).dir("boot").run(json!({"root": ROOT}));
        assert!(done.err().contains("the tree has no kernel"), "{}", done.err());
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut all = ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.10.0-1-amd64", "5.99.0"];
        all.sort_by(|one, other| newer(one, other));
        assert_eq!(all, ["6.10.0-1-amd64", "6.1.0-10-amd64", "6.1.0-9-amd64", "5.99.0"]);
    }
}
