//! The tools that built-in modules call, as far as they run in this machine's own tree; a pipeline with a build root has
//! those of that.

use std::path::Path;

use osbc_module_api::{TOOL_FOLDERS, packages_of};

use super::Finding;

/// Every tool that a built-in module calls by name.
const TOOLS: [&str; 47] = [
    "bootc",
    "btrfs",
    "cp",
    "cpio",
    "cryptsetup",
    "debugfs",
    "dnf-3",
    "groupadd",
    "grub-mkimage",
    "grub2-mkimage",
    "implantisomd5",
    "isohybrid",
    "lvcreate",
    "mcopy",
    "mk-s390image",
    "mke2fs",
    "mkfs.btrfs",
    "mkfs.erofs",
    "mkfs.ext4",
    "mkfs.fat",
    "mkfs.xfs",
    "mksquashfs",
    "mkswap",
    "mount",
    "objcopy",
    "openssl",
    "ostree",
    "pacman",
    "parted",
    "pvcreate",
    "python3",
    "qemu-img",
    "rpm",
    "rpm-ostree",
    "rpmkeys",
    "setfiles",
    "sfdisk",
    "sgdisk",
    "skopeo",
    "systemctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "tar",
    "veritysetup",
    "vgcreate",
    "xorrisofs",
    "zipl",
];

/// Looks for all of them.
pub(crate) fn look() -> Vec<Finding> {
    let find = |tool: &str| {
        let found = TOOL_FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.is_file());
        match found {
            Some(path) => Finding::ok(tool, path.display().to_string()),
            None => Finding::missing(tool, "not here", packages_of(tool)),
        }
    };
    TOOLS.into_iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in calls like `cx.tool("tar")` in all files below a folder.
    fn called(folder: &Path, tools: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                called(&path, tools);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("is text");
            for call in ["cx.tool(\"", "context.tool(\"", "Tool::find(\""] {
                let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                tools.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_tool_that_a_module_calls_is_looked_for() {
        let mut tools = BTreeSet::new();
        called(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules/src"), &mut tools);
        let known: BTreeSet<String> = TOOLS.into_iter().map(str::to_owned).collect();
        let unknown: Vec<_> = tools.difference(&known).collect();
        assert!(unknown.is_empty(), "add to doctor's tools: {unknown:?}");
    }
}
