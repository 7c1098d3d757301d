//! Configures how bootc installs a system.
//!
//! Writes the TOML file `filename` below `/usr/lib/bootc/install`, anew where it is there, with the settings in the
//! manifest's order.
//!
//! ```json
//! {
//!   "type": "org.osbuild.bootc.install.config",
//!   "options": {
//!     "filename": "20-image.toml",
//!     "config": { "install": { "filesystem": { "root": { "type": "xfs" } }, "kargs": ["quiet"] } }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::options::InOrder;
use crate::texts::toml::Table;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.bootc.install.config",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"config": {"install": {"kargs": []}}}}"#,
        r#"{"options": {"filename": "a", "config": {}}}"#,
        r#"{"options": {"filename": "a", "config": {"install": {}}}}"#,
        r#"{"options": {"filename": "a", "config": {"install": {"filesystem": {}}}}}"#,
        r#"{"options": {"filename": "a", "config": {"install": {"filesystem": {"root": {"type": 1}}}}}}"#,
        r#"{"options": {"filename": "a", "config": {"install": {"block": ["luks"]}}}}"#,
        r#"{"options": {"filename": "a", "config": {"install": {"ostree": {"x": "y"}}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file's name.
    filename: String,
    /// The settings.
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    install: Option<Install>,
}

/// How it is installed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Install {
    /// The file systems.
    filesystem: Option<Filesystem>,
    /// Further options of the kernel.
    kargs: Option<Vec<String>>,
    /// Ways to lay out a disk that the image knows.
    block: Option<Vec<Block>>,
    /// Settings of OSTree.
    ostree: Option<Ostree>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Filesystem {
    /// That of the root.
    root: Root,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Root {
    /// Its type, e.g. `xfs`.
    r#type: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Block {
    Direct,
    Tmp2Luks,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Ostree {
    /// Options of the kernel for all boot entries but the usual one.
    bls_append_except_default: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, config } = cx.options()?;
    let path = format!("usr/lib/bootc/install/{filename}");
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    cx.tree.create_dir_all(directory, 0o777)?;
    cx.tree.write(&path, Table::from_json(&config.entries)?.text())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn tables_follow_what_is_not_in_one() {
        let install = json!({
            "filesystem": {"root": {"type": "xfs"}}, "kargs": ["a=\"b\"", "c"], "block": ["tmp2-luks"],
            "ostree": {"bls-append-except-default": "d"},
        });
        let done = Case::new(&MODULE).run(json!({"filename": "a.toml", "config": {"install": install}})).ok();
        let text = [
            "[install]\nkargs = [\n    \"a=\\\"b\\\"\",\n    \"c\",\n]\nblock = [\n    \"tmp2-luks\",\n]\n\n",
            "[install.filesystem.root]\ntype = \"xfs\"\n\n[install.ostree]\nbls-append-except-default = \"d\"\n",
        ];
        assert_eq!(done.text("usr/lib/bootc/install/a.toml"), text.concat());
    }

    #[test]
    fn the_name_may_have_a_directory_but_not_lead_out() {
        let run = |name: &str| {
            let done = Case::new(&MODULE).run(json!({"filename": name, "config": {"install": {"kargs": []}}}));
            done.ok()
        };
        assert_eq!(run("x/a.toml").text("usr/lib/bootc/install/x/a.toml"), "[install]\nkargs = []\n");
        assert_eq!(run("../../../../../../etc/a").text("etc/a"), "[install]\nkargs = []\n");
    }
}
