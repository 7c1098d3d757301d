//! Puts certificates for FIDO device onboarding into the tree.
//!
//! The one file of the input `rootcerts` becomes `/fdo_diun_pub_key_root_certs.pem`, with its mode.
//!
//! ```json
//! {
//!   "type": "org.osbuild.fdo",
//!   "inputs": {
//!     "rootcerts": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": ["sha256:6eeebf21f245bf0d6f58962dc49b6dfb51f55acb6a595c6b9cbe9628806b80a4"]
//!     }
//!   }
//! }
//! ```

use osbc_module_api::*;
use std::os::unix::fs::PermissionsExt;

use crate::archives::single_file;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.fdo",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["rootcerts"]).version_2_alone(),
    rejects: &[r#"{"inputs": {}}"#, r#"{"options": {"a": 1}}"#, r#"{"inputs": {"rootcerts": {}, "more": {}}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "fdo_diun_pub_key_root_certs.pem";

/// The options: there are none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}

fn run(cx: &StageContext) -> Result<(), Error> {
    let path = single_file::path(cx, "rootcerts")?;
    let certificates = outside::read(&path, outside::WHOLE).map_err(Error::io("read", &path))?;
    let mode = std::fs::metadata(&path).map_err(Error::io("inspect", &path))?.permissions().mode();
    cx.tree.write(FILE, certificates)?;
    cx.tree.chmod(FILE, mode & 0o7777)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case(files: Value) -> Case {
        Case::new(&MODULE).input("rootcerts", json!({ "files": files }), |tree| {
            tree.write("a", "certificates").unwrap();
            tree.chmod("a", 0o640).unwrap();
        })
    }

    #[test]
    fn the_file_is_copied_with_its_mode() {
        let done = case(json!({"a": {}})).run(json!({})).ok();
        assert_eq!((done.text(FILE).as_str(), done.mode(FILE)), ("certificates", 0o640));
    }

    #[test]
    fn one_file_is_needed() {
        let done = case(json!({"a": {}, "b": {}})).run(json!({}));
        assert_eq!(done.err(), "the input `rootcerts` must have exactly one file, but has 2");
    }
}
