//! Decides what `/etc/machine-id` says.
//!
//! `first-boot` is one of
//! - `yes`: the file says `uninitialized`, so the first boot creates an id and counts as a first boot;
//! - `no`: the file is empty, so the first boot creates an id but does not count as one;
//! - `preserve`: the file must be there and stays as it is.
//!
//! ```json
//! { "type": "org.osbuild.machine-id", "options": { "first-boot": "yes" } }
//! ```

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.machine-id",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {}}"#, r#"{"options": {"first-boot": "invalid-option"}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/machine-id";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// What the first boot of the image is to find.
    first_boot: FirstBoot,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum FirstBoot {
    Yes,
    No,
    Preserve,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { first_boot } = cx.options()?;
    match first_boot {
        FirstBoot::Yes => cx.tree.write(FILE, "uninitialized\n"),
        FirstBoot::No => cx.tree.write(FILE, ""),
        FirstBoot::Preserve if cx.tree.is_file(FILE)? => Ok(()),
        FirstBoot::Preserve => Err(Error::failed("there is no /etc/machine-id to preserve")),
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_file_is_made_or_overwritten() {
        for (first_boot, content) in [("yes", "uninitialized\n"), ("no", "")] {
            let options = json!({"first-boot": first_boot});
            let new = Case::new(&MODULE).dir("etc").run(options.clone()).ok();
            assert_eq!((new.text(FILE).as_str(), new.mode(FILE)), (content, 0o644));
            let old = Case::new(&MODULE).file(FILE, "12345").mode(FILE, 0o444).run(options).ok();
            assert_eq!((old.text(FILE).as_str(), old.mode(FILE)), (content, 0o444));
        }
    }

    #[test]
    fn what_is_preserved_must_be_there() {
        let options = json!({"first-boot": "preserve"});
        let done = Case::new(&MODULE).file(FILE, "12345").run(options.clone()).ok();
        assert_eq!(done.text(FILE), "12345");
        let done = Case::new(&MODULE).dir(FILE).run(options);
        assert_eq!(done.err(), "there is no /etc/machine-id to preserve");
    }
}
