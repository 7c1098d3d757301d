//! Schemas of built-in modules: derived from the options' types, surrounded by what a stage takes besides them.

use osbc_ir::{Map, Value};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::json;

/// The schemas of a module, as a `.meta.json` would give them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schema {
    /// `schema`: for stages and assemblers that of the options alone.
    pub schema: Option<Value>,
    /// `schema_2`: for stages the properties of a version 2 stage.
    pub schema_2: Option<Value>,
}

/// The schema of a type, as JSON Schema draft 4 understands it: subschemas in place, no `null` for absent optional
/// fields, `enum` for `const`.
pub fn options_schema<T: schemars::JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft07()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(RecursiveTransform(to_draft_4))
        .into_generator()
        .into_root_schema_for::<T>();
    schema.remove("title");
    schema.remove("$schema");
    schema.to_value()
}

/// What schemars says in later drafts, said in draft 4.
fn to_draft_4(schema: &mut schemars::Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("format");
    if object.get("items") == Some(&Value::Bool(true)) {
        object.remove("items");
    }
    if let Some(constant) = object.remove("const") {
        object.insert("enum".into(), json!([constant]));
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum")
        && values.len() > 1
    {
        values.retain(|value| !value.is_null());
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(options)) = object.get_mut("anyOf") {
        options.retain(|option| option.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

impl Schema {
    /// Of a source or device: the schema as given, for both versions. For a device it describes the options, for a
    /// source the whole description.
    pub fn same(schema: Value) -> Self {
        Self { schema: Some(schema), schema_2: None }
    }

    /// Of an input or mount: the schema of the whole description.
    pub fn version_2(schema: Value) -> Self {
        Self { schema: None, schema_2: Some(schema) }
    }

    /// Of a stage with these options that takes nothing else; more is added to the result.
    pub fn stage<T: schemars::JsonSchema>() -> StageSchema {
        StageSchema { options: options_schema::<T>(), properties: Map::new() }
    }
}

/// The schema of a stage in the making.
#[derive(Debug, Clone)]
pub struct StageSchema {
    options: Value,
    properties: Map<String, Value>,
}

impl StageSchema {
    /// Any inputs, none of them required.
    #[must_use]
    pub fn any_inputs(self) -> Self {
        self.with("inputs", json!({"type": "object", "additionalProperties": true}))
    }

    /// Exactly these inputs, all required.
    #[must_use]
    pub fn inputs(self, names: &[&str]) -> Self {
        self.named("inputs", names, false)
    }

    /// Any devices, none of them required.
    #[must_use]
    pub fn any_devices(self) -> Self {
        self.with("devices", json!({"type": "object", "additionalProperties": true}))
    }

    /// These devices, all required, and any others.
    #[must_use]
    pub fn devices(self, names: &[&str]) -> Self {
        self.named("devices", names, true)
    }

    /// Any mounts.
    #[must_use]
    pub fn mounts(self) -> Self {
        self.with("mounts", json!({"type": "array"}))
    }

    /// The schema of one property of the stage, in full.
    #[must_use]
    pub fn with(mut self, property: &str, schema: Value) -> Self {
        self.properties.insert(property.to_owned(), schema);
        self
    }

    /// For both versions: version 1 knows the options alone.
    pub fn done(self) -> Schema {
        let mut properties = self.properties;
        properties.insert("options".into(), self.options.clone());
        Schema { schema: Some(self.options), schema_2: Some(Value::Object(properties)) }
    }

    /// For version 2 alone: version 1 takes any options, as for osbuild's modules without a `schema`, and it is the
    /// options' type that refuses what does not fit.
    pub fn version_2_alone(self) -> Schema {
        Schema { schema: None, ..self.done() }
    }

    fn named(self, property: &str, names: &[&str], more: bool) -> Self {
        let any = json!({"type": "object", "additionalProperties": true});
        let properties: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), any.clone())).collect();
        self.with(
            property,
            json!({"type": "object", "additionalProperties": more, "required": names, "properties": properties}),
        )
    }
}
