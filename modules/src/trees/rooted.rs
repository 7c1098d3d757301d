//! Tools that work on another root by `--root`: those of the build root, or the tree's own.

use osbc_module_api::*;

use crate::trees::chroot::Program;

/// Whose tools are taken.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tools {
    /// Those of the build root
    #[default]
    Build,
    /// Those of the tree, which run with it for their root
    Tree,
}

impl Tools {
    /// Runs a tool on the tree.
    ///
    /// # Errors
    /// It is not there, or it fails.
    pub(crate) fn run<A: AsRef<str>>(self, cx: &StageContext, name: &str, arguments: &[A]) -> Result<(), Error> {
        let arguments = arguments.iter().map(AsRef::as_ref);
        match self {
            Tools::Build => cx.tool(name)?.arg("--root").arg(cx.tree.path_for_tools("/")?).args(arguments).run(),
            // The tools get the root even so: `systemctl` then asks no running system.
            Tools::Tree => Program::find(&cx.tree, name)?.args(["--root", "/"]).args(arguments).run(),
        }
    }
}
