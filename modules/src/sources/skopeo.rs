//! Fetches container images from registries.
//!
//! Each item is an image by its id, the digest of its configuration, which stays the same however the image is packed;
//! `digest` is that of its manifest in the registry. Calls `skopeo` of the host. `containers-transport` takes an image
//! from a storage of the host instead, `storage-location` names another one than the usual.
//!
//! ```json
//! {
//!   "type": "org.osbuild.skopeo",
//!   "items": {
//!     "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": {
//!       "image": {
//!         "name": "registry.example.com/app",
//!         "digest": "sha256:f29b6cd42a94a574583439addcd6694e6224f0e4b32044c9e3aee4c4856c2a50"
//!       }
//!     }
//!   }
//! }
//! ```

use std::fs;

use osbc_module_api::*;

use crate::containers::registry_image::{Description, Item, Location, Transport, id, source_schema, verified};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.skopeo",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("skopeo")],
    schema: || Schema::same(source_schema::<Image>()),
    rejects: &[
        r#"{}"#,
        r#"{"items": {}, "digests": {}}"#,
        r#"{"items": {"sha256:0": {"image": {"name": "n", "digest": "d"}}}}"#,
        r#"{"items": {"sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": {"image": {"name": "n"}}}}"#,
        r#"{"items": {"sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": {"image": {"name": "n", "digest": "sha256:1"}}}}"#,
        r#"{"items": {"sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": {}}}"#,
    ],
    parse: parse::<Description<Image>>,
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.containers", size: |_| None, fetch }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    /// Its name, with that of the registry.
    name: String,
    /// The digest of its manifest.
    #[schemars(regex(pattern = "sha256:[0-9a-f]{64}"))]
    digest: String,
    /// Whether the registry must speak HTTPS and have a certificate.
    #[serde(default = "verified")]
    tls_verify: bool,
    /// From where it comes.
    #[serde(default)]
    containers_transport: Transport,
    /// The storage, where it is not the host's usual one.
    storage_location: Option<String>,
}

fn fetch(context: &SourceContext, expected: &str, description: &Value) -> Result<(), Error> {
    let image: Image = Item::image(description)?;
    let location = Location {
        name: image.name,
        tls_verify: image.tls_verify,
        transport: image.containers_transport,
        storage: image.storage_location,
    };
    if context.target.is_dir() {
        // The tool does not go on where it was cut off.
        fs::remove_dir_all(context.target).map_err(Error::io("remove", context.target))?;
    }
    let place = context.target.join("image");
    fs::create_dir_all(&place).map_err(Error::io("create the directory", &place))?;
    location.copy(context, &image.digest, &[], &place)?;
    let found = id(&format!("dir:{}", place.display()), context.interrupted)?;
    if found == expected {
        return Ok(());
    }
    fs::remove_dir_all(context.target).map_err(Error::io("remove", context.target))?;
    let name = location.reference(&image.digest);
    Err(Error::failed(format!("the image {name} has the id {found} instead of {expected}")))
}
