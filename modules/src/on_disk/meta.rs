//! Reads `NAME.meta.json`, and refuses what osbuild refuses: another key, another type, no schema at all.

use osbc_module_api::Value;
use serde::Deserialize;

use super::Metadata;

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    summary: String,
    description: Vec<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default, deserialize_with = "object")]
    schema: Option<Value>,
    #[serde(default, deserialize_with = "object")]
    schema_2: Option<Value>,
}

fn object<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_object() { Ok(Some(value)) } else { Err(serde::de::Error::custom("a schema is an object")) }
}

/// Reads the metadata of a module.
///
/// # Errors
/// What is wrong with it, with line and column.
pub(super) fn read(text: &[u8]) -> Result<Metadata, String> {
    let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if written.schema.is_none() && written.schema_2.is_none() {
        return Err("neither `schema` nor `schema_2` is given".to_owned());
    }
    Ok(Metadata {
        summary: written.summary,
        description: written.description.join("\n"),
        schema: written.schema,
        schema_2: written.schema_2,
        capabilities: written.capabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_osbuilds_shape_is_taken() {
        let ok = r#"{"summary": "", "description": [], "schema": {}}"#;
        assert!(read(ok.as_bytes()).is_ok());
        for wrong in [
            "[]",
            r#"{"summary": "", "description": []}"#,
            r#"{"summary": "", "schema": {}}"#,
            r#"{"summary": "", "description": "", "schema": {}}"#,
            r#"{"summary": "", "description": [], "schema": 1}"#,
            r#"{"summary": "", "description": [], "schema": null}"#,
            r#"{"summary": "", "description": [], "schema": {}, "capabilities": [1]}"#,
            r#"{"summary": "", "description": [], "schema": {}, "more": 1}"#,
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
