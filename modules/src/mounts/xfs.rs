//! Mounts an XFS file system.
//!
//! It appears at `target` below the root of all mounts; the directory is made when it is not there. A device that
//! cannot be written is mounted read-only.
//!
//! ```json
//! {
//!   "name": "root",
//!   "type": "org.osbuild.xfs",
//!   "source": "disk",
//!   "partition": 2,
//!   "target": "/",
//!   "options": { "readonly": true, "norecovery": true }
//! }
//! ```

use osbc_module_api::*;

use crate::disks::filesystem_mount::{FileSystem, mount, schema};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.xfs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::FileSystem("xfs")],
    schema: || Schema::version_2(schema(options_schema::<Options>())),
    rejects: &[
        r#"{"name": "root", "source": "disk"}"#,
        r#"{"name": "root", "target": "/"}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "partition": "2"}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "options": {"readonly": "yes"}}"#,
        r#"{"name": "root", "source": "disk", "target": "/", "options": {"subvol": "root"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| {
        let options: Options = context.options()?;
        // Images that are made side by side may have the same identifier.
        let given: &[_] =
            if options.norecovery { &[("nouuid", None), ("norecovery", None)] } else { &[("nouuid", None)] };
        mount(context, &FileSystem { kind: "xfs", read_only: options.readonly, options: given })
    }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whether to mount it read-only.
    #[serde(default)]
    readonly: bool,
    /// Whether to leave the journal alone, which needs `readonly`.
    #[serde(default)]
    norecovery: bool,
}
