//! Messages for schema errors, close to those that osbuild prints (python-jsonschema's), with what was expected and a
//! fix.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Error;
use osbc_ir::{Map, Value};

use super::schema::Schema;
use super::suggest::{alternatives, did_you_mean};
use crate::place::{Key, Place};
use crate::problem::{Anchor, Code, Phase, Problem};
use osbc_pytext::repr::{join, repr};

/// Turns a schema's error into a problem. `path` is where osbuild says the value stands, `place` where it does.
pub(crate) fn problem(
    error: &ValidationError<'_>,
    schema: &Schema,
    value: &Value,
    path: &Place,
    place: &Place,
) -> Problem {
    let inside = inside(error, value);
    let place = place.join(&inside);
    let words = Words::new(error, schema);
    let anchor = match error.kind() {
        Error::AdditionalProperties { unexpected } => match unexpected.first() {
            Some(key) => Anchor::Key(place.with(key.clone())),
            None => Anchor::Value(place),
        },
        _ => Anchor::Value(place),
    };
    let mut problem = Problem::new(Code::Schema, Phase::Validate, path.join(&inside), words.message());
    problem.anchor = anchor;
    problem.label(words.label()).help(words.help(value))
}

/// The steps from a validated value to the part that an error is about.
fn inside(error: &ValidationError<'_>, value: &Value) -> Place {
    let mut at = Some(value);
    let steps = error.instance_path().as_str().split('/').skip(1).map(|step| {
        let step = step.replace("~1", "/").replace("~0", "~");
        match (at, step.parse()) {
            (Some(Value::Array(items)), Ok(index)) => {
                at = items.get::<usize>(index);
                Key::Index(index)
            }
            (before, _) => {
                at = before.and_then(|before| before.get(&step));
                Key::from(step)
            }
        }
    });
    Place::from(steps.collect::<Vec<_>>())
}

/// An error with the part of the schema that it comes from.
struct Words<'a> {
    error: &'a ValidationError<'a>,
    schema: &'a Schema,
    /// The value of the keyword that is not met.
    keyword: &'a Value,
    /// The schema that has the keyword.
    parent: &'a Value,
}

impl<'a> Words<'a> {
    fn new(error: &'a ValidationError<'a>, schema: &'a Schema) -> Self {
        let path = error.schema_path().as_str();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let find = |pointer| schema.source().pointer(pointer).unwrap_or(&Value::Null);
        Self { error, schema, keyword: find(path), parent: find(parent) }
    }

    fn message(&self) -> String {
        let instance = self.error.instance();
        let value = repr(instance);
        let keyword = repr(self.keyword);
        match self.error.kind() {
            Error::Type { .. } => match self.keyword {
                Value::Array(types) => format!("{value} is not of type {}", join(types.iter().map(repr))),
                _ => format!("{value} is not of type {keyword}"),
            },
            Error::Required { property } => format!("{} is a required property", repr(property)),
            Error::AdditionalProperties { unexpected } => self.unexpected(unexpected),
            Error::AdditionalItems { limit } => {
                let extra = instance.as_array().map(Vec::as_slice).unwrap_or_default();
                let extra = extra.get(*limit..).unwrap_or_default();
                let (extra, were) = (join(extra.iter().map(repr)), if extra.len() == 1 { "was" } else { "were" });
                format!("Additional items are not allowed ({extra} {were} unexpected)")
            }
            Error::Enum { .. } => format!("{value} is not one of {keyword}"),
            Error::Pattern { .. } => format!("{value} does not match {keyword}"),
            Error::Minimum { limit } => format!("{value} is less than the minimum of {limit}"),
            Error::Maximum { limit } => format!("{value} is greater than the maximum of {limit}"),
            Error::ExclusiveMinimum { limit } => format!("{value} is less than or equal to the minimum of {limit}"),
            Error::ExclusiveMaximum { limit } => format!("{value} is greater than or equal to the maximum of {limit}"),
            Error::MultipleOf { .. } => format!("{value} is not a multiple of {keyword}"),
            Error::MinItems { limit: 1 } | Error::MinLength { limit: 1 } | Error::MinProperties { limit: 1 } => {
                format!("{value} should be non-empty")
            }
            Error::MaxItems { limit: 0 } | Error::MaxLength { limit: 0 } | Error::MaxProperties { limit: 0 } => {
                format!("{value} is expected to be empty")
            }
            Error::MinItems { .. } | Error::MinLength { .. } => format!("{value} is too short"),
            Error::MaxItems { .. } | Error::MaxLength { .. } => format!("{value} is too long"),
            Error::MinProperties { .. } => format!("{value} does not have enough properties"),
            Error::MaxProperties { .. } => format!("{value} has too many properties"),
            Error::UniqueItems => format!("{value} has non-unique elements"),
            Error::Not { .. } => format!("{value} should not be valid under {keyword}"),
            Error::AnyOf { .. } | Error::OneOfNotValid { .. } => {
                format!("{value} is not valid under any of the given schemas")
            }
            Error::OneOfMultipleValid { .. } => format!("{value} is valid under more than one of the given schemas"),
            _ => self.error.masked_with(value).to_string(),
        }
    }

    fn unexpected(&self, names: &[String]) -> String {
        let mut names: Vec<&String> = names.iter().collect();
        names.sort();
        let quoted = join(names.iter().map(|name| repr(&Value::String((*name).clone()))));
        if let Some(Value::Object(patterns)) = self.parent.get("patternProperties") {
            let mut patterns: Vec<&String> = patterns.keys().collect();
            patterns.sort();
            let patterns = join(patterns.iter().map(|pattern| repr(&Value::String((*pattern).clone()))));
            let verb = if names.len() == 1 { "does" } else { "do" };
            return format!("{quoted} {verb} not match any of the regexes: {patterns}");
        }
        let verb = if names.len() == 1 { "was" } else { "were" };
        format!("Additional properties are not allowed ({quoted} {verb} unexpected)")
    }

    /// What was expected there, in a few words.
    fn label(&self) -> String {
        let keyword = self.keyword;
        match self.error.kind() {
            Error::Type { .. } => match keyword {
                Value::Array(types) => {
                    let types: Vec<&str> = types.iter().filter_map(Value::as_str).collect();
                    format!("expected {}", types.join(" or "))
                }
                _ => format!("expected {}", keyword.as_str().unwrap_or("another type")),
            },
            Error::Required { property } => format!("{property} is missing"),
            Error::AdditionalProperties { .. } if self.parent.get("patternProperties").is_some() => {
                "not an allowed name".to_owned()
            }
            Error::AdditionalProperties { .. } => "not known here".to_owned(),
            Error::Enum { .. } => "not among the allowed values".to_owned(),
            Error::Pattern { .. } => "does not have the expected form".to_owned(),
            Error::Minimum { limit } => format!("expected at least {limit}"),
            Error::Maximum { limit } => format!("expected at most {limit}"),
            Error::ExclusiveMinimum { limit } => format!("expected more than {limit}"),
            Error::ExclusiveMaximum { limit } => format!("expected less than {limit}"),
            Error::MinItems { limit } | Error::MinLength { limit } | Error::MinProperties { limit } => {
                format!("expected at least {limit}")
            }
            Error::MaxItems { limit } | Error::MaxLength { limit } | Error::MaxProperties { limit } => {
                format!("expected at most {limit}")
            }
            Error::UniqueItems => "expected each item once".to_owned(),
            Error::AnyOf { context } | Error::OneOfNotValid { context } => {
                format!("fits none of the {} forms", context.len())
            }
            Error::OneOfMultipleValid { .. } => "fits more than one form".to_owned(),
            _ => "does not fit".to_owned(),
        }
    }

    fn help(&self, root: &Value) -> Option<String> {
        match self.error.kind() {
            Error::AdditionalProperties { unexpected } => {
                let known = self.parent.get("properties").and_then(Value::as_object);
                let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                let guess = unexpected.first().and_then(|name| did_you_mean(name, known.iter().copied()));
                guess.or_else(|| alternatives("known here", known.iter().copied()))
            }
            Error::Enum { .. } => {
                let allowed = self.keyword.as_array().map(Vec::as_slice).unwrap_or_default();
                let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
                let guess =
                    self.error.instance().as_str().and_then(|written| did_you_mean(written, names.iter().copied()));
                guess.or_else(|| alternatives("allowed", allowed.iter().map(repr)))
            }
            Error::Required { .. } => {
                let about = self.parent.get("properties")?.get(self.missing()?)?.get("description")?.as_str()?;
                Some(about.to_owned())
            }
            Error::OneOfMultipleValid { .. } if self.error.instance().as_array().is_some_and(Vec::is_empty) => {
                Some("an empty list is both a list of ids and a list of objects; for nothing, write {}".to_owned())
            }
            Error::AnyOf { context } | Error::OneOfNotValid { context } => {
                let of_all = self.allowed_in_forms(context, root).or_else(|| self.known_in_forms(context));
                of_all.or_else(|| required_in_forms(context)).or_else(|| self.closest_form(context, root))
            }
            _ => None,
        }
    }

    fn missing(&self) -> Option<&str> {
        match self.error.kind() {
            Error::Required { property } => property.as_str(),
            _ => None,
        }
    }

    /// Returns the values that the alternatives allow at a place, where they differ by the value there and it is that
    /// of none of them.
    fn allowed_in_forms(&self, context: &[Vec<ValidationError<'static>>], root: &Value) -> Option<String> {
        let is_choice =
            |error: &&ValidationError<'static>| matches!(error.kind(), Error::Enum { .. } | Error::Constant { .. });
        let choices: Vec<_> = context.iter().map(|errors| errors.iter().find(is_choice)).collect::<Option<_>>()?;
        let first = choices.first()?;
        let mut allowed: Vec<&Value> = Vec::new();
        for choice in &choices {
            if choice.instance_path() != first.instance_path() {
                return None;
            }
            let values = Words::new(choice, self.schema).keyword;
            for value in values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice) {
                if !allowed.contains(&value) {
                    allowed.push(value);
                }
            }
        }
        let names: Vec<&str> = allowed.iter().filter_map(|value| value.as_str()).collect();
        let guess = first.instance().as_str().and_then(|written| did_you_mean(written, names.iter().copied()));
        let all = alternatives("allowed", allowed.into_iter().map(repr))?;
        let guess = guess.map(|guess| format!("{guess}; ")).unwrap_or_default();
        Some(format!("at `{}`, {} fits none of the forms: {guess}{all}", inside(first, root), repr(first.instance())))
    }

    /// Returns the nearest name that any of the alternatives knows for one that none of them does.
    fn known_in_forms(&self, context: &[Vec<ValidationError<'static>>]) -> Option<String> {
        let (mut known, mut unknown): (Vec<&str>, Option<Vec<&String>>) = (Vec::new(), None);
        for errors in context {
            let (words, names) = errors.iter().find_map(|error| match error.kind() {
                Error::AdditionalProperties { unexpected } => Some((Words::new(error, self.schema), unexpected)),
                _ => None,
            })?;
            let properties = words.parent.get("properties").and_then(Value::as_object);
            known.extend(properties.into_iter().flat_map(Map::keys).map(String::as_str));
            let before = unknown.take().unwrap_or_else(|| names.iter().collect());
            unknown = Some(before.into_iter().filter(|name| names.contains(name)).collect());
        }
        let name = *unknown?.first()?;
        let guess = did_you_mean(name, known)?;
        Some(format!("no form has {}: {guess}", repr(&Value::String(name.clone()))))
    }

    /// What is wrong under the alternative that comes closest: one that gets past types and constants, and whose
    /// errors lie deepest and are fewest.
    fn closest_form(&self, context: &[Vec<ValidationError<'static>>], root: &Value) -> Option<String> {
        let here = self.error.instance_path().as_str().len();
        let depth = |error: &ValidationError<'_>| error.instance_path().as_str()[here..].matches('/').count();
        let alien = |error: &&ValidationError<'static>| {
            matches!(error.kind(), Error::Type { .. } | Error::Enum { .. }) && depth(error) <= 1
        };
        let form = context.iter().filter(|errors| !errors.is_empty()).min_by_key(|errors| {
            let aliens = errors.iter().filter(alien).count();
            let deepest = errors.iter().map(depth).max().unwrap_or_default();
            (aliens, usize::MAX - deepest, errors.len())
        })?;
        let error = form.iter().max_by_key(|error| depth(error))?;
        let words = Words::new(error, self.schema);
        let deeper = words.help(root).map(|help| format!(" ({help})")).unwrap_or_default();
        let place = inside(error, root);
        let message = words.message();
        Some(format!("closest: at `{place}`, {message}{deeper}"))
    }
}

/// Returns what the alternatives require, where they differ by that and a value has none of it; with the nearest of
/// those names to one that the value has.
fn required_in_forms(context: &[Vec<ValidationError<'static>>]) -> Option<String> {
    let mut required: Vec<&str> = Vec::new();
    let mut written: Option<&Map<String, Value>> = None;
    for errors in context {
        let (value, name) = errors.iter().find_map(|error| match error.kind() {
            Error::Required { property } => error.instance().as_object().zip(property.as_str()),
            _ => None,
        })?;
        if written.is_some_and(|written| written != value) {
            return None;
        }
        written = Some(value);
        if !required.contains(&name) {
            required.push(name);
        }
    }
    if required.len() < 2 {
        return None;
    }
    let guess = written?.keys().find_map(|key| {
        let guess = did_you_mean(key, required.iter().copied())?;
        Some(format!("{}: {guess} ", repr(&Value::String(key.clone()))))
    });
    let names = join(required.iter().map(|name| repr(&Value::String((*name).to_owned()))));
    Some(format!("{}one of these is required: {names}", guess.unwrap_or_default()))
}
