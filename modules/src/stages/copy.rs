//! Copies files and directories between inputs, mounts and the tree.
//!
//! Owners, modes, times, extended attributes, hard links and holes are kept. A location that ends in `/` is the content
//! of a directory. If `to` is a directory, `from` is put into it; so `input://NAME/.` becomes a directory called
//! `NAME`. An existing file is overwritten, where links lead; with `remove_destination` it is removed first, so a link
//! is replaced.
//!
//! Links in an input, mount or the tree lead to what they mean in there; osbuild resolves them from the root of the
//! build.
//!
//! ```json
//! {
//!   "type": "org.osbuild.copy",
//!   "options": {
//!     "paths": [
//!       { "from": "input://root-tree/boot/", "to": "mount://boot/" },
//!       { "from": "tree:///etc/motd", "to": "tree:///etc/issue", "remove_destination": true }
//!     ]
//!   },
//!   "inputs": {
//!     "root-tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:root"] }
//!   },
//!   "devices": { "disk": { "type": "org.osbuild.loopback", "options": { "filename": "disk.img" } } },
//!   "mounts": [{ "name": "boot", "type": "org.osbuild.ext4", "source": "disk", "target": "/boot" }]
//! }
//! ```

use std::io::{self, ErrorKind};

use osbc_ir::size;
use osbc_module_api::tree::Copy;
use osbc_module_api::*;

use crate::trees::room::Room;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.copy",
    revision: 2,
    capabilities: &["CAP_MAC_ADMIN"],
    requires: &[],
    schema: || Schema::stage::<Options>().any_devices().mounts().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"paths": []}}"#,
        r#"{"options": {"paths": [{"from": "tree:///a"}]}}"#,
        r#"{"options": {"paths": [{"from": "tree://a", "to": "tree:///b"}]}}"#,
        r#"{"options": {"paths": [{"from": "/a", "to": "tree:///b"}]}}"#,
        r#"{"options": {"paths": [{"from": "input://a", "to": "tree:///b"}]}}"#,
        r#"{"options": {"paths": [{"from": "tree:///a", "to": "input://in/b"}]}}"#,
        r#"{"options": {"paths": [{"from": "tree:///a", "to": "mount:///b"}]}}"#,
        r#"{"options": {"paths": [{"from": "tree:///a", "to": "tree:///b", "remove_destination": 1}]}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What to copy, in order.
    #[schemars(length(min = 1))]
    paths: Vec<Item>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    /// The source: `input://NAME/path`, `mount://NAME/path` or `tree:///path`.
    #[schemars(extend("oneOf" = [
        {"pattern": "^input://[^/]+/"},
        {"pattern": "^mount://[^/]+/"},
        {"pattern": "^tree:///"},
    ]))]
    from: String,
    /// The destination: `mount://NAME/path` or `tree:///path`.
    #[schemars(extend("oneOf" = [{"pattern": "^mount://[^/]+/"}, {"pattern": "^tree:///"}]))]
    to: String,
    /// Whether to remove an existing file first instead of writing to it.
    #[serde(default)]
    remove_destination: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { paths } = cx.options()?;
    for Item { from, to, remove_destination } in &paths {
        let (from, to) = (cx.location(from)?, cx.location(to)?);
        let copy = Copy { remove_destination: *remove_destination, ..Copy::default() };
        let copied = copy.run_as(&from.tree, &from.path, from.name.as_deref(), &to.tree, &to.path);
        copied.map_err(|error| explain(error, &from, &to))?;
    }
    Ok(())
}

/// The failure to copy, with how much room is missing where the destination has none left.
fn explain(error: Error, from: &Location, to: &Location) -> Error {
    match error {
        Error::Io { act, path, source } if source.kind() == ErrorKind::StorageFull => {
            let Ok(room) = Room::of_copy(from, &to.tree) else { return Error::Io { act, path, source } };
            let missing = room.need.checked_sub(room.have).filter(|missing| *missing > 0);
            let missing = missing.map(|missing| format!(", at least {} more than it holds when empty", size(missing)));
            let (need, missing) = (size(room.need), missing.unwrap_or_default());
            let reason = format!("{source}: the destination is full; what is copied takes {need}{missing}");
            Error::Io { act, path, source: io::Error::new(ErrorKind::StorageFull, reason) }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn copy(case: Case, from: &str, to: &str) -> Done {
        case.run(json!({"paths": [{"from": from, "to": to}]}))
    }

    fn case() -> Case {
        let fill = |tree: &Tree| {
            tree.create_dir_all("boot/grub", 0o750).unwrap();
            tree.write("boot/grub/conf", "grub").unwrap();
            tree.symlink("/boot/grub/conf", "link").unwrap();
        };
        Case::new(&MODULE).input("in", json!({}), fill).mount("root", fill).dir("etc")
    }

    #[test]
    fn a_directory_is_put_into_a_directory_and_its_content_merged() {
        let done = copy(case(), "input://in/boot", "tree:///etc").ok();
        assert_eq!((done.text("etc/boot/grub/conf").as_str(), done.mode("etc/boot/grub")), ("grub", 0o750));
        let done = copy(case(), "input://in/boot/", "tree:///etc").ok();
        assert_eq!(done.text("etc/grub/conf"), "grub");
        let done = copy(case(), "mount://root/", "tree:///").ok();
        assert_eq!((done.text("boot/grub/conf").as_str(), done.link("link").as_str()), ("grub", "/boot/grub/conf"));
    }

    #[test]
    fn a_whole_input_or_mount_becomes_a_directory_of_its_name() {
        let done = copy(case(), "input://in/.", "tree:///etc").ok();
        assert_eq!(done.text("etc/in/boot/grub/conf"), "grub");
        let done = copy(case(), "input://in/boot/..", "tree:///new").ok();
        assert_eq!(done.text("new/boot/grub/conf"), "grub", "what is copied to a name gets it");
        let done = copy(case().dir("etc/root/boot"), "mount://root/.", "tree:///etc/").ok();
        assert_eq!(done.text("etc/root/boot/grub/conf"), "grub", "and is merged with what is there");
        let done = copy(case(), "tree:///.", "mount://root/").ok();
        assert!(done.mount("root").is_dir("tree/etc").unwrap());
        let done = copy(case().link("etc/in", "/"), "input://in/.", "tree:///etc");
        assert!(done.err().contains("etc/in"), "a directory replaces no link");
    }

    #[test]
    fn what_is_copied_to_a_name_gets_it() {
        let done = copy(case(), "input://in/boot/grub/conf", "tree:///etc/new").ok();
        assert_eq!(done.text("etc/new"), "grub");
        let done = copy(case(), "tree:///etc", "mount://root/new").ok();
        assert!(done.mount("root").is_dir("new").unwrap());
    }

    #[test]
    fn links_are_copied_as_such_and_followed_inside_their_place_on_the_way() {
        let done = copy(case(), "input://in/link", "tree:///etc/copy").ok();
        assert_eq!(done.link("etc/copy"), "/boot/grub/conf");
        let linked = case().link("etc/grub", "/elsewhere").dir("elsewhere");
        let done = copy(linked, "input://in/boot/grub/", "tree:///etc/grub/").ok();
        assert_eq!(done.text("elsewhere/conf"), "grub");
    }

    #[test]
    fn an_existing_link_is_followed_or_replaced() {
        for remove_destination in [false, true] {
            let case = case().file("etc/target", "old").link("etc/link", "target");
            let item = json!({
                "from": "input://in/boot/grub/conf",
                "to": "tree:///etc/link",
                "remove_destination": remove_destination,
            });
            let done = case.run(json!({ "paths": [item] })).ok();
            assert_eq!(done.text("etc/link"), "grub");
            assert_eq!(done.text("etc/target"), if remove_destination { "old" } else { "grub" });
        }
    }

    #[test]
    fn no_link_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("canary"), "sings").unwrap();
        let canary = outside.path().join("canary");
        for (name, target) in [("link", canary.as_path()), ("directory", outside.path())] {
            let to = |rest: &str| format!("tree:///{name}{rest}");
            for to in [to(""), to("/"), to("/canary"), to("/new")] {
                for from in ["input://in/boot/grub/conf", "input://in/boot/", "input://in/boot"] {
                    let _ = copy(case().link(name, target), from, &to);
                    let names: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
                    assert_eq!(names.len(), 1, "{from} {to}");
                    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "sings", "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn unknown_places_are_named() {
        let done = copy(case(), "input://other/a", "tree:///b");
        assert_eq!(done.err(), "the stage needs an input called `other`");
        let done = copy(case(), "tree:///etc", "mount://other/");
        assert_eq!(done.err(), "the stage needs a mount called `other`");
    }
}
