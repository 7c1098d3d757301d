//! Parses text: JSON, the format's version, and the readers of both formats, which make a
//! [`Description`](crate::description::Description).

use osbc_ir::{FormatVersion, Value};

use crate::place::Place;
use crate::problem::{Anchor, Code, Phase, Problem};
use crate::text::SourceText;

pub mod json;
pub mod v1;
pub mod v2;

/// A manifest as JSON, in a format that osbc knows.
#[derive(Debug, Clone)]
pub struct Document {
    /// The format.
    pub version: FormatVersion,
    /// The whole manifest, an object; numbers are canonical.
    pub value: Value,
}

/// Parses the text and picks the format by its `version`.
///
/// # Errors
/// The text is no JSON, or no object, or of a version that osbc does not know.
pub fn parse(text: &SourceText) -> Result<Document, Box<Problem>> {
    let value = json::parse(text.as_str())?;
    let Value::Object(entries) = &value else {
        let problem = Problem::new(Code::Schema, Phase::Parse, Place::root(), "a manifest is a JSON object")
            .at(Anchor::Bytes(0..text.as_str().len()))
            .label("not an object");
        return Err(Box::new(problem));
    };
    let version = match entries.get("version") {
        None => FormatVersion::V1,
        // osbuild takes the name of the format without a `version` too, and then refuses the key.
        Some(Value::String(version)) if version == "1" => FormatVersion::V1,
        Some(Value::String(version)) if version == "2" => FormatVersion::V2,
        Some(_) => {
            let place = Place::root().with("version");
            let help = "write \"version\": \"2\" (a string), or leave `version` out for format 1";
            let problem = Problem::new(Code::UnsupportedVersion, Phase::Validate, place, "unsupported manifest format")
                .label("neither \"2\" nor absent")
                .help(help.to_owned());
            return Err(Box::new(problem));
        }
    };
    Ok(Document { version, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<FormatVersion, (Code, String)> {
        let text = SourceText::from_bytes("m", text.into()).expect("text");
        parse(&text).map(|document| document.version).map_err(|problem| (problem.code, problem.message))
    }

    #[test]
    fn the_version_picks_the_format() {
        assert_eq!(parsed("{}"), Ok(FormatVersion::V1));
        assert_eq!(parsed(r#"{"version": "2"}"#), Ok(FormatVersion::V2));
        for other in ["\"3\"", "2", "null", "[]"] {
            let (code, _) = parsed(&format!("{{\"version\": {other}}}")).expect_err(other);
            assert_eq!(code, Code::UnsupportedVersion);
        }
    }

    #[test]
    fn a_manifest_is_an_object() {
        for other in ["[]", "1", "\"{}\"", "null"] {
            assert_eq!(parsed(other), Err((Code::Schema, "a manifest is a JSON object".to_owned())));
        }
    }
}
