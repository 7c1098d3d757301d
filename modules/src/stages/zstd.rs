//! Compresses a file to zstd.
//!
//! The one file of the input `file` becomes `filename` in the tree, compressed at level 1 with a checksum, on all
//! cores; their number does not show in the result. No tool is needed.
//!
//! ```json
//! {
//!   "type": "org.osbuild.zstd",
//!   "inputs": {
//!     "file": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:image": { "file": "disk.img" } }
//!     }
//!   },
//!   "options": { "filename": "disk.img.zst" }
//! }
//! ```

use osbc_module_api::*;

use crate::compression::Format;
use crate::single_file;

/// Fast rather than small.
const LEVEL: u32 = 1;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.zstd",
    revision: 1,
    capabilities: &[],
    schema: || Schema::stage::<Options>().inputs(&["file"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": 1}}"#,
        r#"{"options": {"filename": "x.zst", "level": 1}}"#,
        r#"{"options": {"filename": "x.zst"}, "inputs": {"other": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The compressed file
    filename: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    single_file::compress(cx, Format::Zstd, LEVEL, &options.filename)
}
