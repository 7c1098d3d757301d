//! Mounts an EROFS file system, which is read-only.
//!
//! It appears at `target` below the root of all mounts; the folder is made when it is not there.
//!
//! ```json
//! { "name": "root", "type": "org.osbuild.erofs", "source": "image", "target": "/" }
//! ```

use osbc_module_api::*;

use crate::filesystem_mount::{FileSystem, mount, schema_without_partition};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.erofs",
    revision: 1,
    capabilities: &[],
    schema: || Schema::version_2(schema_without_partition(options_schema::<Options>())),
    rejects: &[
        r#"{"name": "root", "source": "image"}"#,
        r#"{"name": "root", "target": "/"}"#,
        r#"{"name": "root", "source": "image", "target": "/", "partition": 2}"#,
        r#"{"name": "root", "source": "image", "target": "/", "options": {"readonly": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Mount(|context| mount(context, &FileSystem { kind: "erofs", read_only: true, options: &[] })),
};

/// None.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}
