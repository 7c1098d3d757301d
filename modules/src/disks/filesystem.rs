//! File systems as the assemblers make them: by the tools of the build root, each with its identifier and label.

use std::path::Path;

use osbc_module_api::*;

/// A file system to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSystem {
    /// Its type.
    pub(crate) kind: FileSystemType,
    /// Its identifier.
    pub(crate) uuid: String,
    /// Its label; the empty one counts as none.
    pub(crate) label: Option<String>,
}

/// The types of file systems that assemblers make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystemType {
    Ext4,
    Xfs,
    Btrfs,
    Vfat,
}

impl FileSystemType {
    /// The kernel's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileSystemType::Ext4 => "ext4",
            FileSystemType::Xfs => "xfs",
            FileSystemType::Btrfs => "btrfs",
            FileSystemType::Vfat => "vfat",
        }
    }
}

impl FileSystem {
    /// Makes the file system on a device or in a file.
    ///
    /// # Errors
    /// Its tool is missing or fails.
    pub(crate) fn make(&self, cx: &StageContext, place: &Path) -> Result<(), Error> {
        // mkfs.ext4 asks before it takes a place that something else is at.
        let tool = cx.tool(&format!("mkfs.{}", self.kind.name()))?.stdin("y");
        tool.args(self.arguments()).arg(place).run()
    }

    fn arguments(&self) -> Vec<String> {
        let (option, value, label) = match self.kind {
            FileSystemType::Ext4 | FileSystemType::Btrfs => ("-U", self.uuid.clone(), "-L"),
            FileSystemType::Xfs => ("-m", format!("uuid={}", self.uuid), "-L"),
            FileSystemType::Vfat => ("-i", self.uuid.replace('-', ""), "-n"),
        };
        let mut arguments = vec![option.to_owned(), value];
        if let Some(text) = self.label.as_deref().filter(|text| !text.is_empty()) {
            arguments.extend([label.to_owned(), text.to_owned()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(kind: FileSystemType, label: Option<&str>) -> String {
        FileSystem { kind, uuid: "7B77-95E7".to_owned(), label: label.map(str::to_owned) }.arguments().join(" ")
    }

    #[test]
    fn each_type_has_its_own_options() {
        assert_eq!(arguments(FileSystemType::Ext4, Some("root")), "-U 7B77-95E7 -L root");
        assert_eq!(arguments(FileSystemType::Btrfs, None), "-U 7B77-95E7");
        assert_eq!(arguments(FileSystemType::Xfs, Some("")), "-m uuid=7B77-95E7");
        assert_eq!(arguments(FileSystemType::Vfat, Some("EFI")), "-i 7B7795E7 -n EFI");
    }
}
