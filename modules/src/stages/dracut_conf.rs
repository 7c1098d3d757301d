//! Configures dracut by a file below `/usr/lib/dracut/dracut.conf.d`.
//!
//! The settings are written in the manifest's order, anew where the file is there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dracut.conf",
//!   "options": {
//!     "filename": "10-image.conf",
//!     "config": { "add_drivers": ["virtio_blk", "nvme"], "reproducible": true, "compress": "zstd" }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::options::InOrder;
use crate::texts::python;
use crate::texts::shell;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dracut.conf",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a.conf"}}"#,
        r#"{"options": {"filename": "a.conf", "config": {}}}"#,
        r#"{"options": {"filename": "a", "config": {"compress": "x"}}}"#,
        r#"{"options": {"filename": "a/b.conf", "config": {"compress": "x"}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"drivers": "x"}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"reproducible": "yes"}}}"#,
        r#"{"options": {"filename": "a.conf", "config": {"hostonly": true}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const DIRECTORY: &str = "usr/lib/dracut/dracut.conf.d";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file's name.
    #[schemars(regex(pattern = r"^[\w.-]{1,250}\.conf$"))]
    filename: String,
    /// The settings.
    config: InOrder<Config>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
#[expect(dead_code, reason = "the settings are written as they come")]
struct Config {
    /// The program that compresses the initramfs.
    compress: Option<String>,
    /// The modules of dracut, and no others.
    dracutmodules: Option<Vec<String>>,
    /// Further modules of dracut.
    add_dracutmodules: Option<Vec<String>>,
    /// Modules of dracut to leave out.
    omit_dracutmodules: Option<Vec<String>>,
    /// The kernel modules, and no others.
    drivers: Option<Vec<String>>,
    /// Further kernel modules.
    add_drivers: Option<Vec<String>>,
    /// Kernel modules to leave out.
    omit_drivers: Option<Vec<String>>,
    /// Further kernel modules, which the boot tries to load.
    force_drivers: Option<Vec<String>>,
    /// The kernel modules for file systems, and no others.
    filesystems: Option<Vec<String>>,
    /// Files to put into the initramfs.
    install_items: Option<Vec<String>>,
    /// Files to take out of the initramfs, for dracut from 108 on.
    remove_items: Option<Vec<String>>,
    /// Whether microcode goes with the initramfs.
    early_microcode: Option<bool>,
    /// Whether the initramfs is the same each time.
    reproducible: Option<bool>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { filename, config } = cx.options()?;
    let mut text = String::new();
    for (name, value) in &config.entries {
        text += &match value {
            Value::Array(items) => {
                let words = items.iter().filter_map(Value::as_str);
                words.into_iter().try_for_each(|word| one_line::word(name, word).map(drop))?;
                format!("{name}+={}\n", shell::quoted(&format!(" {} ", python::join(" ", items)?)))
            }
            Value::Bool(said) => format!("{name}=\"{}\"\n", if *said { "yes" } else { "no" }),
            value => format!("{name}={}\n", shell::quoted(&python::scalar(value)?)),
        };
    }
    cx.tree.create_dir_all(DIRECTORY, 0o777)?;
    cx.tree.write(format!("{DIRECTORY}/{filename}"), text)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn each_kind_of_setting_has_its_form() {
        let config = json!({"reproducible": true, "drivers": ["a", "b"], "compress": "xz", "early_microcode": false});
        let done = Case::new(&MODULE).run(json!({"filename": "a.conf", "config": config})).ok();
        let text = "reproducible=\"yes\"\ndrivers+=\" a b \"\ncompress=\"xz\"\nearly_microcode=\"no\"\n";
        assert_eq!(done.text("usr/lib/dracut/dracut.conf.d/a.conf"), text);
    }

    #[test]
    fn values_stand_for_themselves_and_items_are_words() {
        let run = |config: Value| Case::new(&MODULE).run(json!({"filename": "a.conf", "config": config}));
        let done = run(json!({"compress": "a $(id) \"b\"", "install_items": ["/a$b"]})).ok();
        let text = "compress=\"a \\$(id) \\\"b\\\"\"\ninstall_items+=\" /a\\$b \"\n";
        assert_eq!(done.text("usr/lib/dracut/dracut.conf.d/a.conf"), text);
        let done = run(json!({"install_items": ["/a b"]}));
        assert!(done.err().contains("`install_items` has a blank"), "{}", done.err());
    }
}
