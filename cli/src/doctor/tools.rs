//! Checks the tools that built-in modules call in this machine's own tree. A pipeline with a build root uses the tools
//! of that.

use std::collections::BTreeSet;

use osbc_module_api::{Tool, packages_of};
use osbc_modules::builtin::MODULES;

use super::Finding;

/// Looks for every tool that a built-in module declares.
pub(crate) fn look() -> Vec<Finding> {
    let tools: BTreeSet<_> =
        MODULES.iter().flat_map(|row| row.def.requires).filter_map(|requirement| requirement.tool()).collect();
    let find = |tool: &str| match Tool::of_host(tool) {
        Ok(found) => Finding::ok(tool, found.path().display().to_string()),
        Err(_) => Finding::missing(tool, "not here", packages_of(tool)),
    };
    tools.into_iter().map(find).collect()
}
