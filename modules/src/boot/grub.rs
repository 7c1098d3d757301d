//! What the stages for GRUB 2 share: which file system GRUB looks for, terminals, the block of its environment, and the
//! parts of GRUB that come from the build root.

use std::path::Path;

use osbc_module_api::*;

use crate::texts::shell;
use crate::trees::build_root;

/// How GRUB finds a file system.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["uuid"]}, {"required": ["label"]}]))]
pub(crate) struct FileSystem {
    /// Its UUID.
    pub(crate) uuid: Option<Uuid>,
    /// Its label.
    pub(crate) label: Option<String>,
}

/// The UUID of a file system, that of a FAT one included.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct Uuid(
    #[schemars(extend("oneOf" = [
        {"pattern": "^[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}$"},
        {"pattern": "^[0-9A-Za-z]{4}-[0-9A-Za-z]{4}$"},
    ]))]
    pub(crate) String,
);

impl FileSystem {
    /// What says which one it is, e.g. `UUID` and the UUID.
    ///
    /// # Errors
    /// It has an empty name.
    pub(crate) fn name(&self) -> Result<(&'static str, &str), Error> {
        let uuid = self.uuid.as_ref().map(|uuid| ("UUID", uuid.0.as_str()));
        let names = [uuid, self.label.as_deref().map(|label| ("LABEL", label))];
        let name = names.into_iter().flatten().find(|(_, name)| !name.is_empty());
        name.ok_or_else(|| Error::failed("a file system has an empty name"))
    }
}

/// GRUB's option to search for a file system by a name of this kind.
pub(crate) fn search(kind: &str) -> &'static str {
    if kind == "UUID" { "--fs-uuid" } else { "--label" }
}

/// A setting of terminals, in a line of its own behind the one before; nothing unless there are any.
pub(crate) fn terminals(command: &str, terminals: Option<&[String]>) -> Option<String> {
    words(terminals).map(|terminals| format!("\n{command} {terminals}"))
}

/// Lines for `/etc/default/grub`, which a shell reads, of what is set, each with its value in quotes.
pub(crate) fn quoted(settings: &[(&str, Option<String>)]) -> String {
    let set = settings.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    set.map(|(name, value)| format!("{name}={}\n", shell::quoted(value))).collect()
}

/// The distributor that Fedora and its kin have in `/etc/default/grub`: what the system itself says.
const OF_THE_SYSTEM: &str = "$(sed 's, release .*$,,g' /etc/system-release)";

/// The line for `/etc/default/grub` that names the distributor, if it is set.
pub(crate) fn distributor(name: Option<&String>) -> String {
    match name.map_or("", String::as_str) {
        "" => String::new(),
        OF_THE_SYSTEM => format!("GRUB_DISTRIBUTOR=\"{OF_THE_SYSTEM}\"\n"),
        name => format!("GRUB_DISTRIBUTOR={}\n", shell::quoted(name)),
    }
}

/// A text unless it is empty, which means that it is not set.
pub(crate) fn set(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// The words of a list unless it is empty, which means that it is not set.
pub(crate) fn words(list: Option<&[String]>) -> Option<String> {
    list.filter(|list| !list.is_empty()).map(|list| list.join(" "))
}

/// GRUB's environment block with these variables: 1024 bytes, filled up with `#`.
///
/// # Errors
/// They do not fit.
pub(crate) fn environment(variables: &[(&str, String)]) -> Result<String, Error> {
    const SIZE: usize = 1024;
    let mut block = "# GRUB Environment Block\n".to_owned();
    for (name, value) in variables {
        block += &format!("{name}={}\n", value.replace('\\', r"\\"));
    }
    let length = block.len();
    let rest = SIZE
        .checked_sub(length)
        .ok_or_else(|| Error::failed(format!("GRUB's environment has {length} bytes, but {SIZE} is the most")))?;
    Ok(block + &"#".repeat(rest))
}

/// Where a build root has GRUB's files for a platform.
pub(crate) fn files(platform: &str) -> String {
    format!("/usr/lib/grub/{platform}")
}

/// Where a build root has GRUB's font.
pub(crate) const FONT: &str = "/usr/share/grub/unicode.pf2";

/// Copies GRUB's modules for a platform from the build root to a directory of the tree.
///
/// # Errors
/// The build root has none, or they cannot be written.
pub(crate) fn copy_modules(root: &Tree, tree: &Tree, platform: &str, directory: &str) -> Result<(), Error> {
    let (source, target) = (files(platform), format!("{directory}/{platform}"));
    tree.create_dir_all(&target, 0o777)?;
    for name in root.read_dir(&source)? {
        let extension = Path::new(&name).extension().unwrap_or_default();
        if (extension == "mod" || extension == "lst") && name != "fdt.lst" {
            build_root::copy_file(root, Path::new(&source).join(&name), tree, &target)?;
        }
    }
    Ok(())
}

/// Copies GRUB's font from the build root to `fonts` in a directory of the tree.
///
/// # Errors
/// The build root has none, or it cannot be written.
pub(crate) fn copy_font(root: &Tree, tree: &Tree, directory: &str) -> Result<(), Error> {
    let fonts = format!("{directory}/fonts");
    tree.create_dir_all(&fonts, 0o777)?;
    build_root::copy_file(root, FONT, tree, &fonts)
}

/// Copies the EFI programs of a vendor, and those that every firmware looks for, from `source` of the build root.
///
/// # Errors
/// The build root has none, or the tree has some already.
pub(crate) fn copy_efi(root: &Tree, source: &str, tree: &Tree, vendor: &str) -> Result<(), Error> {
    for directory in ["BOOT", vendor] {
        build_root::copy_directory(
            root,
            format!("{source}/{directory}"),
            tree,
            format!("boot/efi/EFI/{directory}"),
            false,
        )?;
    }
    Ok(())
}

/// A build root with a little of GRUB, for the tests of stages; it goes with its directory.
#[cfg(test)]
pub(crate) fn test_root() -> (tempfile::TempDir, Tree) {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::open(directory.path()).unwrap();
    for (path, text) in [
        ("usr/lib/grub/i386-pc/normal.mod", "module"),
        ("usr/lib/grub/i386-pc/fs.lst", "list"),
        ("usr/lib/grub/i386-pc/fdt.lst", "left out"),
        ("usr/lib/grub/i386-pc/boot.img", "image"),
        ("usr/share/grub/unicode.pf2", "font"),
        ("boot/efi/EFI/BOOT/BOOTX64.EFI", "shim"),
        ("boot/efi/EFI/fedora/shimx64.efi", "shim"),
        ("boot/efi/EFI/fedora/mmx64.efi", "manager"),
        ("boot/efi/EFI/fedora/gcdx64.efi", "grub"),
    ] {
        tree.create_dir_all(Path::new(path).parent().unwrap(), 0o755).unwrap();
        tree.write(path, text).unwrap();
    }
    (directory, tree)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn grub_reads_the_variables_back(one in "([ -~]|[\té€]|\\\\){0,20}", other in "([ -~]|\\\\){0,20}") {
            if !has_tool("grub-editenv") {
                return Ok(());
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), environment(&[("one", one.clone()), ("other", other.clone())]).unwrap()).unwrap();
            let output = Command::new("grub-editenv").arg(file.path()).arg("list").output().unwrap();
            prop_assert_eq!(String::from_utf8_lossy(&output.stdout), format!("one={one}\nother={other}\n"));
        }
    }
}
