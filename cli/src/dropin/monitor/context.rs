//! What a message of `JSONSeqMonitor` is about: in full the first time, by its id from then on.

use std::collections::HashSet;

use osbc_ir::{CompatId, hex};
use osbc_pytext::json;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where messages about the build as a whole come from.
pub(super) const MAIN: &str = "osbuild.main_cli";
/// Where messages come from that are meant for people.
pub(super) const MONITOR: &str = "osbuild.monitor";
/// Where everything else comes from.
pub(super) const OTHER: &str = "org.osbuild";

/// What a message is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// A pipeline or source, by name and id.
    pub(super) pipeline: Option<(String, Option<CompatId>)>,
    /// A stage, by module and id.
    pub(super) stage: Option<(String, CompatId)>,
}

/// The contexts that were printed in full.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    shown: HashSet<String>,
}

impl Contexts {
    /// Returns a context for a message: in full the first time, then its id alone.
    pub(super) fn refer(&mut self, context: &Context, origin: &str) -> Value {
        let (name, id) = context.pipeline.clone().unzip();
        let (stage_name, stage_id) = context.stage.clone().unzip();
        let mut full = json!({
            "origin": origin,
            "pipeline": {"name": name, "id": id.flatten(), "stage": {"name": stage_name, "id": stage_id}},
        });
        let mut sorted = full.clone();
        sorted.sort_all_objects();
        let id = hex(&Sha256::digest(json::to_string(&sorted)));
        if !self.shown.insert(id.clone()) {
            return json!({ "id": id });
        }
        full["id"] = json!(id);
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_osbuilds_and_the_full_text_is_said_once() {
        let mut contexts = Contexts::default();
        // As osbuild printed it.
        let id = "ede22f789202b9017bd24089276f57f559018c593914632c80206be12f5b3bb0";
        let first = contexts.refer(&Context::default(), MAIN);
        assert_eq!(first["id"], id);
        assert_eq!(first["origin"], MAIN);
        assert_eq!(contexts.refer(&Context::default(), MAIN), json!({ "id": id }));
        let context = Context {
            pipeline: Some((
                "tree".to_owned(),
                "60cc669417a3ecf81d6657be8fad675f5450ee008758f618bec8269e3556dce2".parse().ok(),
            )),
            stage: Some((
                "org.osbuild.noop".to_owned(),
                "783c46f5ea16793d0a9148e32d27c48f8f8e515943c0dd19f21105031ff614f7".parse().expect("an id"),
            )),
        };
        assert_eq!(
            contexts.refer(&context, "stages/org.osbuild.noop")["id"],
            "b4a6b0a6c6f5d4c55a9dc1d96102a9631f93bcd6dd29646f0819d918eb4337b2"
        );
    }
}
