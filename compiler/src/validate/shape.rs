//! Checks a manifest against the schema of its format.
//!
//! A valid manifest is checked as a whole. Otherwise each pipeline, stage and source is checked by itself, so that all
//! problems of a large manifest can be reported.

use osbc_ir::{FormatVersion, Map, Value};

use super::message;
use super::schema::{Schema, SchemaError};
use crate::place::Place;
use crate::problem::{Code, Phase, Problem, Problems};

/// Checks a manifest as far as its format goes: what modules have to say is not looked at.
pub(crate) fn check(manifest: &Value, version: FormatVersion) -> Problems {
    let mut problems = Problems::new();
    // The schemas that osbc brings along have no errors; that is tested.
    if let Err(error) = look(manifest, version, &mut problems) {
        let message = format!("the schema of the manifest {error}");
        problems.push(Problem::new(Code::Schema, Phase::Validate, Place::root(), message));
    }
    problems
}

fn look(manifest: &Value, version: FormatVersion, problems: &mut Problems) -> Result<(), SchemaError> {
    let whole = Schema::of_manifest(version)?;
    if whole.accepts(manifest) {
        return Ok(());
    }
    let mut shape = Shape { whole: &whole, problems };
    match version {
        FormatVersion::V1 => shape.v1(manifest),
        FormatVersion::V2 => shape.v2(manifest),
    }
}

struct Shape<'a> {
    whole: &'a Schema,
    problems: &'a mut Problems,
}

impl Shape<'_> {
    fn report(&mut self, schema: &Schema, value: &Value, place: &Place) {
        if self.problems.is_full() {
            return;
        }
        let errors = schema.errors(value);
        self.problems.extend(errors.iter().map(|error| message::problem(error, schema, value, place, place)));
    }

    fn v2(&mut self, manifest: &Value) -> Result<(), SchemaError> {
        let source = self.whole.part("/properties/sources/additionalProperties")?;
        let pipeline = self.whole.part("/properties/pipelines/items")?;
        let stage = self.whole.part("/definitions/stage")?;
        let root = Place::root();
        self.report(self.whole, &hollow(manifest, &["sources", "pipelines"]), &root);
        for (name, value) in manifest.get("sources").and_then(Value::as_object).into_iter().flatten() {
            self.report(&source, value, &root.with("sources").with(name.clone()));
        }
        for (index, value) in list(manifest, "pipelines") {
            if self.problems.is_full() {
                break;
            }
            let place = root.with("pipelines").with(index);
            self.report(&pipeline, &hollow(value, &["stages"]), &place);
            for (index, value) in list(value, "stages") {
                self.report(&stage, value, &place.with("stages").with(index));
            }
        }
        Ok(())
    }

    fn v1(&mut self, manifest: &Value) -> Result<(), SchemaError> {
        let pipeline = self.whole.part("/definitions/pipeline")?;
        let build = self.whole.part("/definitions/pipeline/properties/build")?;
        let stage = self.whole.part("/definitions/step")?;
        let mut place = Place::root();
        self.report(self.whole, &hollow(manifest, &["pipeline"]), &place);
        let mut above = manifest;
        while let Some(value) = above.get("pipeline").filter(|value| value.is_object()) {
            place = place.with("pipeline");
            let mut outline = hollow(value, &["stages"]);
            // The build pipeline comes next; here it only has to be an object.
            let nested = value.get("build").filter(|build| build.is_object());
            if let (Some(_), Value::Object(outline)) = (nested, &mut outline) {
                outline.shift_remove("build");
            }
            self.report(&pipeline, &outline, &place);
            for (index, value) in list(value, "stages") {
                self.report(&stage, value, &place.with("stages").with(index));
            }
            let Some(nested) = nested else { break };
            place = place.with("build");
            self.report(&build, &hollow(nested, &["pipeline"]), &place);
            above = nested;
        }
        Ok(())
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// An object with nothing in the lists and objects below these keys.
fn hollow(value: &Value, keys: &[&str]) -> Value {
    let Value::Object(entries) = value else { return value.clone() };
    let emptied = entries.iter().map(|(key, value)| {
        let value = match value {
            Value::Array(_) if keys.contains(&key.as_str()) => Value::Array(Vec::new()),
            Value::Object(_) if keys.contains(&key.as_str()) => Value::Object(Map::new()),
            value => value.clone(),
        };
        (key.clone(), value)
    });
    Value::Object(emptied.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::problem::Report;
    use crate::text::SourceText;

    fn paths(version: FormatVersion, manifest: &Value) -> Vec<String> {
        let problems = check(manifest, version);
        let text = SourceText::from_bytes("m", manifest.to_string().into_bytes()).expect("text");
        let report = Report::new(&text, problems);
        report.problems().iter().map(|located| located.problem.path.to_string()).collect()
    }

    #[test]
    fn every_piece_of_a_manifest_is_looked_at() {
        let stage = json!({"type": 1, "inputs": {"a": {"type": "t", "origin": "x", "references": []}}, "mounts": [{}]});
        let manifest = json!({
            "version": "2",
            "sources": {"s": {"items": 1}, "t": 2},
            "pipelines": [{"name": "a", "stages": [{"type": "t"}, stage]}, {"stage": []}, {"stages": {}}],
            "more": 1,
        });
        assert_eq!(
            paths(FormatVersion::V2, &manifest),
            [
                ".",
                ".pipelines[0].stages[1].inputs.a.origin",
                ".pipelines[0].stages[1].inputs.a.references",
                ".pipelines[0].stages[1].mounts[0]",
                ".pipelines[0].stages[1].mounts[0]",
                ".pipelines[0].stages[1].type",
                ".pipelines[1]",
                ".pipelines[2].stages",
                ".sources.s.items",
                ".sources.t",
            ]
        );
        let nested = json!({"pipeline": {"stages": [{}], "build": {"pipeline": 1}, "x": 1}, "y": 1});
        let manifest = json!({"pipeline": {"build": nested, "stages": [{"name": 1}], "assembler": {}}, "sources": []});
        assert_eq!(
            paths(FormatVersion::V1, &manifest),
            [
                ".pipeline.assembler",
                ".pipeline.build",
                ".pipeline.build",
                ".pipeline.build.pipeline",
                ".pipeline.build.pipeline.build",
                ".pipeline.build.pipeline.build.pipeline",
                ".pipeline.build.pipeline.stages[0]",
                ".pipeline.stages[0].name",
                ".sources",
            ]
        );
    }

    #[test]
    fn a_manifest_that_is_wrong_all_over_takes_no_memory_without_end() {
        let numbers = Value::Array(vec![json!(1); 300_000]);
        for manifest in [
            json!({"version": "2", "pipelines": numbers}),
            json!({"version": "2", "pipelines": [{"stages": numbers}]}),
            json!({"version": "2", "metadata": {"exports": numbers}}),
        ] {
            assert_eq!(paths(FormatVersion::V2, &manifest).len(), 10_000);
        }
        let input = json!({"type": "t", "origin": "org.osbuild.source", "references": numbers});
        let manifest = json!({"version": "2", "pipelines": [{"stages": [{"type": "t", "inputs": {"a": input}}]}]});
        assert_eq!(paths(FormatVersion::V2, &manifest), [".pipelines[0].stages[0].inputs.a.references"]);
    }
}
