//! Wraps an OSTree commit into an OCI image archive.
//!
//! Calls `rpm-ostree` of the build root on the only commit of the input `commit`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.encapsulate",
//!   "inputs": {
//!     "commit": { "type": "org.osbuild.ostree", "origin": "org.osbuild.pipeline", "references": ["name:ostree-commit"] }
//!   },
//!   "options": { "filename": "os.ociarchive", "cmd": ["/usr/bin/bash"], "labels": ["version=1"], "format_version": 2 }
//! }
//! ```

use osbc_module_api::*;

use crate::ostrees::ostree_tool::{CAPABILITIES, Commits, option};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.encapsulate",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("rpm-ostree")],
    schema: || Schema::stage::<Options>().inputs(&["commit"]).version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x", "cmd": "sh"}}"#,
        r#"{"options": {"filename": "x", "format_version": "1"}}"#,
        r#"{"options": {"filename": "x", "extra": 1}}"#,
        r#"{"options": {"filename": "x"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The archive
    filename: String,
    /// The command of containers
    #[serde(default)]
    cmd: Vec<String>,
    /// Metadata of the commit that becomes labels, by their keys
    #[serde(default)]
    copymeta: Vec<String>,
    /// The version of the format
    #[serde(default = "first_version")]
    format_version: i64,
    /// More labels
    #[serde(default)]
    labels: Vec<String>,
    /// The most layers that the image may have; 0 leaves it to the tool
    #[serde(default)]
    max_layers: i64,
}

fn first_version() -> i64 {
    1
}

/// Returns the arguments of `rpm-ostree` other than the command, the commit and the image.
fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec!["--format-version".to_owned(), options.format_version.to_string()];
    if !options.cmd.is_empty() {
        arguments.extend(["--cmd".to_owned(), options.cmd.join(" ")]);
    }
    for (option, values) in [("--copymeta", &options.copymeta), ("--label", &options.labels)] {
        arguments.extend(values.iter().flat_map(|value| [option.to_owned(), value.clone()]));
    }
    if options.max_layers != 0 {
        arguments.extend(["--max-layers".to_owned(), options.max_layers.to_string()]);
    }
    arguments
}

/// Whether an `rpm-ostree` that describes itself so has the command below `compose`: from 2023.2 on.
fn is_compose_command(description: &str) -> Result<bool, Error> {
    let version = description.lines().find_map(|line| line.trim().strip_prefix("Version:"));
    let version = version.map(|version| version.trim().trim_matches(['\'', '"']));
    let numbers = version.and_then(|version| {
        let (year, release) = version.split_once('.')?;
        Some((year.parse::<u32>().ok()?, release.parse::<u32>().ok()?))
    });
    let numbers = numbers.ok_or_else(|| Error::failed("rpm-ostree does not say which version it is"))?;
    Ok(numbers >= (2023, 2))
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let commits = Commits::of_input(cx, "commit")?;
    let (commit, _) = commits.only()?;
    let description = cx.tool("rpm-ostree")?.arg("--version").output()?;
    let mut tool = cx.tool("rpm-ostree")?;
    if is_compose_command(&String::from_utf8_lossy(&description))? {
        tool = tool.arg("compose");
    }
    let image = cx.tree.path_for_tools(&options.filename)?;
    tool.args(["container-encapsulate", commit])
        .arg(format!("oci-archive:{}", image.display()))
        .args(arguments(&options))
        .arg(option("repo", commits.repository)?)
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_said() {
        let said = |options| arguments(&Options::deserialize(options).unwrap()).join(" ");
        assert_eq!(said(json!({"filename": "x"})), "--format-version 1");
        let all = json!({
            "filename": "x", "cmd": ["a", "b"], "copymeta": ["m"], "labels": ["l=1", "k=2"], "max_layers": 9,
            "format_version": 2,
        });
        assert_eq!(said(all), "--format-version 2 --cmd a b --copymeta m --label l=1 --label k=2 --max-layers 9");
    }

    #[test]
    fn the_command_is_where_the_version_has_it() {
        let version = |version: &str| is_compose_command(&format!("rpm-ostree:\n Version: '{version}'\n Git: abc\n"));
        for (text, expected) in [("2022.19", false), ("2023.1", false), ("2023.2", true), ("2025.10", true)] {
            assert_eq!(version(text).unwrap(), expected, "{text}");
        }
        assert!(version("new").is_err());
    }
}
