//! Fails.
//!
//! For tests: the assembler fails with the given return code, 255 by default; with 0 it succeeds.
//!
//! ```json
//! { "type": "org.osbuild.error", "options": { "returncode": 7 } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Assembler,
    name: "org.osbuild.error",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::same(options_schema::<Options>()),
    rejects: &[r#"{"options": {"returncode": "7"}}"#, r#"{"options": {"extra": true}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The code
    #[serde(default = "usual")]
    returncode: f64,
}

fn usual() -> f64 {
    255.0
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { returncode } = cx.options()?;
    if returncode == 0.0 {
        return Ok(());
    }
    Err(Error::failed(format!("the manifest asks the assembler to fail with {returncode}")))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn it_fails_unless_the_code_is_zero() {
        assert!(Case::new(&MODULE).run(json!({})).err().ends_with("fail with 255"));
        assert!(Case::new(&MODULE).run(json!({"returncode": 7})).err().ends_with("fail with 7"));
        Case::new(&MODULE).run(json!({"returncode": 0})).ok();
    }
}
