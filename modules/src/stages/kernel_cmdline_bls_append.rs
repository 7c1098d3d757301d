//! Adds options of the kernel to boot entries.
//!
//! They are put at the end of the first line with options of each `loader/entries/*.conf` below `bootpath`; where an
//! entry has no such line it gets one. There must be an entry.
//!
//! ```json
//! {
//!   "type": "org.osbuild.kernel-cmdline.bls-append",
//!   "options": { "kernel_opts": ["console=ttyS0", "debug"], "bootpath": "mount:///boot" },
//!   "mounts": [{ "name": "boot", "type": "org.osbuild.xfs", "source": "boot", "target": "/boot" }]
//! }
//! ```

use osbc_module_api::*;

use crate::boot::bls;
use crate::texts::one_line;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.kernel-cmdline.bls-append",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"kernel_opts": "a"}}"#,
        r#"{"options": {"kernel_opts": [], "bootpath": "/boot"}}"#,
        r#"{"options": {"kernel_opts": [], "bootpath": "mount://boot/"}}"#,
        r#"{"options": {"kernel_opts": [], "path": "tree:///"}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The options to add.
    kernel_opts: Vec<String>,
    /// The boot directory: `tree:///path`, or `mount:///path` below the root of all mounts.
    #[serde(default = "boot")]
    #[schemars(regex(pattern = "^(mount|tree):///"))]
    bootpath: String,
}

fn boot() -> String {
    "tree:///boot".to_owned()
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { kernel_opts, bootpath } = cx.options()?;
    let Location { tree, path, .. } = cx.location(&bootpath)?;
    bls::append_options(&tree, &path.to_string_lossy(), &kernel_opts)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn options_go_to_every_entry() {
        let case = Case::new(&MODULE)
            .file("boot/loader/entries/a.conf", "options ro\n")
            .file("boot/loader/entries/b.conf", "title B\n");
        let done = case.run(json!({"kernel_opts": ["x", "y=z"]})).ok();
        assert_eq!(done.text("boot/loader/entries/a.conf"), "options ro x y=z\n");
        assert_eq!(done.text("boot/loader/entries/b.conf"), "title B\noptions x y=z\n");
    }

    #[test]
    fn the_directory_may_be_the_root() {
        let case = Case::new(&MODULE).file("loader/entries/a.conf", "options ro\n");
        let done = case.run(json!({"kernel_opts": ["x"], "bootpath": "tree:///"})).ok();
        assert_eq!(done.text("loader/entries/a.conf"), "options ro x\n");
    }

    #[test]
    fn there_must_be_an_entry() {
        let done = Case::new(&MODULE).dir("boot/loader/entries").run(json!({"kernel_opts": ["x"]}));
        assert_eq!(done.err(), "/boot/loader/entries has no boot entry");
    }
}
