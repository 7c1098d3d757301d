//! Mounts a btrfs file system, or a subvolume of one.
//!
//! It appears at `target` below the root of all mounts; the directory is made when it is not there. A device that
//! cannot be written is mounted read-only.
//!
//! ```json
//! {
//!   "name": "root",
//!   "type": "org.osbuild.btrfs",
//!   "source": "disk",
//!   "target": "/",
//!   "options": { "subvol": "root", "compress": "zstd:1" }
//! }
//! ```

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use osbc_module_api::*;

use crate::disks::filesystem_mount::{FileSystem, mount, mount_nowhere, schema};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.btrfs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::FileSystem("btrfs")],
    schema: || Schema::version_2(schema(options_schema::<Options>())),
    rejects: &[
        r#"{"name": "root", "source": "disk"}"#,
        r#"{"name": "root", "target": "/"}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "partition": "2"}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "options": {"compress": true}}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "options": {"subvolid": 5}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| {
        let options: Options = context.options()?;
        let mut given = Vec::new();
        if options.norecovery {
            given.push(("norecovery", None));
        }
        if let Some(subvolume) = &options.subvol {
            given.push(("subvol", Some(subvolume.as_str())));
        }
        if let Some(method) = &options.compress {
            given.push(("compress", Some(method.as_str())));
        }
        let mounted = mount(context, &FileSystem { kind: "btrfs", read_only: options.readonly, options: &given });
        mounted.map_err(|error| explain(context, options.subvol.as_deref(), error))
    }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whether to mount it read-only.
    #[serde(default)]
    readonly: bool,
    /// Whether to leave the log of the last changes alone, which needs `readonly`.
    #[serde(default)]
    norecovery: bool,
    /// The subvolume to mount, by its path; the default one unless given.
    subvol: Option<String>,
    /// How new files are compressed, e.g. `zstd:1`.
    compress: Option<String>,
}

/// The inode number of the root of every subvolume.
const ROOT_INODE: u64 = 256;
/// How many directories deep subvolumes are looked for.
const DEPTH: usize = 4;

/// The failure to mount, which names the subvolumes that there are if the one that was wanted is none of them.
fn explain(context: &MountContext, wanted: Option<&str>, error: Error) -> Error {
    // 5 is the number of the subvolume that holds all others.
    let whole = FileSystem { kind: "btrfs", read_only: true, options: &[("subvolid", Some("5"))] };
    let Some((wanted, whole)) = wanted.zip(mount_nowhere(context, &whole).ok()) else { return error };
    let root = PathBuf::from(format!("/proc/self/fd/{}", whole.as_raw_fd()));
    let mut found = Vec::new();
    find_subvolumes(&root, &root, DEPTH, &mut found);
    let is_root = wanted.trim_matches('/').is_empty();
    if is_root || found.iter().any(|path| path == Path::new(wanted.trim_matches('/'))) {
        return error;
    }
    found.sort();
    let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    let has = if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) };
    Error::failed(format!("the file system has no subvolume `{wanted}`; {has}"))
}

/// Adds the subvolumes below a directory, by their paths below `root`.
fn find_subvolumes(root: &Path, directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    // What cannot be read is left out: this only makes a failure clearer.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            if metadata.ino() == ROOT_INODE {
                found.extend(path.strip_prefix(root).ok().map(Path::to_owned));
            }
            if depth > 1 {
                find_subvolumes(root, &path, depth - 1, found);
            }
        }
    }
}
