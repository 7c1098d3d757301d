//! Shifts the owners of all below a directory, for containers that map users and groups.
//!
//! An entry `u:INSIDE:OUTSIDE:SIZE` makes the users from OUTSIDE on those from INSIDE on, `g:` does that with groups,
//! `b:` or nothing with both; the first that fits counts. With `user` and `group` the ranges of `/etc/subuid` and
//! `/etc/subgid` in the tree are taken, from 0 on. What has neither its user nor its group in any range goes to nobody,
//! 65534.
//!
//! As with osbuild, symlinks to directories are left alone. Unlike it, an owner that cannot be changed is an error.
//!
//! ```json
//! { "type": "org.osbuild.idmap", "options": { "items": { "/var/lib": ["b:100000:0:65536"] } } }
//! ```

use osbc_module_api::*;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use schemars::{SchemaGenerator, json_schema};
use serde::Deserializer;
use serde::de::Error as _;

use crate::texts::options::{Entries, required};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.idmap",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"items": {"var": ["b:1:0:1"]}}}"#,
        r#"{"options": {"items": {"/var": []}}}"#,
        r#"{"options": {"items": {"/var": ["b:1:0:0"]}}}"#,
        r#"{"options": {"items": {"/var": ["x:1:0:1"]}}}"#,
        r#"{"options": {"items": {"/var": {"user": "a"}}}}"#,
        r#"{"options": {"items": {"/var": {"user": "a", "group": ""}}}}"#,
        r#"{"options": {"items": {"/../var": ["b:1:0:1"]}}}"#,
        r#"{"options": {"paths": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const NOBODY: u32 = 65_534;

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// How to shift, by the absolute path of the directory; needed.
    items: Option<Entries<ItemPath, Shift>>,
}

/// An absolute path without `..`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct ItemPath(#[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))] String);

/// Ranges, or whose ranges.
#[derive(Debug)]
enum Shift {
    Ranges(Vec<String>),
    Of(Subordinate),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subordinate {
    user: String,
    group: String,
}

impl<'de> Deserialize<'de> for Shift {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            list @ Value::Array(_) => Vec::deserialize(&list).map(Self::Ranges).map_err(D::Error::custom),
            other => Subordinate::deserialize(&other).map(Self::Of).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Shift {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Shift".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({"oneOf": [
            {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "pattern": "^(?:(?:u|g|b):)?[0-9]+:[0-9]+:[1-9][0-9]*$"},
            },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["user", "group"],
                "properties": {
                    "user": {"type": "string", "minLength": 1, "description": "The user in `/etc/subuid`."},
                    "group": {"type": "string", "minLength": 1, "description": "The group in `/etc/subgid`."},
                },
            },
        ]})
    }
}

/// Ids from `outside` on that become those from `inside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    inside: u64,
    outside: u64,
    size: u64,
}

impl Range {
    fn read(inside: &str, outside: &str, size: &str) -> Option<Self> {
        Some(Self { inside: inside.parse().ok()?, outside: outside.parse().ok()?, size: size.parse().ok()? })
    }

    fn shift(&self, id: u32) -> Option<u64> {
        let from_start = u64::from(id).checked_sub(self.outside).filter(|from_start| *from_start < self.size)?;
        self.inside.checked_add(from_start)
    }
}

/// The ranges of users and of groups.
#[derive(Debug, Default)]
struct Ranges {
    users: Vec<Range>,
    groups: Vec<Range>,
}

impl Ranges {
    fn of(shift: &Shift, tree: &Tree) -> Result<Self, Error> {
        let mut ranges = Self::default();
        match shift {
            Shift::Ranges(entries) => entries.iter().try_for_each(|entry| ranges.add(entry))?,
            Shift::Of(Subordinate { user, group }) => {
                ranges.users.extend(subordinate(tree, "etc/subuid", user)?);
                ranges.groups.extend(subordinate(tree, "etc/subgid", group)?);
            }
        }
        Ok(ranges)
    }

    fn add(&mut self, entry: &str) -> Result<(), Error> {
        let wrong = || Error::failed(format!("`{entry}` is no range"));
        let words: Vec<&str> = entry.split(':').collect();
        let (kind, numbers) = if words.len() == 4 { (words[0], &words[1..]) } else { ("b", &words[..]) };
        let [inside, outside, size] = numbers else { return Err(wrong()) };
        let range = Range::read(inside, outside, size).ok_or_else(wrong)?;
        if kind != "g" {
            self.users.push(range);
        }
        if kind != "u" {
            self.groups.push(range);
        }
        Ok(())
    }

    fn shift(&self, user: u32, group: u32) -> Result<(u32, u32), Error> {
        let shifted = |ranges: &[Range], id| ranges.iter().find_map(|range| range.shift(id));
        let id = |id| u32::try_from(id).map_err(|_| Error::failed(format!("{id} is no user or group")));
        match (shifted(&self.users, user), shifted(&self.groups, group)) {
            (None, None) => Ok((NOBODY, NOBODY)),
            (new_user, new_group) => Ok((id(new_user.unwrap_or(user.into()))?, id(new_group.unwrap_or(group.into()))?)),
        }
    }
}

/// The first range that a file gives to `name`.
fn subordinate(tree: &Tree, file: &str, name: &str) -> Result<Option<Range>, Error> {
    if !tree.exists(file)? {
        return Ok(None);
    }
    let text = tree.read_to_string(file)?;
    let Some(line) = text.lines().find(|line| line.split_once(':').is_some_and(|(first, _)| first == name)) else {
        return Ok(None);
    };
    let words: Vec<&str> = line.trim().split(':').collect();
    let range = match words.as_slice() {
        [_, start, size] => Range::read(start, "0", size),
        _ => None,
    };
    range.map(Some).ok_or_else(|| Error::failed(format!("/{file} has a line that is no range: `{line}`")))
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { items } = cx.options()?;
    let Entries(items) = required(items, "items")?;
    for (ItemPath(path), shift) in &items {
        let ranges = Ranges::of(shift, &cx.tree)?;
        // Of what is no directory there is nothing below.
        if !cx.tree.symlink_metadata(path)?.is_dir() {
            continue;
        }
        let mut seen = BTreeSet::new();
        cx.tree.walk(path, |path, metadata| {
            let (user, group) = ranges.shift(metadata.uid(), metadata.gid())?;
            let same = (user, group) == (metadata.uid(), metadata.gid());
            let first = metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino()));
            if same || !first || (metadata.is_symlink() && cx.tree.is_dir(path)?) {
                return Ok(());
            }
            cx.tree.lchown(path, Some(user), Some(group))?;
            if metadata.is_file() {
                // Changing the owner takes the setuid and setgid bits away.
                cx.tree.chmod(path, metadata.mode() & 0o7777)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn the_first_range_that_fits_counts() {
        let mut ranges = Ranges::default();
        for entry in ["u:1000:0:10", "g:2000:0:5", "5000:5:10"] {
            ranges.add(entry).unwrap();
        }
        for (before, after) in
            [((0, 0), (1000, 2000)), ((9, 9), (1009, 5004)), ((12, 99), (5007, 99)), ((50, 50), (NOBODY, NOBODY))]
        {
            assert_eq!(ranges.shift(before.0, before.1).unwrap(), after);
        }
        assert!(ranges.add("u:99999999999999999999999:0:1").is_err());
        ranges.add("u:4294967295:100:10").unwrap();
        assert_eq!(ranges.shift(101, 0).unwrap_err().to_string(), "4294967296 is no user or group");
    }

    #[test]
    fn subordinate_ranges_begin_at_0() {
        let case = Case::new(&MODULE).file("etc/subuid", "ab:1:2\na:100000:65536\n").file("etc/subgid", "a:x:y\n");
        let range = Range { inside: 100_000, outside: 0, size: 65_536 };
        assert_eq!(subordinate(case.tree(), "etc/subuid", "a").unwrap(), Some(range));
        assert_eq!(subordinate(case.tree(), "etc/subuid", "b").unwrap(), None);
        assert_eq!(subordinate(case.tree(), "etc/none", "b").unwrap(), None);
        let error = subordinate(case.tree(), "etc/subgid", "a").unwrap_err().to_string();
        assert_eq!(error, "/etc/subgid has a line that is no range: `a:x:y`");
    }

    #[test]
    fn all_below_a_directory_is_shifted_once() {
        if !osbc_fixtures::has_root() {
            return;
        }
        let case = Case::new(&MODULE).file("a/b/x", "").mode("a/b/x", 0o4755).link("a/l", "b/x").link("a/d", "b");
        case.tree().hard_link("a/b/x", "a/y").unwrap();
        case.tree().lchown("a/b", Some(7), Some(8)).unwrap();
        let done = case.run(json!({"items": {"/a": ["b:1000:0:7", "u:0:1000:50"]}})).ok();
        assert_eq!(done.owner("a"), (1000, 1000));
        assert_eq!(done.owner("a/b"), (NOBODY, NOBODY));
        assert_eq!((done.owner("a/b/x"), done.mode("a/b/x")), ((1000, 1000), 0o4755));
        assert_eq!((done.owner("a/l"), done.owner("a/d")), ((1000, 1000), (0, 0)));
    }

    #[test]
    fn the_directory_must_be_there() {
        let done = Case::new(&MODULE).run(json!({"items": {"/a": ["1:0:1"]}}));
        assert!(done.err().starts_with("cannot inspect /a"));
        Case::new(&MODULE).file("a", "").run(json!({"items": {"/a": ["1:0:1"]}})).ok();
        assert_eq!(Case::new(&MODULE).run(json!({})).err(), "the option `items` is missing");
    }
}
