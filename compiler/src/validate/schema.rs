//! The schemas that a manifest is checked against: its format's own, and each module's as osbuild puts it together.
//!
//! Compiled once, asked often; errors are collected only where a value does not fit.

use jsonschema::{Draft, ValidationError, Validator};
use osbc_ir::{FormatVersion, Kind, Map, Value};
use osbc_module_api::Module;
use serde_json::json;

const MANIFEST_V1: &str = include_str!("../../schemas/manifest-v1.json");
const MANIFEST_V2: &str = include_str!("../../schemas/manifest-v2.json");

/// Why a module has no usable schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The module has no schema for this format.
    #[error("has no schema for version {version} of the manifest format")]
    Missing {
        /// The format.
        version: &'static str,
    },
    /// Its schema is invalid.
    #[error("has an invalid schema: {reason}")]
    Invalid {
        /// The validator's error.
        reason: String,
    },
}

/// How many values are looked at for errors, each of which can have some.
const MAX_VALUES: usize = 100_000;

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    source: Value,
    validator: Validator,
}

impl Schema {
    /// The schema of a whole manifest.
    ///
    /// # Errors
    /// Built-in schemas give none; tests check them.
    pub(crate) fn of_manifest(version: FormatVersion) -> Result<Self, SchemaError> {
        let text = match version {
            FormatVersion::V1 => MANIFEST_V1,
            FormatVersion::V2 => MANIFEST_V2,
        };
        let source = serde_json::from_str(text).map_err(|error| SchemaError::Invalid { reason: error.to_string() })?;
        Self::compile(source)
    }

    /// The schema of what a manifest says to a module.
    ///
    /// # Errors
    /// The module has no schema for this version, or an invalid one.
    pub(crate) fn of_module(module: &Module, version: FormatVersion) -> Result<Self, SchemaError> {
        Self::compile(compose(module, version)?)
    }

    fn compile(source: Value) -> Result<Self, SchemaError> {
        let options = jsonschema::options().with_draft(Draft::Draft4).should_validate_formats(false);
        match options.build(&source) {
            Ok(validator) => Ok(Self { source, validator }),
            Err(error) => Err(SchemaError::Invalid { reason: error.to_string() }),
        }
    }

    /// The schema of a part, by its pointer in this one. `definitions` stay in reach.
    ///
    /// # Errors
    /// There is no schema at that pointer.
    pub(crate) fn part(&self, pointer: &str) -> Result<Self, SchemaError> {
        let mut part = self.source.pointer(pointer).cloned().unwrap_or_default();
        if let (Value::Object(part), Some(definitions)) = (&mut part, self.source.get("definitions")) {
            part.insert("definitions".into(), definitions.clone());
        }
        Self::compile(part)
    }

    /// Whether nothing is wrong with a value.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// What is wrong with a value; nothing in the common case.
    ///
    /// Of a value that is too large to say everything about, only the beginnings of its lists are looked at.
    pub(crate) fn errors<'a>(&'a self, value: &'a Value) -> Vec<ValidationError<'a>> {
        if self.accepts(value) {
            return Vec::new();
        }
        let mut room = MAX_VALUES;
        let beginning = beginning(value, &mut room);
        if room > 0 {
            return self.validator.iter_errors(value).collect();
        }
        let errors: Vec<_> = self.validator.iter_errors(&beginning).map(ValidationError::to_owned).collect();
        if errors.is_empty() { self.validator.validate(value).err().into_iter().collect() } else { errors }
    }

    /// The schema as JSON.
    pub(crate) fn source(&self) -> &Value {
        &self.source
    }
}

/// Puts the schema of a module together: the frame of its kind, filled with what the module says.
fn compose(module: &Module, version: FormatVersion) -> Result<Value, SchemaError> {
    let said = |schema: &Option<Value>| match schema {
        Some(Value::Object(schema)) if !schema.is_empty() => Some(schema.clone()),
        _ => None,
    };
    let (one, two) = (said(&module.schema), said(&module.schema_2));
    let missing = || SchemaError::Missing { version: version_name(version) };
    let of_version = match version {
        FormatVersion::V1 => one.clone(),
        FormatVersion::V2 => two.clone().or(one.clone()),
    };
    let title = format!("the {} {}", module.kind, module.name);
    let mut schema = Map::new();
    schema.insert("title".into(), json!(title));
    schema.insert("type".into(), json!("object"));
    schema.insert("additionalProperties".into(), json!(false));
    let only_name = json!({ "enum": [module.name] });
    match module.kind {
        Kind::Stage | Kind::Assembler => {
            let (key, said) = match version {
                FormatVersion::V1 => ("name", None),
                FormatVersion::V2 => ("type", two),
            };
            let mut properties = Map::new();
            properties.insert(key.into(), only_name);
            properties.extend(said.unwrap_or_else(|| {
                let options = Value::Object(one.unwrap_or_default());
                Map::from_iter([("options".to_owned(), options)])
            }));
            properties.entry("mounts").or_insert_with(|| json!({ "type": "array" }));
            properties.entry("devices").or_insert_with(|| json!({ "type": "object" }));
            schema.insert("properties".into(), Value::Object(properties));
            schema.insert("required".into(), json!([key]));
        }
        Kind::Device => {
            let options = of_version.ok_or_else(missing)?;
            schema.insert("additionalProperties".into(), json!(true));
            schema.insert("properties".into(), json!({ "type": only_name, "options": options }));
        }
        Kind::Mount => {
            schema.extend(two.ok_or_else(missing)?);
            let properties = schema.entry("properties").or_insert_with(|| json!({}));
            if let Value::Object(properties) = properties {
                properties.insert("type".into(), only_name);
            }
        }
        Kind::Source | Kind::Input | Kind::Runner => schema.extend(of_version.ok_or_else(missing)?),
    }
    hoist_definitions(&mut schema);
    Ok(Value::Object(schema))
}

/// A value with as many of the items of its lists as there is room for.
fn beginning(value: &Value, room: &mut usize) -> Value {
    *room = room.saturating_sub(1);
    match value {
        Value::Array(items) => {
            let mut kept = Vec::new();
            for item in items {
                if *room == 0 {
                    break;
                }
                kept.push(beginning(item, room));
            }
            Value::Array(kept)
        }
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), beginning(value, room))).collect())
        }
        value => value.clone(),
    }
}

/// Moves `definitions` to the root, which modules write as if their options were the root.
fn hoist_definitions(schema: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let outer = properties.shift_remove("definitions");
    let options = properties.get_mut("options").and_then(Value::as_object_mut);
    let inner = options.and_then(|options| options.shift_remove("definitions"));
    if let Some(definitions) = inner.or(outer) {
        schema.insert("definitions".into(), definitions);
    }
}

fn version_name(version: FormatVersion) -> &'static str {
    match version {
        FormatVersion::V1 => "1",
        FormatVersion::V2 => "2",
    }
}

#[cfg(test)]
mod tests {
    use osbc_ir::Revision;
    use osbc_module_api::{OnDisk, Provider};

    use super::*;

    fn module(kind: Kind, schema: Option<Value>, schema_2: Option<Value>) -> Module {
        Module {
            kind,
            name: "org.example.m".into(),
            revision: Revision::Digest([0; 32]),
            summary: String::new(),
            description: String::new(),
            schema,
            schema_2,
            capabilities: Vec::new(),
            requires: Vec::new(),
            content_type: String::new(),
            provider: Provider::OnDisk(OnDisk { file: "m".into(), libdir: "".into(), package: None }),
        }
    }

    fn accepts(module: &Module, version: FormatVersion, value: Value) -> bool {
        Schema::of_module(module, version).expect("a schema").errors(&value).is_empty()
    }

    #[test]
    fn the_schemas_of_both_formats_compile() {
        for version in [FormatVersion::V1, FormatVersion::V2] {
            assert_eq!(Schema::of_manifest(version).err(), None);
        }
    }

    #[test]
    fn a_stage_without_schema_2_takes_the_options_of_schema() {
        let module = module(Kind::Stage, Some(json!({"type": "object", "required": ["a"]})), None);
        for (version, key) in [(FormatVersion::V1, "name"), (FormatVersion::V2, "type")] {
            assert!(accepts(&module, version, json!({key: "org.example.m", "options": {"a": 1}})));
            assert!(accepts(&module, version, json!({key: "org.example.m", "devices": {"d": 1}, "mounts": [1]})));
            assert!(!accepts(&module, version, json!({key: "org.example.m", "options": {}})));
            assert!(!accepts(&module, version, json!({key: "org.example.m", "inputs": {}})));
            assert!(!accepts(&module, version, json!({key: "another"})));
        }
    }

    #[test]
    fn definitions_move_to_the_root() {
        let options = json!({
            "definitions": {"name": {"type": "string"}},
            "properties": {"a": {"$ref": "#/definitions/name"}},
        });
        let module = module(Kind::Stage, None, Some(json!({"options": options, "inputs": {"type": "object"}})));
        let stage = |a: Value| json!({"type": "org.example.m", "options": {"a": a}});
        assert!(accepts(&module, FormatVersion::V2, stage(json!("x"))));
        assert!(!accepts(&module, FormatVersion::V2, stage(json!(1))));
    }

    #[test]
    fn other_kinds_describe_themselves_in_full_but_devices() {
        let device = module(Kind::Device, Some(json!({"required": ["size"]})), None);
        assert!(accepts(&device, FormatVersion::V2, json!({"type": "org.example.m", "parent": "x"})));
        assert!(!accepts(&device, FormatVersion::V2, json!({"type": "org.example.m", "options": {}})));

        let mount = module(Kind::Mount, None, Some(json!({"properties": {"name": {}}, "required": ["name"]})));
        assert!(accepts(&mount, FormatVersion::V2, json!({"type": "org.example.m", "name": "x"})));
        assert!(!accepts(&mount, FormatVersion::V2, json!({"type": "org.example.m", "name": "x", "other": 1})));
        let mount = module(Kind::Mount, Some(json!({"properties": {}})), None);
        let error = Schema::of_module(&mount, FormatVersion::V2).err();
        assert_eq!(error, Some(SchemaError::Missing { version: "2" }));
    }

    #[test]
    fn a_broken_schema_is_an_error_and_no_crash() {
        let module = module(Kind::Stage, Some(json!({"type": 5})), None);
        let error = Schema::of_module(&module, FormatVersion::V1).expect_err("no schema");
        assert!(matches!(error, SchemaError::Invalid { .. }), "{error}");
    }
}
