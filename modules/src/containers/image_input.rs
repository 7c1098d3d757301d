//! How inputs name container images: by references that say what each is called where the stage puts it.

use osbc_module_api::{Value, json};

/// The schema of an input of that name whose images come from those origins. `options` is that of a reference.
pub(crate) fn schema(name: &str, origin: &str, origins: &[&str], options: &Value) -> Value {
    let references = json!({"oneOf": [
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["id"],
                "properties": {"id": {"type": "string"}, "options": options}
            }
        },
        {
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "patternProperties": {".*": options}
        }
    ]});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["type", "origin", "references"],
        "properties": {
            "type": {"enum": [name]},
            "origin": {"description": origin, "type": "string", "enum": origins},
            "references": references
        }
    })
}
