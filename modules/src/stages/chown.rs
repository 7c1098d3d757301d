//! Changes the owner and group of files and directories in the tree.
//!
//! Users and groups are given by number, or by name as in the tree's `/etc/passwd` and `/etc/group`, or else in those
//! below `/usr/lib` where image based systems keep theirs. A name of digits alone that is not there is a number. With
//! `recursive` all below is changed too, symlinks themselves instead of what they lead to; without it links are
//! followed inside the tree. As always, files lose their setuid and setgid bits when their owner is set.
//!
//! osbuild runs the tree's own `chown` in a chroot; this stage runs nothing of the tree.
//!
//! ```json
//! {
//!   "type": "org.osbuild.chown",
//!   "options": { "items": { "/etc/hosts": { "user": "root", "group": 100 }, "/home": { "user": 1000, "recursive": true } } }
//! }
//! ```

use std::collections::BTreeMap;

use osbc_module_api::*;
use serde::Deserializer;
use serde::de::Error as _;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.chown",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"items": {"/a": {}}}}"#,
        r#"{"options": {"items": {"/a": {"recursive": true}}}}"#,
        r#"{"options": {"items": {"a": {"user": 1}}}}"#,
        r#"{"options": {"items": {"/../a": {"user": 1}}}}"#,
        r#"{"options": {"items": {"/a": {"user": -1}}}}"#,
        r#"{"options": {"items": {"/a": {"user": "-root"}}}}"#,
        r#"{"options": {"items": {"/a": {"group": "a.b"}}}}"#,
        r#"{"options": {"items": {"/a": {"group": ""}}}}"#,
        r#"{"options": {"items": {"/a": {"user": 1, "recursive": 1}}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What to change, by absolute path.
    #[serde(default)]
    items: BTreeMap<ItemPath, Item>,
}

/// An absolute path without `..`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct ItemPath(#[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = [{"required": ["user"]}, {"required": ["group"]}]))]
struct Item {
    /// The new owner.
    #[serde(default)]
    #[schemars(schema_with = "user_schema")]
    user: Option<Id>,
    /// The new group.
    #[serde(default)]
    #[schemars(schema_with = "group_schema")]
    group: Option<Id>,
    /// Whether to change all below too.
    #[serde(default)]
    recursive: bool,
}

fn user_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    id_schema(r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$")
}

fn group_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    id_schema(r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,31}$")
}

fn id_schema(pattern: &str) -> schemars::Schema {
    schemars::json_schema!({"oneOf": [{"type": "string", "pattern": pattern}, {"type": "number", "minimum": 0}]})
}

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Number(u32),
    Name(String),
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Id::Name(name)),
            value => u32::deserialize(value).map(Id::Number).map_err(D::Error::custom),
        }
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { items } = cx.options()?;
    for (ItemPath(path), Item { user, group, recursive }) in &items {
        let number = |id: &Option<Id>, file| id.as_ref().map(|id| number(&cx.tree, id, file)).transpose();
        let (user, group) = (number(user, "passwd")?, number(group, "group")?);
        if *recursive {
            cx.tree.walk(path, |path, _| cx.tree.lchown(path, user, group))?;
        } else {
            cx.tree.chown(path, user, group)?;
        }
    }
    Ok(())
}

/// The number of a user (`passwd`) or group (`group`).
fn number(tree: &Tree, id: &Id, file: &str) -> Result<u32, Error> {
    let name = match id {
        Id::Number(number) => return Ok(*number),
        Id::Name(name) => name,
    };
    for directory in ["etc", "usr/lib"] {
        let path = format!("{directory}/{file}");
        if !tree.exists(&path)? {
            continue;
        }
        let table = String::from_utf8_lossy(&tree.read(&path)?).into_owned();
        for row in table.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
            if row.len() > 2 && row[0] == name {
                return row[2].parse().map_err(|_| Error::failed(format!("/{path} gives no number for `{name}`")));
            }
        }
    }
    name.parse().map_err(|_| Error::failed(format!("there is no `{name}` in /etc/{file} of the tree")))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE)
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nanna:x:1001:1002::/home/anna:/bin/sh\n12:x:13:13:::\n")
            .file("etc/group", "root:x:0:\nstaff:x:50:anna\n")
            .file("usr/lib/passwd", "anna:x:9:9:::\nsystem:x:77:77:::\n")
            .file("home/anna/file", "")
            .file("srv/file", "")
            .link("home/anna/link", "/srv/file")
            .link("entry", "/home/anna")
    }

    fn chown(path: &str, item: Value) -> Done {
        case().run(json!({"items": {path: item}}))
    }

    /// Whether the test may run; it must where the tests are to be complete.
    fn root() -> bool {
        let root = rustix::process::geteuid().is_root();
        assert!(root || std::env::var_os("CI").is_none(), "this test needs root");
        root
    }

    #[test]
    fn root_owners_are_set_by_number_and_name() {
        if !root() {
            return;
        }
        for (item, owner) in [
            (json!({"user": 5}), (5, 0)),
            (json!({"group": 6}), (0, 6)),
            (json!({"user": "anna", "group": "staff"}), (1001, 50)),
            (json!({"user": "system"}), (77, 0)),
            (json!({"user": "12", "group": "12"}), (13, 12)),
        ] {
            assert_eq!(chown("/srv/file", item.clone()).ok().owner("srv/file"), owner, "{item}");
        }
    }

    #[test]
    fn root_links_are_followed_unless_recursive() {
        if !root() {
            return;
        }
        let done = chown("/home/anna/link", json!({"user": 5})).ok();
        assert_eq!((done.owner("home/anna/link"), done.owner("srv/file")), ((0, 0), (5, 0)));
        let done = chown("/home/anna", json!({"user": 5, "recursive": true})).ok();
        let owners = ["home/anna", "home/anna/file", "home/anna/link", "srv/file"].map(|path| done.owner(path).0);
        assert_eq!(owners, [5, 5, 5, 0]);
        let done = chown("/entry", json!({"user": 5, "recursive": true})).ok();
        assert_eq!((done.owner("entry").0, done.owner("home/anna").0), (5, 0));
    }

    #[test]
    fn root_setuid_bits_are_lost() {
        if !root() {
            return;
        }
        let done = case().mode("srv/file", 0o4755).run(json!({"items": {"/srv/file": {"user": 0}}})).ok();
        assert_eq!(done.tree.metadata("srv/file").unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn unknown_names_and_paths_are_refused() {
        let done = chown("/srv/file", json!({"user": "nobody-there"}));
        assert_eq!(done.err(), "there is no `nobody-there` in /etc/passwd of the tree");
        let done = chown("/srv/file", json!({"group": "anna"}));
        assert_eq!(done.err(), "there is no `anna` in /etc/group of the tree");
        assert!(chown("/missing", json!({"user": 0})).err().contains("No such file"));
        assert!(chown("/srv/file", json!({"user": 1.5})).err().starts_with("invalid options"));
    }
}
