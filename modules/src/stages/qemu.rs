//! Converts a disk image to another format.
//!
//! Takes the one file of the input `image`. The formats are `qcow2`, `vdi`, `vmdk`, `vpc` and `vhdx`, each with options
//! of its own. osbc writes qcow2 itself, on all cores; for the others, and for images that are not raw, it calls
//! `qemu-img` of the build root. Beyond osbuild's there is `compression_type` for qcow2: `zstd` takes a fraction of the
//! time of `zlib`, and QEMU 5.1 or newer to read.
//!
//! ```json
//! {
//!   "type": "org.osbuild.qemu",
//!   "inputs": {
//!     "image": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.pipeline",
//!       "references": { "name:image": { "file": "disk.img" } }
//!     }
//!   },
//!   "options": { "filename": "disk.qcow2", "format": { "type": "qcow2", "compat": "1.1" } }
//! }
//! ```

use osbc_module_api::*;

use crate::archives::single_file;
use crate::disks::image_conversion::{Conversion, VmdkLayout};
use crate::disks::qcow2::Compression;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.qemu",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::ToolFor("qemu-img", |options| options["format"]["type"] != "qcow2")],
    schema: || Schema::stage::<Options>().inputs(&["image"]).done(),
    rejects: &[
        r#"{"options": {"filename": "x.qcow2"}}"#,
        r#"{"options": {"filename": "x.raw", "format": {"type": "raw"}}}"#,
        r#"{"options": {"filename": "x.qcow2", "format": {"compat": "1.1"}}}"#,
        r#"{"options": {"filename": "x.vdi", "format": {"type": "vdi", "compat": "1.1"}}}"#,
        r#"{"options": {"filename": "x.vmdk", "format": {"type": "vmdk", "adapter_type": "nvme"}}}"#,
        r#"{"options": {"filename": "x.vpc", "format": {"type": "vpc", "subformat": "sparse"}}}"#,
        r#"{"options": {"filename": "x.vdi", "format": {"type": "vdi"}}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The converted image
    filename: String,
    /// The format that it gets
    format: Format,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Format {
    /// QEMU's own format
    Qcow2 {
        /// Whether the data is compressed
        #[serde(default = "yes")]
        compression: bool,
        /// Version of the format
        compat: Option<String>,
        /// How it is compressed: zlib unless given
        compression_type: Option<Compression>,
    },
    /// VirtualBox
    Vdi {},
    /// VMware
    Vmdk {
        /// Virtual adapter
        adapter_type: Option<Adapter>,
        /// Whether the image has version 6
        #[serde(default)]
        compat6: bool,
        /// Whether the data is compressed
        #[serde(default = "yes")]
        compression: bool,
        /// Layout of the extents
        subformat: Option<VmdkLayout>,
    },
    /// Virtual PC
    Vpc {
        /// Whether the disk has exactly the image's size instead of the nearest one that a geometry gives
        #[serde(default = "yes")]
        force_size: bool,
        /// Kind of the disk
        #[serde(default)]
        subformat: VpcLayout,
    },
    /// Hyper-V
    Vhdx {},
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum Adapter {
    #[serde(rename = "ide")]
    Ide,
    #[serde(rename = "lsilogic")]
    LsiLogic,
    #[serde(rename = "buslogic")]
    BusLogic,
    #[serde(rename = "legacyESX")]
    LegacyEsx,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum VpcLayout {
    #[default]
    Fixed,
    Dynamic,
}

fn yes() -> bool {
    true
}

impl Format {
    fn conversion(&self) -> Result<Conversion, Error> {
        Ok(match self {
            Format::Qcow2 { compression, compat, compression_type } => {
                let kind = compression_type.unwrap_or(Compression::Zlib);
                Conversion::to_qcow2(compat.as_deref(), compression.then_some(kind))?
            }
            Format::Vdi {} => Conversion::by_tool("vdi", false, &[]),
            Format::Vhdx {} => Conversion::by_tool("vhdx", false, &[]),
            Format::Vmdk { adapter_type, compat6, compression, subformat } => {
                let adapter = adapter_type.map(|adapter| format!("adapter_type={}", adapter.word()));
                let version = compat6.then(|| "compat6".to_owned());
                let layout = subformat.map(VmdkLayout::option);
                let options: Vec<String> = adapter.into_iter().chain(version).chain(layout).collect();
                Conversion::by_tool("vmdk", *compression, &options)
            }
            Format::Vpc { force_size, subformat } => {
                let layout = match subformat {
                    VpcLayout::Fixed => "subformat=fixed",
                    VpcLayout::Dynamic => "subformat=dynamic",
                };
                let size = force_size.then_some("force_size");
                let options: Vec<String> = std::iter::once(layout).chain(size).map(str::to_owned).collect();
                Conversion::by_tool("vpc", false, &options)
            }
        })
    }
}

impl Adapter {
    fn word(self) -> &'static str {
        match self {
            Adapter::Ide => "ide",
            Adapter::LsiLogic => "lsilogic",
            Adapter::BusLogic => "buslogic",
            Adapter::LegacyEsx => "legacyESX",
        }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    options.format.conversion()?.run(cx, &single_file::path(cx, "image")?, &options.filename)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;
    use crate::disks::qcow2::Version;

    fn conversion_of(format: Value) -> Conversion {
        Format::deserialize(format).expect("a valid format").conversion().expect("one that there is")
    }

    fn arguments_of(format: Value) -> String {
        match conversion_of(format) {
            Conversion::Tool(arguments) => arguments.join(" "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn qcow2_is_compressed_by_default() {
        let qcow2 = |version, compression| Conversion::Qcow2 { version, compression };
        for (format, expected) in [
            (json!({"type": "qcow2"}), qcow2(Version::V3, Some(Compression::Zlib))),
            (json!({"type": "qcow2", "compression": false}), qcow2(Version::V3, None)),
            (json!({"type": "qcow2", "compat": "0.10"}), qcow2(Version::V2, Some(Compression::Zlib))),
            (json!({"type": "qcow2", "compression_type": "zstd"}), qcow2(Version::V3, Some(Compression::Zstd))),
        ] {
            assert_eq!(conversion_of(format.clone()), expected, "{format}");
        }
        let unknown = Format::deserialize(json!({"type": "qcow2", "compat": "2"})).unwrap().conversion();
        assert_eq!(unknown.unwrap_err().to_string(), "qcow2 has no version 2; there are 0.10 and 1.1");
    }

    #[test]
    fn vmdk_joins_its_options() {
        assert_eq!(arguments_of(json!({"type": "vmdk"})), "convert -O vmdk -c");
        let options = json!({"type": "vmdk", "adapter_type": "ide"});
        assert_eq!(arguments_of(options), "convert -O vmdk -c -o adapter_type=ide");
        let options = json!({
            "type": "vmdk", "compression": false, "compat6": true, "subformat": "streamOptimized",
            "adapter_type": "legacyESX",
        });
        assert_eq!(
            arguments_of(options),
            "convert -O vmdk -o adapter_type=legacyESX,compat6,subformat=streamOptimized"
        );
    }

    #[test]
    fn vpc_is_fixed_and_of_exact_size_by_default() {
        assert_eq!(arguments_of(json!({"type": "vpc"})), "convert -O vpc -o subformat=fixed,force_size");
        let options = json!({"type": "vpc", "subformat": "dynamic", "force_size": false});
        assert_eq!(arguments_of(options), "convert -O vpc -o subformat=dynamic");
    }

    #[test]
    fn vdi_and_vhdx_have_no_options() {
        assert_eq!(arguments_of(json!({"type": "vdi"})), "convert -O vdi");
        assert_eq!(arguments_of(json!({"type": "vhdx"})), "convert -O vhdx");
        assert!(Format::deserialize(json!({"type": "vdi", "compression": true})).is_err());
    }

    #[test]
    fn the_tool_makes_images_of_each_format() {
        if !has_tool("qemu-img") {
            return;
        }
        for format in ["qcow2", "vdi", "vmdk", "vpc", "vhdx"] {
            let case = Case::new(&MODULE).input("image", json!({"files": {"tree/disk.img": {}}}), |tree| {
                tree.create_dir("tree", 0o755).unwrap();
                tree.write("tree/disk.img", "content".repeat(1 << 17)).unwrap();
            });
            let done = case.run(json!({"filename": "/disk", "format": {"type": format}})).ok();
            let mut info = Command::new("qemu-img");
            info.args(["info", "--output", "json", "-f", format]).arg(done.tree.path_for_tools("disk").unwrap());
            let info = info.output().unwrap();
            assert!(info.status.success(), "{}", String::from_utf8_lossy(&info.stderr));
            let info: Value = serde_json::from_slice(&info.stdout).unwrap();
            assert_eq!(info["virtual-size"], 7 << 17, "{format}");
        }
    }
}
