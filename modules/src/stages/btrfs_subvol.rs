//! Makes subvolumes of a mounted btrfs file system.
//!
//! The names are paths below the place of all mounts. Directories on the way are made, and links lead nowhere else.
//! Calls `btrfs` of the build root.
//!
//! ```json
//! {
//!   "type": "org.osbuild.btrfs.subvol",
//!   "devices": { "disk": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img" } } },
//!   "mounts": [{ "name": "volume", "type": "org.osbuild.btrfs", "source": "disk", "target": "/" }],
//!   "options": { "subvolumes": [{ "name": "/root" }, { "name": "/home" }] }
//! }
//! ```

use std::path::Path;

use osbc_module_api::location::MOUNTS;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.btrfs.subvol",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("btrfs")],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {"subvolumes": [{}]}}"#,
        r#"{"options": {"subvolumes": ["root"]}}"#,
        r#"{"options": {"subvolumes": [{"name": "root", "extra": 1}]}}"#,
        r#"{"options": {"names": []}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let options: Options = cx.options()?;
        let subvolumes = options.subvolumes.ok_or_else(|| Error::failed("`subvolumes` must be given"))?;
        create(cx, &Tree::open(MOUNTS)?, &subvolumes)
    }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The subvolumes, in the order in which they are made
    subvolumes: Option<Vec<Subvolume>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Subvolume {
    /// Path of the subvolume
    name: String,
}

fn create(cx: &StageContext, mounts: &Tree, subvolumes: &[Subvolume]) -> Result<(), Error> {
    for Subvolume { name } in subvolumes {
        if let Some(directory) = Path::new(name.trim_start_matches('/')).parent() {
            mounts.create_dir_all(directory, 0o777)?;
        }
        cx.tool("btrfs")?.args(["subvolume", "create"]).arg(mounts.path_for_tools(name)?).run()?;
    }
    Ok(())
}
