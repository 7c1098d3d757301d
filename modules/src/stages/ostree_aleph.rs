//! Writes down from which commit or container image an OSTree deployment came: `.aleph-version.json`.
//!
//! Calls `ostree` of the build root. `osbuild-version` is the release of osbuild whose behaviour this module has.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.aleph",
//!   "options": {
//!     "coreos_compat": true,
//!     "deployment": { "osname": "fedora-coreos", "ref": "ostree/1/1/0" }
//!   }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.aleph",
//!   "options": { "sysroot_path": "mount://root/", "deployment": { "default": true } }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree::{Deployment, resolve};
use crate::ostrees::ostree_tool::{CAPABILITIES, repository};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.aleph",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::MayCall("ostree")],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"deployment": {"osname": "os"}}}"#,
        r#"{"options": {"deployment": {"default": true, "serial": 0}}}"#,
        r#"{"options": {"deployment": {"default": true}, "coreos_compat": "yes"}}"#,
        r#"{"options": {"deployment": {"default": true}, "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Whether CoreOS's name for the file leads to it
    #[serde(default)]
    coreos_compat: bool,
    /// Where the OSTree system is
    #[serde(default = "the_tree")]
    sysroot_path: String,
    /// Which deployment
    #[schemars(schema_with = "Deployment::schema_of_any_type")]
    deployment: Deployment,
}

fn the_tree() -> String {
    "tree:///".to_owned()
}

/// The release whose behaviour this is.
const OSBUILD: &str = "190";
const FILE: &str = ".aleph-version.json";
const COREOS_FILE: &str = ".coreos-aleph-version.json";

/// What a deployment was made from.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Container(String),
    Commit(String),
}

impl Origin {
    /// Reads the file beside a deployment.
    fn read(text: &str) -> Result<Self, Error> {
        let found = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = value.split('=').next().unwrap_or_default().trim_end().to_owned();
            match key {
                "container-image-reference" => Some(Origin::Container(value)),
                "refspec" => Some(Origin::Commit(value)),
                _ => None,
            }
        });
        match found {
            Some(Origin::Container(value) | Origin::Commit(value)) if value.is_empty() => {
                Err(Error::failed("the origin of the deployment is empty"))
            }
            Some(origin) => Ok(origin),
            None => Err(Error::failed("the origin of the deployment names neither a commit nor a container image")),
        }
    }
}

/// The image that a reference means, as the repository knows it.
fn image_of(reference: &str) -> Result<&str, Error> {
    let known = reference.split_once(':').and_then(|(kind, rest)| match kind {
        "ostree-remote-registry" | "ostree-remote-image" => rest.split_once(':').map(|(_, image)| image),
        "ostree-image-signed" | "ostree-unverified-registry" | "ostree-unverified-image" => Some(rest),
        _ => None,
    });
    known.ok_or_else(|| Error::failed(format!("the image reference {reference} is of no kind that is known")))
}

fn of_commit(cx: &StageContext, system: &Tree, reference: String) -> Result<Value, Error> {
    let repository = repository(system, "ostree/repo")?;
    let shown = cx.tool("ostree")?.args(["show", &repository, &reference, "--print-metadata-key=version"]).output()?;
    let version = String::from_utf8_lossy(&shown);
    Ok(json!({
        "osbuild-version": OSBUILD,
        "version": version.trim_end().trim_matches('\''),
        "ref": reference,
        "ostree-commit": resolve(system, &reference)?,
    }))
}

fn of_container(cx: &StageContext, system: &Tree, reference: &str) -> Result<Value, Error> {
    let repository = repository(system, "ostree/repo")?;
    let image = |words: &[&str]| {
        let output = cx.tool("ostree")?.args(["container", "image"]).args(words).output()?;
        Ok::<_, Error>(String::from_utf8_lossy(&output).into_owned())
    };
    let list = image(&["list", &repository])?;
    let names: Vec<&str> = list.lines().collect();
    // The reference has the image's name, but the repository may know it by another one.
    let name = match names.as_slice() {
        [only] => *only,
        _ => image_of(reference)?,
    };
    let document = |words: &[&str]| -> Result<Value, Error> {
        let text = image(words)?;
        serde_json::from_str(&text).map_err(|error| Error::failed(format!("ostree printed no JSON: {error}")))
    };
    let manifest = document(&["metadata", &repository, name])?;
    let config = document(&["metadata", &repository, name, "--config"])?;
    describe(reference, name, &manifest, &config)
}

fn describe(reference: &str, name: &str, manifest: &Value, config: &Value) -> Result<Value, Error> {
    let missing = |what: &str| Error::failed(format!("the image {name} has no {what}"));
    let digest = manifest.pointer("/config/digest").ok_or_else(|| missing("digest"))?;
    let labels = config.pointer("/config/Labels").ok_or_else(|| missing("labels"))?;
    let version = labels.get("org.opencontainers.image.version").ok_or_else(|| missing("version among its labels"))?;
    let mut data = json!({
        "osbuild-version": OSBUILD,
        "ref": reference,
        "version": version,
        "container-image": {"image-name": name, "image-digest": digest, "image-labels": labels},
    });
    if let Some(commit) = labels.get("ostree.commit").filter(|commit| !commit.is_null()) {
        data["ostree-commit"] = commit.clone();
    }
    Ok(data)
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let place = cx.location(&options.sysroot_path)?;
    let system = place.tree.subtree(&place.path)?;
    let deployment = options.deployment.find(&system)?;
    let origin = system.read_to_string(format!("{}.origin", deployment.path()))?;
    let data = match Origin::read(&origin)? {
        Origin::Container(reference) => of_container(cx, &system, &reference)?,
        Origin::Commit(reference) => of_commit(cx, &system, reference)?,
    };
    system.write(FILE, osbc_pytext::json::to_string_sorted(&data, 4) + "\n")?;
    if options.coreos_compat { system.symlink(FILE, COREOS_FILE) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_names_a_commit_or_an_image() {
        let commit = Origin::read("[origin]\nrefspec=fedora:fedora/x86_64/coreos \n").unwrap();
        assert_eq!(commit, Origin::Commit("fedora:fedora/x86_64/coreos".to_owned()));
        let image = Origin::read("container-image-reference=ostree-image-signed:docker://a/b:c\nrefspec=x").unwrap();
        assert_eq!(image, Origin::Container("ostree-image-signed:docker://a/b:c".to_owned()));
        for other in ["", "[origin]\n refspec=x", "refspec=\n"] {
            assert!(Origin::read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn references_to_images_lose_how_far_they_are_trusted() {
        assert_eq!(image_of("ostree-unverified-registry:quay.io/a/b:6").unwrap(), "quay.io/a/b:6");
        assert_eq!(image_of("ostree-remote-image:fedora:docker://quay.io/a:s").unwrap(), "docker://quay.io/a:s");
        assert!(image_of("docker://quay.io/a").is_err());
    }

    #[test]
    fn an_image_is_described_by_its_labels() {
        let manifest = json!({"config": {"digest": "sha256:1"}});
        let config = json!({"config": {"Labels": {"org.opencontainers.image.version": "41", "ostree.commit": "c"}}});
        let data = describe("r", "n", &manifest, &config).unwrap();
        assert_eq!((&data["version"], &data["ostree-commit"]), (&json!("41"), &json!("c")));
        assert_eq!(data["container-image"]["image-digest"], "sha256:1");
        let none = describe("r", "n", &manifest, &json!({"config": {"Labels": {}}})).unwrap_err();
        assert_eq!(none.to_string(), "the image n has no version among its labels");
    }
}
