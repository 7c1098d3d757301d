//! Makes an ISO 9660 image with Rock Ridge extensions of a tree.
//!
//! Calls `xorrisofs` of the build root on the input `tree`. The image boots by GRUB 2 where `grub2mbr` names a file of
//! the build root, on PowerPC where `chrp_boot` is given, and otherwise by Syslinux. `boot` says what the BIOS starts,
//! `efi` is an image of the input that UEFI starts.
//!
//! ```json
//! {
//!   "type": "org.osbuild.xorrisofs",
//!   "inputs": {
//!     "tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:iso-tree"] }
//!   },
//!   "options": {
//!     "filename": "installer.iso",
//!     "volid": "INSTALLER",
//!     "boot": { "image": "images/eltorito.img", "catalog": "boot.cat" },
//!     "efi": "images/efiboot.img",
//!     "grub2mbr": "/usr/lib/grub/i386-pc/boot_hybrid.img",
//!     "isolevel": 3
//!   }
//! }
//! ```

use std::ffi::OsString;
use std::path::Path;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.xorrisofs",
    revision: 1,
    capabilities: &[],
    requires: &[
        Requirement::Tool("xorrisofs"),
        Requirement::Named(|options| options["grub2mbr"].as_str().map(str::to_owned).into_iter().collect()),
    ],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"filename": "x.iso"}}"#,
        r#"{"options": {"volid": "X"}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "lower"}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "X", "pub": ""}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "X", "isolevel": 5}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "X", "boot": {"image": "x"}}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "X", "exclude": "a"}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "X", "extra": 1}}"#,
        r#"{"options": {"filename": "x.iso", "volid": "X"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// Up to 128 letters.
const TEXT: &str = "^.{1,128}$";
/// What ISO 9660 lets identifiers be.
const IDENTIFIER: &str = "[A-Z0-9_-]{1,32}";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    filename: String,
    /// Identifier of the volume
    #[schemars(regex(pattern = IDENTIFIER))]
    volid: String,
    /// Identifier of the system
    #[schemars(regex(pattern = IDENTIFIER))]
    sysid: Option<String>,
    /// Who publishes it
    #[serde(rename = "pub")]
    #[schemars(regex(pattern = TEXT))]
    publisher: Option<String>,
    /// Identifier of the application
    #[schemars(regex(pattern = TEXT))]
    appid: Option<String>,
    /// Who prepared it
    #[schemars(regex(pattern = TEXT))]
    prep: Option<String>,
    /// What the BIOS starts
    boot: Option<Boot>,
    /// The image that UEFI starts, a path in the input
    efi: Option<String>,
    /// The file of the build root to put in the first sector, of GRUB 2
    grub2mbr: Option<String>,
    /// The file of the build root to put in the first sector, of Syslinux
    isohybridmbr: Option<String>,
    /// The level of ISO 9660, which limits sizes and names
    #[schemars(range(min = 1, max = 4))]
    isolevel: Option<i64>,
    /// What is left out
    #[serde(default)]
    exclude: Vec<String>,
    /// Whether owners and modes are made fit for any reader (PowerPC)
    #[serde(default)]
    rational_rock: bool,
    /// Whether names may have any letters (PowerPC)
    #[serde(default)]
    untranslated_filenames: bool,
    /// Whether names may have 31 letters (PowerPC)
    #[serde(default)]
    full_filenames: bool,
    /// Identifier of the set of volumes (PowerPC)
    #[schemars(regex(pattern = TEXT))]
    volset: Option<String>,
    /// Whether the image is marked as a partition to boot from; if given at all, the image is for PowerPC
    chrp_boot: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Boot {
    /// Path of the boot image in the input
    image: String,
    /// Path of the boot catalog on the image
    catalog: String,
    /// Whether the boot image gets no table that says where it lies
    #[serde(default)]
    nobootinfo: bool,
}

/// A command line in the making.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn say(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    /// What all kinds of images say about themselves.
    fn describe(&mut self, options: &Options) {
        if let Some(level) = options.isolevel {
            self.say(&["-iso-level", &level.to_string()]);
        }
        self.say(&["-V", &options.volid]);
        let texts = [
            ("-sysid", &options.sysid),
            ("-publisher", &options.publisher),
            ("-appid", &options.appid),
            ("-preparer", &options.prep),
        ];
        for (option, text) in texts {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                self.say(&[option, text]);
            }
        }
    }
}

/// The file of the input that UEFI starts, where there is one.
fn efi(options: &Options) -> Option<&str> {
    options.efi.as_deref().filter(|efi| !efi.is_empty())
}

fn grub2(options: &Options, input: &Tree, first_sector: &str) -> Result<Words, Error> {
    if !Path::new(first_sector).exists() {
        let packages = "grub-pc-bin (Debian, Ubuntu) or grub2-pc-modules (Fedora)";
        return Err(Error::failed(format!("{first_sector} is not in the build root; {packages} may have it")));
    }
    let mut words = Words::default();
    words.say(&["-verbose", "-rock", "-joliet"]);
    words.describe(options);
    words.say(&["--grub2-mbr", first_sector]);
    if let Some(efi) = efi(options) {
        words.say(&["-partition_offset", "16", "-appended_part_as_gpt"]);
        words.say(&["-append_partition", "2", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"]);
        words.0.push(input.path_for_tools(efi)?.into());
    }
    words.say(&["-iso_mbr_part_type", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"]);
    if let Some(boot) = &options.boot {
        words.say(&["-b", &boot.image, "-c", &boot.catalog, "--boot-catalog-hide", "-no-emul-boot"]);
        words.say(&["-boot-load-size", "4"]);
        if !boot.nobootinfo {
            words.say(&["-boot-info-table", "--grub2-boot-info"]);
        }
        if efi(options).is_some() {
            words.say(&["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::"]);
        }
    }
    words.say(&["-no-emul-boot"]);
    Ok(words)
}

fn power_pc(options: &Options) -> Result<Words, Error> {
    if efi(options).is_some() {
        return Err(Error::failed("PowerPC has no UEFI; leave out `efi` or `chrp_boot`"));
    }
    let mut words = Words::default();
    words.say(&["-verbose", "-rock", "-joliet"]);
    words.describe(options);
    let flags = [
        (options.rational_rock, "-rational-rock"),
        (options.untranslated_filenames, "-untranslated-filenames"),
        (options.full_filenames, "-full-iso9660-filenames"),
    ];
    flags.iter().filter(|(given, _)| *given).for_each(|(_, flag)| words.say(&[flag]));
    if let Some(set) = &options.volset {
        words.say(&["-volset", set, "-volset-size", "1", "-volset-seqno", "1"]);
    }
    if options.chrp_boot == Some(true) {
        words.say(&["-chrp-boot"]);
    }
    Ok(words)
}

fn syslinux(options: &Options) -> Words {
    let mut words = Words::default();
    words.say(&["-verbose"]);
    words.describe(options);
    let first_sector = options.isohybridmbr.as_deref().filter(|path| !path.is_empty());
    if let Some(path) = first_sector {
        words.say(&["-isohybrid-mbr", path]);
    }
    if let Some(boot) = &options.boot {
        words.say(&["-b", &boot.image, "-c", &boot.catalog, "--boot-catalog-hide", "-boot-load-size", "4"]);
        if !boot.nobootinfo {
            words.say(&["-boot-info-table"]);
        }
        words.say(&["-no-emul-boot"]);
    }
    words.say(&["-rock", "-joliet"]);
    if let Some(efi) = efi(options) {
        words.say(&["-eltorito-alt-boot", "-e", efi, "-no-emul-boot"]);
        if first_sector.is_some() {
            words.say(&["-isohybrid-gpt-basdat"]);
        }
    }
    words
}

/// Returns the arguments of `xorrisofs` other than exclusions, target and source.
fn words(options: &Options, input: &Tree) -> Result<Vec<OsString>, Error> {
    let words = match &options.grub2mbr {
        _ if options.chrp_boot.is_some() => power_pc(options)?,
        Some(first_sector) => grub2(options, input, first_sector)?,
        None => syslinux(options),
    };
    Ok(words.0)
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let input = &cx.input("tree")?.path;
    let words = words(&options, &Tree::open(input)?)?;
    let excludes = options.exclude.iter().flat_map(|exclude| ["-exclude", exclude]);
    let target = cx.tree.path_for_tools(&options.filename)?;
    cx.tool("xorrisofs")?.args(words).args(excludes).arg("-o").arg(target).arg(input).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    fn said(options: Value) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("efi.img"), "").unwrap();
        let options = Options::deserialize(options).expect("valid options");
        let words = words(&options, &Tree::open(directory.path()).unwrap()).map_err(|error| error.to_string())?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" ").replace(directory.path().to_str().unwrap(), "INPUT"))
    }

    #[test]
    fn syslinux_boots_by_default() {
        let plain = json!({"filename": "x", "volid": "X"});
        assert_eq!(said(plain).unwrap(), "-verbose -V X -rock -joliet");
        let all = json!({
            "filename": "x", "volid": "X", "sysid": "LINUX", "pub": "p", "appid": "a", "prep": "q", "isolevel": 3,
            "boot": {"image": "i", "catalog": "c"}, "efi": "efi.img", "isohybridmbr": "/m", "exclude": ["e"],
        });
        assert_eq!(
            said(all).unwrap(),
            "-verbose -iso-level 3 -V X -sysid LINUX -publisher p -appid a -preparer q -isohybrid-mbr /m -b i -c c \
             --boot-catalog-hide -boot-load-size 4 -boot-info-table -no-emul-boot -rock -joliet -eltorito-alt-boot \
             -e efi.img -no-emul-boot -isohybrid-gpt-basdat"
        );
    }

    #[test]
    fn grub_boots_where_its_first_sector_is_named() {
        let options = json!({
            "filename": "x", "volid": "X", "grub2mbr": "/dev/null", "efi": "/efi.img",
            "boot": {"image": "i", "catalog": "c", "nobootinfo": true},
        });
        assert_eq!(
            said(options).unwrap(),
            "-verbose -rock -joliet -V X --grub2-mbr /dev/null -partition_offset 16 -appended_part_as_gpt \
             -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B INPUT/efi.img \
             -iso_mbr_part_type EBD0A0A2-B9E5-4433-87C0-68B6B72699C7 -b i -c c --boot-catalog-hide -no-emul-boot \
             -boot-load-size 4 -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot"
        );
        let missing = said(json!({"filename": "x", "volid": "X", "grub2mbr": "/nowhere/boot.img"})).unwrap_err();
        assert!(missing.starts_with("/nowhere/boot.img is not in the build root"), "{missing}");
    }

    #[test]
    fn power_pc_boots_without_uefi() {
        let options = json!({
            "filename": "x", "volid": "X", "chrp_boot": true, "rational_rock": true, "untranslated_filenames": true,
            "full_filenames": true, "volset": "s", "grub2mbr": "does not count",
        });
        assert_eq!(
            said(options).unwrap(),
            "-verbose -rock -joliet -V X -rational-rock -untranslated-filenames -full-iso9660-filenames -volset s \
             -volset-size 1 -volset-seqno 1 -chrp-boot"
        );
        let refused = said(json!({"filename": "x", "volid": "X", "chrp_boot": false, "efi": "efi.img"}));
        assert!(refused.unwrap_err().contains("PowerPC has no UEFI"));
    }

    #[test]
    fn the_tool_makes_the_image() {
        if !has_tool("xorrisofs") || !has_tool("xorriso") {
            return;
        }
        let fill = |tree: &Tree| {
            tree.write("kept", "content").unwrap();
            tree.write("left-out", "").unwrap();
        };
        let options = json!({"filename": "x.iso", "volid": "TITLE", "exclude": ["left-out"]});
        let done = Case::new(&MODULE).input("tree", json!({}), fill).run(options).ok();
        let image = done.tree.path_for_tools("x.iso").unwrap();
        let output = Command::new("xorriso").arg("-indev").arg(image).args(["-toc", "-find", "/"]).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(report.contains("'TITLE'") && report.contains("'/kept'") && !report.contains("left-out"), "{report}");
    }
}
