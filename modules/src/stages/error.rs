//! Fails.
//!
//! For tests of what happens then. A `returncode` of 0 (or a multiple of 256, of which a process can only say 0) makes
//! it succeed.
//!
//! ```json
//! { "type": "org.osbuild.error", "options": { "returncode": 3 } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.error",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {"returncode": "3"}}"#, r#"{"options": {"code": 3}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The exit code to end with.
    #[serde(default = "usual")]
    #[schemars(with = "f64")]
    returncode: i64,
}

fn usual() -> i64 {
    255
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { returncode } = cx.options()?;
    if returncode & 0xff == 0 {
        return Ok(());
    }
    Err(Error::failed(format!("this stage is there to fail, with the code {returncode}")))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn it_fails_by_default() {
        let fault = |options| Case::new(&MODULE).run(options).err();
        assert_eq!(fault(json!({})), "this stage is there to fail, with the code 255");
        assert_eq!(fault(json!({"returncode": 3})), "this stage is there to fail, with the code 3");
        assert!(fault(json!({"returncode": 1.5})).starts_with("invalid options"));
        Case::new(&MODULE).run(json!({"returncode": 0})).ok();
        Case::new(&MODULE).run(json!({"returncode": 256})).ok();
    }
}
