//! Makes an OCI image archive.
//!
//! The inputs become the image's layers: `base` first, then `layer.1`, `layer.2` and so on, sorted by name. The result
//! is a tar archive in the OCI image layout, as `podman pull oci-archive:…` and `skopeo` take it. No tool is needed,
//! and the same trees give the same bytes when the pipeline has a `source-epoch`.
//!
//! Layers keep owners, access control lists and the attributes `user.*`, `security.ima` and `security.capability`.
//! `ExposedPorts` and `Volumes` are arrays here. The stop signal is spelled `StopSiganl`, as osbuild's schema has it;
//! it goes into the image as `StopSignal`, where osbuild drops it. An image of several layers names each of them in
//! `rootfs.diff_ids`, where osbuild names the last one alone.
//!
//! ```json
//! {
//!   "type": "org.osbuild.oci-archive",
//!   "inputs": {
//!     "base": {
//!       "type": "org.osbuild.tree",
//!       "origin": "org.osbuild.pipeline",
//!       "references": ["name:os"]
//!     }
//!   },
//!   "options": {
//!     "filename": "os.oci.tar",
//!     "architecture": "amd64",
//!     "config": { "Cmd": ["/bin/sh"], "ExposedPorts": ["80"], "Labels": { "version": "1" } },
//!     "annotations": { "com.example.note": "hello" }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::containers::oci_image::{self, Config, Description};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.oci-archive",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().with("inputs", inputs_schema()).done(),
    rejects: &[
        r#"{"options": {"filename": "x"}}"#,
        r#"{"options": {"architecture": "amd64"}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "extra": 1}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "config": {"Cmd": "sh"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "config": {"StopSignal": "TERM"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "annotations": {"org.osbuild.x": "y"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "annotations": {"a": 1}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64"}, "inputs": {"layer.1": {}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64"}, "inputs": {"base": {}, "top": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

fn inputs_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["base"],
        "properties": {"base": {"type": "object", "additionalProperties": true}},
        "patternProperties": {r"layer\.[1-9]\d*": {"type": "object", "additionalProperties": true}},
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The archive
    filename: String,
    /// The processor architecture, as Go names it
    architecture: String,
    /// The variant of the architecture
    variant: Option<String>,
    /// How containers of the image run
    #[serde(default)]
    config: Config,
    /// Annotations of the manifest
    #[serde(default)]
    #[schemars(schema_with = "annotations_schema")]
    annotations: Map<String, Value>,
}

fn annotations_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "org.osbuild.ostree.layer": {"description": "The layer that holds the OSTree repository", "type": "string"},
            "org.osbuild.ostree.repo": {"description": "The repository's path in that layer", "type": "string"},
            "org.osbuild.ostree.ref": {"description": "The reference of the OSTree commit", "type": "string"},
        },
        "patternProperties": {"^(?!org.osbuild|org.opencontainer).+": {"type": "string"}},
    })
}

/// Whether a layer keeps an extended attribute.
fn kept(attribute: &[u8]) -> bool {
    [&b"user."[..], b"security.ima", b"security.capability"].iter().any(|start| attribute.starts_with(start))
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let description = Description {
        architecture: &options.architecture,
        variant: options.variant.as_deref().filter(|variant| !variant.is_empty()),
        config: &options.config,
        annotations: &options.annotations,
        attributes: kept,
        history: true,
    };
    oci_image::write(cx, &cx.inputs, &description, &options.filename)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Write};
    use std::path::Path;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::{Case, Done};

    use super::*;
    use crate::containers::oci_image::{Digesting, even_out};

    fn case() -> Case {
        let case = Case::new(&MODULE).input("base", json!({}), |tree| {
            tree.create_dir("etc", 0o755).unwrap();
            tree.write("etc/hostname", "web\n").unwrap();
        });
        let case = case.input("layer.1", json!({}), |tree| tree.write("added", "x").unwrap());
        case.source_epoch(1_700_000_000)
    }

    fn options() -> Value {
        json!({"filename": "image.tar", "architecture": "amd64"})
    }

    /// The image's files by name.
    fn unpacked(done: &Done) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let archive = done.tree.path_for_tools("image.tar").unwrap();
        let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(directory.path()).status().unwrap();
        assert!(status.success());
        directory
    }

    fn blob(image: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let data = fs::read(image.join("blobs/sha256").join(&digest[7..])).unwrap();
        assert_eq!(descriptor["size"], data.len());
        let mut check = Digesting::new(io::sink());
        check.write_all(&data).unwrap();
        assert_eq!(check.finish().0, digest);
        data
    }

    fn json(data: &[u8]) -> Value {
        serde_json::from_slice(data).unwrap()
    }

    #[test]
    fn index_manifest_configuration_and_layers_name_each_other_by_digest() {
        if !has_tool("tar") {
            return;
        }
        let mut options = options();
        options["annotations"] = json!({"com.example": "note"});
        options["variant"] = json!("v2");
        let done = case().run(options).ok();
        let image = unpacked(&done);
        let image = image.path();
        assert_eq!(json(&fs::read(image.join("oci-layout")).unwrap()), json!({"imageLayoutVersion": "1.0.0"}));
        let index = json(&fs::read(image.join("index.json")).unwrap());
        let manifest = json(&blob(image, &index["manifests"][0]));
        assert_eq!(manifest["annotations"], json!({"com.example": "note"}));
        let config = json(&blob(image, &manifest["config"]));
        assert_eq!(config["created"], "2023-11-14T22:13:20+00:00");
        assert_eq!((&config["architecture"], &config["variant"]), (&json!("amd64"), &json!("v2")));
        assert_eq!(config["history"][1]["created_by"], "/bin/sh -c #(nop) osbuild input 'layer.1'");
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for (index, layer) in layers.iter().enumerate() {
            let packed = blob(image, layer);
            let mut plain = Digesting::new(io::sink());
            io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][index], plain.finish().0);
        }
    }

    #[test]
    fn the_same_trees_give_the_same_archive_members_sorted_and_without_owners() {
        let archive = |_| {
            let dated = |tree: &Tree| {
                tree.write("a", "x").unwrap();
                for path in ["a", "/"] {
                    even_out(&tree.path_for_tools(path).unwrap(), 5).unwrap();
                }
            };
            let case = Case::new(&MODULE).input("base", json!({}), dated).source_epoch(7);
            case.run(options()).ok().tree.read("image.tar").unwrap()
        };
        let first = archive(1);
        assert!(first == archive(2));
        assert_eq!(&first[..6], b"blobs/");
        assert_eq!(&first[100..107], b"0000755");
    }

    #[test]
    fn skopeo_reads_the_image() {
        if !has_tool("skopeo") {
            return;
        }
        let done = case().run(options()).ok();
        let place = format!("oci-archive:{}", done.tree.path_for_tools("image.tar").unwrap().display());
        let output = Command::new("skopeo").arg("inspect").arg(place).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report = json(&output.stdout);
        assert_eq!(report["Architecture"], "amd64");
        assert_eq!(report["Layers"].as_array().unwrap().len(), 2);
    }
}
