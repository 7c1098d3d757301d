//! Mounts nothing: makes an empty directory where a file system would appear.
//!
//! Any options are accepted and ignored.
//!
//! ```json
//! { "name": "root", "type": "org.osbuild.noop", "source": "disk", "target": "/boot", "options": { "note": "none" } }
//! ```

use osbc_module_api::*;

use crate::disks::filesystem_mount::{make_mountpoint, schema};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.noop",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema(json!({"type": "object"}))),
    rejects: &[
        r#"{"name": "root", "target": "/"}"#,
        r#"{"name": "root", "source": "disk"}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "options": []}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Mount(|context| make_mountpoint(context).map(|(_, path)| Some(path))),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_appears_below_the_root_and_links_in_the_way_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/real", directory.path().join("link")).unwrap();
        std::fs::create_dir(directory.path().join("real")).unwrap();
        let Entry::Mount(mount) = MODULE.entry else { panic!("a mount") };
        let at = |target| {
            let options = json!({});
            let (source, root, tree) = (None, directory.path(), directory.path());
            mount(&MountContext { source, target, root, tree, options: &options })
        };
        assert_eq!(at(Some("/boot/efi")).unwrap(), Some(directory.path().join("boot/efi")));
        assert!(directory.path().join("boot/efi").is_dir());
        assert_eq!(at(Some("/")).unwrap(), Some(directory.path().to_owned()));
        assert_eq!(at(Some("/link/sub")).unwrap(), Some(directory.path().join("real/sub")));
        assert!(directory.path().join("real/sub").is_dir());
        assert_eq!(at(None).unwrap_err().to_string(), "the mount needs a target");
    }
}
