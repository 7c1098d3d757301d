//! Makes an OCI image archive of the tree.
//!
//! The tree becomes the only layer of the image, with access control lists and all extended attributes except the SELinux
//! contexts. The result is a tar archive in the OCI image layout, as `podman pull oci-archive:…` and `skopeo` take it. No
//! tool is needed, and the same tree gives the same bytes when the pipeline has a `source-epoch`. `config` may be left
//! out, for which osbuild's module fails, and its `StopSiganl` becomes the image's `StopSignal`, where osbuild drops it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.oci-archive",
//!   "options": { "filename": "os.oci.tar", "architecture": "amd64", "config": { "Cmd": ["/bin/sh"] } }
//! }
//! ```

use std::collections::BTreeMap;

use osbc_module_api::*;

use crate::containers::oci_image::{self, Config, Description};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.oci-archive",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[
        r#"{"options": {"filename": "x"}}"#,
        r#"{"options": {"architecture": "amd64"}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "variant": "v8"}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "config": {"Cmd": "sh"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "config": {"StopSignal": "TERM"}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The processor architecture, as Go names it
    architecture: String,
    /// The archive
    filename: String,
    /// How containers of the image run
    #[serde(default)]
    config: Config,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let layers = BTreeMap::from([("tree".to_owned(), cx.input("tree")?.clone())]);
    let description = Description {
        architecture: &options.architecture,
        variant: None,
        config: &options.config,
        annotations: &Map::new(),
        attributes: |name| name != b"security.selinux",
        history: false,
    };
    oci_image::write(cx, &layers, &description, &options.filename)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn skopeo_reads_the_image_and_its_only_layer() {
        if !has_tool("skopeo") {
            return;
        }
        let case = Case::new(&MODULE).input("tree", json!({}), |tree| tree.write("file", "content").unwrap());
        let done = case.run(json!({"filename": "image.tar", "architecture": "arm64"})).ok();
        let place = format!("oci-archive:{}", done.tree.path_for_tools("image.tar").unwrap().display());
        let output = Command::new("skopeo").arg("inspect").arg(place).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["Architecture"], report["Layers"].as_array().unwrap().len()), (&json!("arm64"), 1));
    }
}
