//! Sets the time zone.
//!
//! Replaces `/etc/localtime` by a link to the zone below `/usr/share/zoneinfo`. The zone must be known to the tree or to
//! the build root; osbuild asks the build root alone.
//!
//! ```json
//! { "type": "org.osbuild.timezone", "options": { "zone": "Europe/Berlin" } }
//! ```

use osbc_module_api::*;

use crate::boot::firstboot::BuildRoot;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.timezone",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[r#"{"options": {}}"#, r#"{"options": {"zone": 1}}"#, r#"{"options": {"zone": "UTC", "local": true}}"#],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &BuildRoot::here())),
};

const LINK: &str = "etc/localtime";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The zone's name in the time zone database, e.g. `America/New_York`.
    zone: String,
}

fn run(cx: &StageContext, build_root: &BuildRoot) -> Result<(), Error> {
    let Options { zone } = cx.options()?;
    if !is_name(&zone) || !(build_root.has_timezone(&zone) || is_in(&cx.tree, &zone)?) {
        return Err(Error::failed(format!("there is no time zone `{zone}`")));
    }
    cx.tree.create_dir_all("etc", 0o755)?;
    if cx.tree.symlink_metadata(LINK).is_ok() {
        cx.tree.remove_file(LINK)?;
    }
    cx.tree.symlink(format!("../usr/share/zoneinfo/{zone}"), LINK)
}

fn is_name(zone: &str) -> bool {
    let character = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
    zone.split('/').all(|word| !word.is_empty() && word.chars().all(character))
}

fn is_in(tree: &Tree, zone: &str) -> Result<bool, Error> {
    let file = format!("usr/share/zoneinfo/{zone}");
    Ok(tree.is_file(&file)? && tree.read(&file)?.starts_with(b"TZif"))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    static BARE: ModuleDef =
        ModuleDef { entry: Entry::Stage(|cx| run(cx, &BuildRoot::at(tempfile::tempdir().unwrap().path()))), ..MODULE };

    fn case() -> Case {
        Case::new(&BARE).file("usr/share/zoneinfo/Europe/Berlin", "TZif2").file("usr/share/zoneinfo/tzdata", "# x")
    }

    #[test]
    fn the_link_takes_the_place_of_what_is_there() {
        for case in [case(), case().file(LINK, "old"), case().link(LINK, "/usr/share/zoneinfo/tzdata")] {
            let done = case.run(json!({"zone": "Europe/Berlin"})).ok();
            assert_eq!(done.link(LINK), "../usr/share/zoneinfo/Europe/Berlin");
            assert_eq!(done.text("usr/share/zoneinfo/tzdata"), "# x");
        }
    }

    #[test]
    fn utc_needs_no_database() {
        let done = Case::new(&BARE).run(json!({"zone": "UTC"})).ok();
        assert_eq!(done.link(LINK), "../usr/share/zoneinfo/UTC");
    }

    #[test]
    fn unknown_and_malformed_zones_are_refused() {
        for zone in ["", "Europe", "Europe/", "/Europe/Berlin", "Europe//Berlin", "../tzdata", "tzdata", "Nowhere/Town"]
        {
            let done = case().file(LINK, "old").run(json!({ "zone": zone }));
            assert_eq!(done.err(), format!("there is no time zone `{zone}`"));
            assert_eq!(done.text(LINK), "old");
        }
    }
}
