//! Sets options of an OSTree repository in the tree that may yet change.
//!
//! Calls `ostree` of the build root.
//!
//! ```json
//! {
//!   "type": "org.osbuild.experimental.ostree.config",
//!   "options": { "repo": "/ostree/repo", "config": { "integrity": { "composefs": "true" } } }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::configure;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.experimental.ostree.config",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"config": {}}}"#,
        r#"{"options": {"repo": "/repo", "config": {"sysroot": {}}}}"#,
        r#"{"options": {"repo": "/repo", "config": {"integrity": {"composefs": true}}}}"#,
        r#"{"options": {"repo": "/repo", "config": {"integrity": {"composefs": "yes"}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The repository
    repo: String,
    /// The options, by group
    config: Option<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Those of the integrity of deployments
    #[serde(default)]
    integrity: Integrity,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Integrity {
    /// Whether deployments get a composefs image
    composefs: Option<Wanted>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    True,
    False,
    Maybe,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let config = options.config.ok_or_else(|| Error::failed("`config` must be given"))?;
    let Some(wanted) = config.integrity.composefs else { return Ok(()) };
    let wanted = match wanted {
        Wanted::True => "true",
        Wanted::False => "false",
        Wanted::Maybe => "maybe",
    };
    configure(cx, &options.repo, &[("ex-integrity.composefs", wanted.to_owned())])
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn options_are_wanted_and_nothing_is_done_without_any() {
        assert_eq!(Case::new(&MODULE).run(json!({"repo": "repo"})).err(), "`config` must be given");
        Case::new(&MODULE).run(json!({"repo": "repo", "config": {}})).ok();
    }
}
