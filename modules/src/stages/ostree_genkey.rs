//! Makes a pair of ed25519 keys to sign OSTree commits with.
//!
//! Calls `openssl` of the build root. The files hold the keys in base64, the secret one together with the public one, as
//! `ostree sign` takes them. Every run makes other keys.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.genkey",
//!   "options": { "publickey": "/etc/ostree/initramfs-root-binding.key", "secretkey": "/secret.key" }
//! }
//! ```

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.genkey",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("openssl")],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"publickey": "/public"}}"#,
        r#"{"options": {"secretkey": "/secret"}}"#,
        r#"{"options": {"publickey": "public", "secretkey": "/secret"}}"#,
        r#"{"options": {"publickey": "/public", "secretkey": "/a/../secret"}}"#,
        r#"{"options": {"publickey": "/public", "secretkey": "/secret", "extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file that gets the public key
    #[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))]
    publickey: String,
    /// The file that gets the secret key
    #[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))]
    secretkey: String,
}

/// The length of either key; in the tool's format it comes last.
const KEY: usize = 32;

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let secret = cx.tool("openssl")?.args(["genpkey", "-algorithm", "ed25519", "-outform", "DER"]).output()?;
    let arguments = ["pkey", "-inform", "DER", "-outform", "DER", "-pubout"];
    let public = cx.tool("openssl")?.args(arguments).stdin(secret.clone()).output()?;
    let (Some(secret), Some(public)) = (secret.last_chunk::<KEY>(), public.last_chunk::<KEY>()) else {
        return Err(Error::failed("openssl gave less than a key"));
    };
    cx.tree.write(&options.publickey, BASE64_STANDARD.encode(public))?;
    cx.tree.write(&options.secretkey, BASE64_STANDARD.encode([*secret, *public].concat()))
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_secret_key_ends_with_the_public_one() {
        if !has_tool("openssl") {
            return;
        }
        let keys = || {
            let options = json!({"publickey": "/etc/public", "secretkey": "/secret"});
            let done = Case::new(&MODULE).dir("etc").run(options).ok();
            let decoded = |path| BASE64_STANDARD.decode(done.text(path)).unwrap();
            (decoded("etc/public"), decoded("secret"))
        };
        let (public, secret) = keys();
        assert_eq!((public.len(), secret.len()), (32, 64));
        assert_eq!(secret[32..], public);
        assert_ne!(keys().0, public);
    }
}
