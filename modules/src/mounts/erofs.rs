//! Mounts an EROFS file system, which is read-only.
//!
//! It appears at `target` below the root of all mounts; the directory is made when it is not there.
//!
//! ```json
//! { "name": "root", "type": "org.osbuild.erofs", "source": "image", "target": "/" }
//! ```

use osbc_module_api::*;

use crate::disks::filesystem_mount::{NoOptions, mount_image, schema_of_image};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Mount,
    name: "org.osbuild.erofs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::FileSystem("erofs")],
    schema: || Schema::version_2(schema_of_image()),
    rejects: &[
        r#"{"name": "root", "source": "image"}"#,
        r#"{"name": "root", "target": "/"}"#,
        r#"{"name": "root", "source": "image", "target": "/", "partition": 2}"#,
        r#"{"name": "root", "source": "image", "target": "/", "options": {"readonly": true}}"#,
    ],
    parse: parse::<NoOptions>,
    entry: Entry::Mount(|context| mount_image(context, "erofs")),
};
