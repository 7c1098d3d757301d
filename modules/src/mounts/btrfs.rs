//! Mounts a btrfs file system, or a subvolume of one.
//!
//! It appears at `target` below the root of all mounts; the folder is made when it is not there. A device that cannot
//! be written is mounted read-only.
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

use osbc_module_api::*;

use crate::filesystem_mount::{FileSystem, mount, schema};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.btrfs",
    revision: 1,
    capabilities: &[],
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
        mount(context, &FileSystem { kind: "btrfs", read_only: options.readonly, options: &given })
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
