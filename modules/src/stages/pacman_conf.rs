//! Configures pacman.
//!
//! Writes `/etc/pacman.conf` anew: the architecture, which signatures are wanted, and the repositories. A repository has
//! either a `server` or an `include`d list of mirrors.
//!
//! ```json
//! {
//!   "type": "org.osbuild.pacman.conf",
//!   "options": {
//!     "architecture": "x86_64",
//!     "repositories": [
//!       { "name": "core", "include": "/etc/pacman.d/mirrorlist" },
//!       { "name": "own", "server": "https://example.com/$repo/$arch", "siglevels": ["Optional", "TrustAll"] }
//!     ]
//!   }
//! }
//! ```

use crate::texts::one_line;
use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pacman.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"architecture": 1}}"#,
        r#"{"options": {"repositories": [{"name": "a"}]}}"#,
        r#"{"options": {"repositories": [{"name": "a", "server": "b", "include": "c"}]}}"#,
        r#"{"options": {"repositories": [{"name": "a", "server": "b", "siglevels": ["Maybe"]}]}}"#,
        r#"{"options": {"other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The architecture, as pacman names it
    #[serde(default = "architecture")]
    architecture: String,
    /// The repositories, in order
    #[serde(default)]
    repositories: Vec<Repository>,
}

fn architecture() -> String {
    "x86_64".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["name", "server"]}, {"required": ["name", "include"]}]))]
struct Repository {
    /// Its name
    name: String,
    /// When packages need a signature, and whose counts
    #[serde(default)]
    siglevels: Vec<SignatureLevel>,
    /// The URL of its files
    server: Option<String>,
    /// The list of its mirrors
    include: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum SignatureLevel {
    Required,
    Optional,
    Never,
    TrustAll,
    TrustedOnly,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { architecture, repositories } = cx.options()?;
    let mut text = format!(
        "\n[options]\nArchitecture = {architecture}\nSigLevel    = Required DatabaseOptional\n\
         LocalFileSigLevel = Optional\n"
    );
    for Repository { name, siglevels, server, include } in repositories {
        let name = one_line::refuse("repositories.name", &name, |c| c == ']', "a `]`")?;
        text += &format!("[{name}]\n");
        if !siglevels.is_empty() {
            let levels: Vec<String> = siglevels.iter().map(|level| format!("{level:?}")).collect();
            text += &format!("SigLevel = {}\n", levels.join(" "));
        }
        if let Some(server) = server {
            text += &format!("Server = {server}\n");
        }
        if let Some(include) = include {
            text += &format!("Include = {include}\n");
        }
        text += "\n";
    }
    cx.tree.create_dir_all("etc", 0o777)?;
    cx.tree.write("etc/pacman.conf", text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn repositories_follow_the_options() {
        let repositories = json!([
            {"name": "core", "include": "/etc/pacman.d/mirrorlist"},
            {"name": "own", "server": "file:///srv", "siglevels": ["Optional", "TrustAll"]},
        ]);
        let done = Case::new(&MODULE).run(json!({"architecture": "aarch64", "repositories": repositories})).ok();
        let expected = "\n[options]\nArchitecture = aarch64\nSigLevel    = Required DatabaseOptional\n\
            LocalFileSigLevel = Optional\n[core]\nInclude = /etc/pacman.d/mirrorlist\n\n[own]\n\
            SigLevel = Optional TrustAll\nServer = file:///srv\n\n";
        assert_eq!(done.text("etc/pacman.conf"), expected);
        let done = Case::new(&MODULE).file("etc/pacman.conf", "old").run(json!({})).ok();
        assert!(
            done.text("etc/pacman.conf")
                .ends_with("x86_64\nSigLevel    = Required DatabaseOptional\nLocalFileSigLevel = Optional\n")
        );
    }
}
