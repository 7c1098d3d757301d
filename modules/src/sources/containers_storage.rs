//! Makes sure that container images are in the host's own storage.
//!
//! Nothing is fetched and nothing is kept: the images stay where they are, and every build that needs one looks again.
//! Each item is the id of an image, the digest of its configuration. Calls `skopeo` of the host.
//!
//! ```json
//! {
//!   "type": "org.osbuild.containers-storage",
//!   "items": { "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": {} }
//! }
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use osbc_module_api::*;

use crate::containers::container_storage::Configuration;
use crate::containers::registry_image::id;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.containers-storage",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("skopeo")],
    schema: || {
        Schema::same(json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "items": {
                    "description": "The images.",
                    "type": "object",
                    "additionalProperties": false,
                    "patternProperties": {"sha256:[0-9a-f]{64}": options_schema::<Item>()}
                }
            }
        }))
    },
    rejects: &[
        r#"{"items": {"sha256:0": {}}}"#,
        r#"{"items": {"sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": {"name": "n"}}}"#,
        r#"{"options": {}}"#,
    ],
    parse: parse::<Description>,
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.containers-storage", size: |_| None, fetch }),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(rename = "items", default)]
    _items: BTreeMap<String, Item>,
}

/// Nothing more is to be said of an image.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {}

fn fetch(context: &SourceContext, expected: &str, _: &Value) -> Result<(), Error> {
    let hex = expected.split_once(':').map_or(expected, |(_, hex)| hex);
    let reference = Configuration::read(Path::new("/"))?.reference(hex);
    match id(&reference, context.interrupted) {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(Error::failed(format!("the image {expected} of the host has the id {found}"))),
        Err(Error::ToolRefused { said, .. }) if is_missing(&said) => {
            Err(Error::failed(format!("the image {expected} is not in the host's container storage; pull it there")))
        }
        Err(error) => Err(error),
    }
}

/// Whether skopeo, old or new, says that there is no such image.
fn is_missing(said: &str) -> bool {
    ["identifier is not an image", "does not resolve to an image ID"].iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_image_is_distinguished_from_other_failures() {
        assert!(is_missing("level=fatal msg=\"Error: identifier is not an image\""));
        assert!(is_missing("reference \"[overlay@/s]aa\" does not resolve to an image ID"));
        assert!(!is_missing("permission denied"));
    }
}
