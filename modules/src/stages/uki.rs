//! Makes a unified kernel image: kernel, initrd and command line in one executable for UEFI.
//!
//! Calls `objcopy` of the build root on systemd's stub there. The inputs `kernel`, `initrd` and `osrel` (the
//! `os-release` file) have one file each. With a source epoch that is also the time in the image's header, where
//! osbuild has the time at which it was made.
//!
//! ```json
//! {
//!   "type": "org.osbuild.uki",
//!   "inputs": {
//!     "kernel": { "type": "org.osbuild.files", "origin": "org.osbuild.pipeline",
//!       "references": { "name:os": { "file": "/usr/lib/modules/6.1.0/vmlinuz" } } },
//!     "initrd": { "type": "org.osbuild.files", "origin": "org.osbuild.pipeline",
//!       "references": { "name:os": { "file": "/boot/initrd" } } },
//!     "osrel": { "type": "org.osbuild.files", "origin": "org.osbuild.pipeline",
//!       "references": { "name:os": { "file": "/etc/os-release" } } }
//!   },
//!   "options": { "filename": "/EFI/Linux/image.efi", "kernel": { "opts": ["root=LABEL=root", "ro"] } }
//! }
//! ```

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::archives::single_file;
use crate::boot::pe::{self, Layout};
use crate::texts::one_line;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.uki",
    revision: 3,
    capabilities: &[],
    requires: &[Requirement::Tool("objcopy"), Requirement::File(STUB)],
    schema: || Schema::stage::<Options>().inputs(&["kernel", "initrd", "osrel"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x", "kernel": {}}}"#,
        r#"{"options": {"filename": "x", "kernel": {"opts": "ro"}}}"#,
        r#"{"options": {"filename": "x", "extra": 1}}"#,
        r#"{"options": {"filename": "x"}, "inputs": {"kernel": {}, "initrd": {}}}"#,
        r#"{"options": {"filename": "x"}, "inputs": {"kernel": {}, "initrd": {}, "osrel": {}, "splash": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, Path::new(STUB))),
};

/// Where the build root has systemd's stub.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    filename: String,
    /// The kernel's command line
    kernel: Option<Kernel>,
}

/// What it has besides the options does not count.
#[derive(Debug, Deserialize, JsonSchema)]
struct Kernel {
    /// The options of the command line
    opts: Vec<String>,
}

fn run(cx: &StageContext, stub: &Path) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let options: Options = cx.options()?;
    let missing = |error| {
        let packages = "systemd-boot-efi (Debian, Ubuntu) or systemd-boot-unsigned (Fedora)";
        Error::failed(format!("cannot read {} in the build root ({packages} has it): {error}", stub.display()))
    };
    let executable = outside::read(stub, outside::WHOLE).map_err(missing)?;
    let layout = Layout::read(&executable).map_err(|error| Error::failed(format!("{}: {error}", stub.display())))?;

    let words = options.kernel.map(|kernel| kernel.opts.join(" ")).unwrap_or_default();
    let mut command_line =
        tempfile::NamedTempFile::new().map_err(Error::io("create", "a file for the command line"))?;
    command_line.write_all(words.as_bytes()).map_err(Error::io("write", command_line.path()))?;

    let files = [
        ("osrel", single_file::path(cx, "osrel")?),
        ("cmdline", command_line.path().to_owned()),
        ("linux", single_file::path(cx, "kernel")?),
        ("initrd", single_file::path(cx, "initrd")?),
    ];
    let mut tool = cx.tool("objcopy")?;
    let mut address = layout.align(layout.end);
    for (section, path) in &files {
        let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
        tool = tool.arg("--add-section").arg(format!(".{section}={}", path.display()));
        tool = tool.arg("--change-section-vma").arg(format!(".{section}={address}"));
        address = layout.align(address + size);
    }
    tool.arg(stub).arg(cx.tree.path_for_tools(&options.filename)?).run()?;
    match cx.meta.source_epoch {
        Some(epoch) => set_time(&cx.tree, &options.filename, epoch),
        None => Ok(()),
    }
}

/// Sets the time in the header of an image, which has room for 32 bits of it, and the checksum that follows from it.
fn set_time(tree: &Tree, path: &str, seconds: i64) -> Result<(), Error> {
    let refused = |error| Error::failed(format!("{path}: {error}"));
    let mut image = tree.read(path)?;
    let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    let time = pe::timestamp(&image).map_err(refused)?;
    image[time..time + 4].copy_from_slice(&seconds.to_le_bytes());
    let (sum, place) = (pe::checksum(&image).map_err(refused)?, pe::checksum_place(&image).map_err(refused)?);
    let file = tree.open_file(path, OFlags::WRONLY, 0)?;
    for (number, place) in [(seconds, time), (sum, place)] {
        file.write_all_at(&number.to_le_bytes(), place as u64).map_err(Error::io("set the time of", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::{has_file, has_tool};
    use osbc_module_api::testing::Case;

    use super::*;

    fn case() -> Case {
        let one = |content: &'static str| move |tree: &Tree| tree.write("file", content).unwrap();
        let files = || json!({"files": {"file": {}}});
        let case = Case::new(&MODULE).input("kernel", files(), one("the kernel"));
        case.input("initrd", files(), one("the initrd")).input("osrel", files(), one("ID=test\n"))
    }

    #[test]
    fn each_part_becomes_a_section_behind_those_of_the_stub() {
        if !has_tool("objcopy") || !has_tool("objdump") || !has_file(STUB) {
            return;
        }
        let options = json!({"filename": "/image.efi", "kernel": {"opts": ["ro", "quiet"], "note": 1}});
        let image = || case().source_epoch(1_700_000_000).run(options.clone()).ok();
        let done = image();
        let path = done.tree.path_for_tools("image.efi").unwrap();
        for (section, content) in
            [(".osrel", "ID=test\n"), (".cmdline", "ro quiet"), (".linux", "the kernel"), (".initrd", "the initrd")]
        {
            let (part, copy) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
            let dump = format!("{section}={}", part.path().display());
            let dumped = Command::new("objcopy").arg("--dump-section").arg(dump).arg(&path).arg(copy.path()).status();
            assert!(dumped.unwrap().success());
            let found = fs::read(part.path()).unwrap();
            assert!(found.starts_with(content.as_bytes()), "{section}");
        }
        let layout = Layout::read(&fs::read(&path).unwrap()).unwrap();
        assert!(layout.end > Layout::read(&fs::read(STUB).unwrap()).unwrap().end);
        assert!(fs::read(&path).unwrap() == image().tree.read("image.efi").unwrap(), "the same each time");
        // Both the sum that objcopy wrote and that which follows from the time are those of the image.
        let of_objcopy = case().run(options).ok().tree.read("image.efi").unwrap();
        for image in [of_objcopy, fs::read(&path).unwrap()] {
            let place = pe::checksum_place(&image).unwrap();
            assert_eq!(image[place..place + 4], pe::checksum(&image).unwrap().to_le_bytes());
        }
    }

    #[test]
    fn what_is_missing_or_no_stub_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let stub = directory.path().join("stub");
        let mut context = StageContext {
            tree: Tree::open(directory.path()).unwrap(),
            options: json!({"filename": "x"}),
            requires: MODULE.requires,
            inputs: Default::default(),
            devices: Default::default(),
            mounts: Default::default(),
            meta: StageMeta { id: String::new(), source_epoch: None },
            metadata: Default::default(),
        };
        let refused = |context: &StageContext| run(context, &stub).unwrap_err().to_string();
        assert!(refused(&context).contains("systemd-boot-efi"), "{}", refused(&context));
        fs::write(&stub, "MZ").unwrap();
        assert!(refused(&context).ends_with("it is no executable for 64-bit UEFI"), "{}", refused(&context));
        context.options = json!({});
        assert!(refused(&context).contains("filename"));
    }
}
