//! Marks packages in the state database of DNF 4 as asked for by the user or by a group.
//!
//! Calls `dnf-3` of the build root on the tree.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dnf4.mark",
//!   "options": { "packages": [{ "name": "bash", "mark": "install" }, { "name": "dnf", "mark": "group" }] }
//! }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dnf4.mark",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::MayCall("dnf-3")],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"packages": []}}"#,
        r#"{"options": {"packages": [{"name": "bash"}]}}"#,
        r#"{"options": {"packages": [{"mark": "install"}]}}"#,
        r#"{"options": {"packages": [{"name": "bash", "mark": "remove"}]}}"#,
        r#"{"options": {"packages": [{"name": "bash", "mark": "install", "extra": 1}]}}"#,
        r#"{"options": {"names": ["bash"]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The packages
    #[schemars(length(min = 1))]
    packages: Option<Vec<Package>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Package {
    /// Name of the package
    name: String,
    /// Who asked for it
    mark: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Install,
    Group,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let packages = options.packages.ok_or_else(|| Error::failed("`packages` must be given"))?;
    let root = cx.tree.path_for_tools("/")?;
    for (mark, word) in [(Mark::Install, "install"), (Mark::Group, "group")] {
        let names: Vec<&str> =
            packages.iter().filter(|package| package.mark == mark).map(|package| package.name.as_str()).collect();
        if !names.is_empty() {
            cx.tool("dnf-3")?.arg("--installroot").arg(&root).args(["mark", "-y", word]).args(names).run()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn packages_are_wanted() {
        assert_eq!(Case::new(&MODULE).run(json!({})).err(), "`packages` must be given");
    }
}
