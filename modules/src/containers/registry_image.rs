//! Images of registries and of container storages, as the sources of containers name them and `skopeo` of the host
//! reads them.

use std::collections::BTreeMap;
use std::path::Path;

use osbc_module_api::*;
use sha2::{Digest, Sha256};

/// What a source of images says: each by its digest. `digests` is another word for `items`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description<Image> {
    #[serde(rename = "items", default = "BTreeMap::new")]
    _items: BTreeMap<String, Item<Image>>,
    #[serde(rename = "digests", default = "BTreeMap::new")]
    _digests: BTreeMap<String, Item<Image>>,
}

/// One item of such a source.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item<Image> {
    /// Where the image is.
    image: Image,
}

impl<'a, Image: Deserialize<'a>> Item<Image> {
    /// Where the image of an item is.
    ///
    /// # Errors
    /// The item says something else.
    pub(crate) fn image(description: &'a Value) -> Result<Image, Error> {
        Item::deserialize(description).map(|item| item.image).map_err(Error::Options)
    }
}

/// Where an image is.
#[derive(Debug)]
pub(crate) struct Location {
    /// Its name, with that of the registry.
    pub(crate) name: String,
    /// Whether the registry must speak HTTPS and have a certificate.
    pub(crate) tls_verify: bool,
    /// From where it comes.
    pub(crate) transport: Transport,
    /// The storage, where it is not the host's usual one.
    pub(crate) storage: Option<String>,
}

/// From where images come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// A registry.
    #[default]
    Docker,
    /// A storage of the host.
    ContainersStorage,
}

impl Location {
    /// What skopeo calls the image with that digest.
    pub(crate) fn reference(&self, digest: &str) -> String {
        let storage = self.storage.as_deref().filter(|storage| !storage.is_empty());
        let storage = storage.map(|storage| format!("[overlay@{storage}]")).unwrap_or_default();
        let transport = match self.transport {
            Transport::Docker => "docker://",
            Transport::ContainersStorage => "containers-storage:",
        };
        format!("{transport}{storage}{}@{digest}", self.name)
    }

    /// Copies the image to a directory of skopeo's.
    ///
    /// # Errors
    /// The tool is missing or fails, or the build was ended.
    pub(crate) fn copy(
        &self,
        context: &SourceContext,
        digest: &str,
        words: &[&str],
        directory: &Path,
    ) -> Result<(), Error> {
        let mut tool = Tool::of_host("skopeo")?.arg("copy").args(words);
        if !self.tls_verify {
            tool = tool.arg("--src-tls-verify=false");
        }
        let tool = tool.arg(self.reference(digest)).arg(format!("dir:{}", directory.display()));
        tool.contained_output(context.interrupted).map(drop)
    }
}

/// The id of an image: the digest of its configuration.
///
/// # Errors
/// The tool is missing or fails, or the build was ended.
pub(crate) fn id(reference: &str, interrupted: &dyn Fn() -> bool) -> Result<String, Error> {
    let tool = Tool::of_host("skopeo")?.args(["inspect", "--raw", "--config", reference]);
    Ok(digest(&tool.contained_output(interrupted)?))
}

/// The digest of a document.
pub(crate) fn digest(document: &[u8]) -> String {
    let hex = osbc_ir::hex(&Sha256::digest(document));
    format!("sha256:{hex}")
}

/// The schema of a source of images by their digests.
pub(crate) fn source_schema<Image: JsonSchema>() -> Value {
    let item = options_schema::<Item<Image>>();
    let items = json!({
        "description": "The images.",
        "type": "object",
        "additionalProperties": false,
        "patternProperties": {"sha256:[0-9a-f]{64}": item}
    });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"items": items, "digests": items},
        "oneOf": [{"required": ["items"]}, {"required": ["digests"]}]
    })
}

/// What is asked of a registry unless an item says otherwise.
pub(crate) fn verified() -> bool {
    true
}

/// Whether a manifest is a list of images for several machines.
pub(crate) fn is_list(manifest: &Value) -> bool {
    match manifest.get("mediaType").and_then(Value::as_str) {
        Some(kind) => matches!(
            kind,
            "application/vnd.docker.distribution.manifest.list.v2+json" | "application/vnd.oci.image.index.v1+json"
        ),
        // The kind may be left out.
        None => manifest.get("manifests").is_some_and(|manifests| !manifests.is_null()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_where_they_come_from() {
        let location = |transport, storage: &str| Location {
            name: "example.com/app".to_owned(),
            tls_verify: true,
            transport,
            storage: Some(storage.to_owned()),
        };
        assert_eq!(location(Transport::Docker, "").reference("sha256:1"), "docker://example.com/app@sha256:1");
        assert_eq!(
            location(Transport::ContainersStorage, "/s").reference("sha256:1"),
            "containers-storage:[overlay@/s]example.com/app@sha256:1"
        );
    }

    #[test]
    fn lists_are_recognized_by_their_kind_or_by_what_they_hold() {
        assert!(is_list(&json!({"mediaType": "application/vnd.oci.image.index.v1+json"})));
        assert!(is_list(&json!({"manifests": []})));
        assert!(!is_list(&json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "manifests": []})));
        assert!(!is_list(&json!({"manifests": null})));
    }
}
