//! The files by which UEFI boots a live system: those of the installed one without what only an installed one needs,
//! and a FAT image of them.
//!
//! Knows nothing of what else is on the medium.

use std::fs::File;
use std::path::Path;

use osbc_module_api::tree::Copy;
use osbc_module_api::*;

use crate::disks::fat;

/// Where the newer packages of shim and GRUB have their files, each below its name and version.
const PACKAGES: &str = "usr/lib/efi";
/// Where else they may be: of systems that are images, and of systems that are packages.
const DIRECTORIES: [&str; 2] = ["usr/lib/bootupd/updates/EFI", "boot/efi/EFI"];

/// The directory of what firmware starts by itself.
pub(crate) const BOOT: &str = "BOOT";

/// What the file system needs besides its files.
const OVERHEAD: u64 = 2 << 20;
const SECTOR: u64 = 512;

/// The directories of a system with files for UEFI.
fn sources(system: &Tree) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    if system.is_dir(PACKAGES)? {
        for package in names(system, PACKAGES)? {
            let package = format!("{PACKAGES}/{package}");
            if system.is_dir(&package)? {
                for version in names(system, &package)? {
                    let directory = format!("{package}/{version}/EFI");
                    if system.is_dir(&directory)? {
                        found.push(directory);
                    }
                }
            }
        }
    }
    match found.len() {
        2 => return Ok(found),
        0 => {}
        count => {
            return Err(Error::failed(format!("/{PACKAGES} has {count} directories EFI, not those of shim and GRUB")));
        }
    }
    for directory in DIRECTORIES {
        if system.is_dir(directory)? {
            return Ok(vec![directory.to_owned()]);
        }
    }
    Err(Error::failed("the system has no files for UEFI"))
}

fn names(tree: &Tree, directory: &str) -> Result<Vec<String>, Error> {
    let visible = tree.read_dir(directory)?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(visible.filter(|name| !name.starts_with('.')).collect())
}

/// The name of the distributor's directory.
///
/// # Errors
/// The system has no files for UEFI, or not those of one distributor.
pub(crate) fn vendor(system: &Tree) -> Result<String, Error> {
    vendor_in(system, &sources(system)?[0])
}

fn vendor_in(tree: &Tree, directory: &str) -> Result<String, Error> {
    let others: Vec<String> = names(tree, directory)?.into_iter().filter(|name| name != BOOT).collect();
    match others.as_slice() {
        [vendor] => Ok(vendor.clone()),
        _ => Err(Error::failed(format!("the files for UEFI are not those of one distributor: {}", others.join(", ")))),
    }
}

/// Fills an empty directory with the files that boot from a medium: all in `BOOT`, without the fallback that makes
/// entries of installed systems, and without the distributor's copies of shim.
///
/// # Errors
/// The system lacks some of them, or they cannot be copied.
pub(crate) fn fill(system: &Tree, efi: &Tree) -> Result<(), Error> {
    for source in sources(system)? {
        Copy::default().run(system, format!("{source}/."), efi, "/")?;
    }
    let vendor = vendor_in(efi, "/")?;
    let patterns = [(BOOT, "fb", ".efi"), (vendor.as_str(), "BOOT", ".CSV"), (vendor.as_str(), "shim", ".efi")];
    for (directory, start, end) in patterns {
        let all = names(efi, directory)?;
        let matching: Vec<_> = all.iter().filter(|name| name.starts_with(start) && name.ends_with(end)).collect();
        if matching.is_empty() {
            return Err(Error::failed(format!("the files for UEFI have no {directory}/{start}*{end}")));
        }
        matching.into_iter().try_for_each(|name| efi.remove_file(format!("{directory}/{name}")))?;
    }
    for name in names(efi, &vendor)? {
        efi.rename(format!("{vendor}/{name}"), format!("{BOOT}/{name}"))?;
    }
    efi.remove_dir_all(vendor)
}

/// Makes a FAT image with the directory `EFI` of `parent`.
///
/// # Errors
/// A tool is missing or fails.
pub(crate) fn image(cx: &StageContext, parent: &Tree, image: &Path) -> Result<(), Error> {
    let mut size = OVERHEAD;
    parent.walk("EFI", |_, metadata| {
        // As long as a tar archive of them would be, by which osbuild takes the measure.
        size += 3 * SECTOR + if metadata.is_file() { metadata.len().next_multiple_of(SECTOR) } else { 0 };
        Ok(())
    })?;
    let file = File::create(image).map_err(Error::io("create", image))?;
    file.set_len(size.next_multiple_of(20 * SECTOR)).map_err(Error::io("extend", image))?;
    cx.tool("mkfs.fat")?.args(["-I", "--mbr=n", "-n", "EFI-SYSTEM"]).arg(image).run()?;
    let tool = fat::prepared(cx, cx.tool("mcopy")?);
    tool.args(["-s", "-m", "-Q", "-i"]).arg(image).arg(parent.path_for_tools("EFI")?).arg("::/").run()
}

/// GRUB's configuration in that image: it looks for that of the medium.
pub(crate) fn grub_configuration(volume: &str, vendor: &str) -> String {
    format!(
        "search --label \"{volume}\" --set root --no-floppy\nset prefix=($root)/EFI/{vendor}\n\
         echo \"Booting via ESP...\"\nconfigfile $prefix/grub.cfg\nboot\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[&str]) -> (tempfile::TempDir, Tree, Tree) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["system", "efi"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let system = Tree::open(directory.path().join("system")).unwrap();
        for path in files {
            system.create_dir_all(Path::new(path).parent().unwrap(), 0o755).unwrap();
            system.write(path, *path).unwrap();
        }
        let efi = Tree::open(directory.path().join("efi")).unwrap();
        (directory, system, efi)
    }

    #[test]
    fn everything_goes_to_the_directory_that_firmware_starts() {
        let old =
            ["BOOT/BOOTX64.EFI", "BOOT/fbx64.efi", "fedora/BOOTX64.CSV", "fedora/shimx64.efi", "fedora/grubx64.efi"]
                .map(|name| format!("boot/efi/EFI/{name}"));
        let new = [
            "shim/1/EFI/BOOT/BOOTX64.EFI",
            "shim/1/EFI/BOOT/fbx64.efi",
            "shim/1/EFI/fedora/BOOTX64.CSV",
            "shim/1/EFI/fedora/shimx64.efi",
            "grub/2/EFI/fedora/grubx64.efi",
        ]
        .map(|name| format!("usr/lib/efi/{name}"));
        for files in [old, new] {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let (_directory, system, efi) = self::system(&files);
            assert!(vendor(&system).is_ok());
            fill(&system, &efi).unwrap();
            assert_eq!(efi.read_dir("/").unwrap(), ["BOOT"]);
            assert_eq!(efi.read_dir("BOOT").unwrap(), ["BOOTX64.EFI", "grubx64.efi"]);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |files: &[&str]| {
            let (_directory, system, efi) = self::system(files);
            fill(&system, &efi).unwrap_err().to_string()
        };
        assert_eq!(error(&[]), "the system has no files for UEFI");
        let one = error(&["usr/lib/efi/shim/1/EFI/BOOT/BOOTX64.EFI"]);
        assert_eq!(one, "/usr/lib/efi has 1 directories EFI, not those of shim and GRUB");
        let two = error(&["boot/efi/EFI/a/x", "boot/efi/EFI/b/x"]);
        assert_eq!(two, "the files for UEFI are not those of one distributor: a, b");
        let fallback = error(&["boot/efi/EFI/a/x", "boot/efi/EFI/BOOT/x"]);
        assert_eq!(fallback, "the files for UEFI have no BOOT/fb*.efi");
    }
}
