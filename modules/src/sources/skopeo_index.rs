//! Fetches the lists by which registries offer an image for several machines.
//!
//! Each item is a list by its digest. Calls `skopeo` of the host. `containers-transport` takes the list from a storage
//! of the host instead, `storage-location` names another one than the usual.
//!
//! ```json
//! {
//!   "type": "org.osbuild.skopeo-index",
//!   "items": {
//!     "sha256:d49eebefb6c7ce5505594bef652bd4adc36f413861bd44209d9b9486310b1264": {
//!       "image": { "name": "registry.example.com/app" }
//!     }
//!   }
//! }
//! ```

use std::fs;
use std::path::Path;

use osbc_module_api::*;

use crate::containers::image_blobs::MAX_DOCUMENT;
use crate::containers::registry_image::{
    Description, Item, Location, Transport, digest, is_list, source_schema, verified,
};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.skopeo-index",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("skopeo")],
    schema: || Schema::same(source_schema::<Image>()),
    rejects: &[
        r#"{}"#,
        r#"{"items": {}, "digests": {}}"#,
        r#"{"items": {"sha256:0": {"image": {"name": "n"}}}}"#,
        r#"{"items": {"sha256:d49eebefb6c7ce5505594bef652bd4adc36f413861bd44209d9b9486310b1264": {"image": {}}}}"#,
        r#"{"items": {"sha256:d49eebefb6c7ce5505594bef652bd4adc36f413861bd44209d9b9486310b1264": {"image": {"name": "n", "digest": "d"}}}}"#,
    ],
    parse: parse::<Description<Image>>,
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.files", size: |_| None, fetch }),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    /// The image's name, with that of the registry.
    name: String,
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
    let directory = context.target.with_extension("index");
    fs::create_dir_all(&directory).map_err(Error::io("create the directory", &directory))?;
    let result = list(context, &location, expected, &directory);
    fs::remove_dir_all(&directory).map_err(Error::io("remove", &directory))?;
    fs::write(context.target, result?).map_err(Error::io("write", context.target))
}

fn list(context: &SourceContext, location: &Location, expected: &str, directory: &Path) -> Result<Vec<u8>, Error> {
    location.copy(context, expected, &["--multi-arch=index-only"], directory)?;
    let name = location.reference(expected);
    let path = directory.join("manifest.json");
    let text = outside::read(&path, MAX_DOCUMENT).map_err(Error::io("read", &path))?;
    let manifest =
        serde_json::from_slice(&text).map_err(|error| Error::failed(format!("{name} is no JSON: {error}")))?;
    if !is_list(&manifest) {
        return Err(Error::failed(format!("{name} is no list of images")));
    }
    match digest(&text) {
        found if found == expected => Ok(text),
        found => Err(Error::failed(format!("{name} has the digest {found}"))),
    }
}
