//! Mounts an ext4 file system.
//!
//! It appears at `target` below the root of all mounts; the directory is made when it is not there. A device that
//! cannot be written is mounted read-only.
//!
//! ```json
//! {
//!   "name": "root",
//!   "type": "org.osbuild.ext4",
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
    name: "org.osbuild.ext4",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::FileSystem("ext4")],
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
        let given: &[_] = if options.norecovery { &[("norecovery", None)] } else { &[] };
        mount(context, &FileSystem { kind: "ext4", read_only: options.readonly, options: given })
    }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whether to mount it read-only.
    #[serde(default)]
    readonly: bool,
    /// Whether to leave the journal alone.
    #[serde(default)]
    norecovery: bool,
}
