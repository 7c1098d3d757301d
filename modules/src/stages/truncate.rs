//! Sets the size of a file, which is created if it is missing.
//!
//! What is beyond a smaller size is lost, what a larger one adds is zeros that take no room on the disk. Sizes are
//! written as for the tool `truncate`: a number of bytes, or of a unit: `K`, `M`, `G`, `T`, `P`, `E` (powers of 1024,
//! also as `KiB` and so on) or `KB`, `MB` and so on (powers of 1000); before it one of
//! - `+` or `-` to change the size by so much,
//! - `<` for at most, `>` for at least so much,
//! - `/` to round down, `%` to round up to a multiple of it.
//!
//! Links lead inside the tree, where osbuild follows absolute ones out of it.
//!
//! ```json
//! { "type": "org.osbuild.truncate", "options": { "filename": "/disk.img", "size": "20M" } }
//! ```

use std::io::{Seek, SeekFrom};

use osbc_module_api::*;
use rustix::fs::{FileType, OFlags};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.truncate",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"filename": "a"}}"#,
        r#"{"options": {"size": "1"}}"#,
        r#"{"options": {"filename": "a", "size": 1024}}"#,
        r#"{"options": {"filename": "a", "size": "1", "sparse": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file's path in the tree.
    filename: String,
    /// Its new size, e.g. `20M`.
    size: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename, size } = cx.options()?;
    let change = Change::read(&size).ok_or_else(|| Error::failed(format!("`{size}` is no size")))?;
    let mut file = cx.tree.open_file(&filename, OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK, 0o666)?;
    let act = "set the size of";
    let stat = rustix::fs::fstat(&file).map_err(Error::io(act, &filename))?;
    let old = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => stat.st_size,
        _ => i64::try_from(file.seek(SeekFrom::End(0)).map_err(Error::io(act, &filename))?).unwrap_or(i64::MAX),
    };
    let new = change.apply(old).ok_or_else(|| Error::failed(format!("{filename} cannot be as large as `{size}`")))?;
    rustix::fs::ftruncate(&file, new).map_err(Error::io(act, &filename))
}

/// A size, maybe in terms of the one that a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    relation: Relation,
    bytes: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Absolute,
    By,
    AtMost,
    AtLeast,
    RoundedDown,
    RoundedUp,
}

impl Change {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim_start_matches(is_space);
        let relation = match text.bytes().next()? {
            b'<' => Relation::AtMost,
            b'>' => Relation::AtLeast,
            b'/' => Relation::RoundedDown,
            b'%' => Relation::RoundedUp,
            _ => Relation::Absolute,
        };
        let text = if relation == Relation::Absolute { text } else { &text[1..] };
        let text = text.trim_start_matches(is_space);
        let (relation, sign) = match (text.bytes().next()?, relation) {
            (b'+', Relation::Absolute) => (Relation::By, 1),
            (b'-', Relation::Absolute) => (Relation::By, -1),
            (b'+' | b'-', _) => return None,
            (_, relation) => (relation, 1),
        };
        let text = if relation == Relation::By { &text[1..] } else { text };
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        // A unit alone means one of it, but not behind a sign.
        let number = match digits {
            "" if unit.is_empty() || relation == Relation::By => return None,
            "" => 1,
            digits => digits.parse::<i128>().ok()?,
        };
        let bytes = i64::try_from(number.checked_mul(sign)?.checked_mul(unit_size(unit)?)?).ok()?;
        let rounds = matches!(relation, Relation::RoundedDown | Relation::RoundedUp);
        if rounds && bytes == 0 { None } else { Some(Self { relation, bytes }) }
    }

    fn apply(self, old: i64) -> Option<u64> {
        let new = match self.relation {
            Relation::Absolute => self.bytes,
            Relation::By => old.checked_add(self.bytes)?,
            Relation::AtMost => old.min(self.bytes),
            Relation::AtLeast => old.max(self.bytes),
            Relation::RoundedDown => old - old % self.bytes,
            Relation::RoundedUp => old.checked_add(self.bytes - 1)? / self.bytes * self.bytes,
        };
        Some(u64::try_from(new).unwrap_or(0))
    }
}

/// The bytes of a unit such as `K`, `KiB` or `KB`.
fn unit_size(unit: &str) -> Option<i128> {
    let (letter, rest) = match unit.char_indices().nth(1) {
        _ if unit.is_empty() => return Some(1),
        Some((second, _)) => unit.split_at(second),
        None => (unit, ""),
    };
    let power = match letter {
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        "P" => 5,
        "E" => 6,
        "Z" => 7,
        "Y" => 8,
        "R" => 9,
        "Q" => 10,
        _ => return None,
    };
    let base: i128 = match rest {
        "" | "iB" => 1024,
        "B" | "D" => 1000,
        _ => return None,
    };
    base.checked_pow(power)
}

/// White space of the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use osbc_module_api::testing::Case;

    use super::*;

    /// The size of a file of `old` bytes after a change; none for what is no size.
    fn sized(old: i64, size: &str) -> Option<u64> {
        Change::read(size).and_then(|change| change.apply(old))
    }

    #[test]
    fn units_are_powers_of_1024_or_1000() {
        for (size, bytes) in [
            ("0", 0),
            ("10", 10),
            ("1K", 1024),
            ("1k", 1024),
            ("2KiB", 2048),
            ("2KB", 2000),
            ("1kD", 1000),
            ("20M", 20 << 20),
            ("20MB", 20_000_000),
            ("3G", 3 << 30),
            ("1T", 1 << 40),
            ("7E", 7 << 60),
            ("K", 1024),
            ("  5", 5),
            ("010", 10),
        ] {
            assert_eq!(sized(7, size), Some(bytes), "{size}");
        }
    }

    #[test]
    fn sizes_are_put_in_relation_to_the_old_one() {
        for (size, bytes) in [
            ("+5", 105),
            ("-5", 95),
            ("-1K", 0),
            ("<50", 50),
            ("<500", 100),
            (">50", 100),
            ("> 500", 500),
            ("/64", 64),
            ("%64", 128),
            ("%50", 100),
            (" % K", 1024),
        ] {
            assert_eq!(sized(100, size), Some(bytes), "{size}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for size in [
            "",
            " ",
            "+",
            "x",
            "1x",
            "1KX",
            "1Ki",
            "1KiBx",
            "1 K",
            "<+5",
            "%0",
            "/0",
            "1.5G",
            "+K",
            "--5",
            "8E",
            "1Q",
            "1Z",
            "99999999999999999999",
            "0x10",
            "1B",
        ] {
            assert_eq!(Change::read(size), None, "{size}");
        }
        assert_eq!(sized(i64::MAX, "+1"), None);
    }

    #[test]
    fn the_file_is_created_or_changed() {
        let done = Case::new(&MODULE).run(json!({"filename": "/disk.img", "size": "20M"})).ok();
        let metadata = done.tree.metadata("disk.img").unwrap();
        assert_eq!((metadata.len(), metadata.blocks(), done.mode("disk.img")), (20 << 20, 0, 0o644));
        let case = Case::new(&MODULE).file("a", "hello").link("b", "/a");
        let done = case.run(json!({"filename": "b", "size": "-3"})).ok();
        assert_eq!(done.text("a"), "he");
    }

    #[test]
    fn directories_have_no_size() {
        let done = Case::new(&MODULE).dir("a").run(json!({"filename": "a", "size": "1"}));
        assert_eq!(done.err(), "cannot open /a: Is a directory (os error 21)");
        let done = Case::new(&MODULE).run(json!({"filename": "b", "size": "much"}));
        assert_eq!(done.err(), "`much` is no size");
        assert!(!done.tree.exists("b").unwrap());
    }
}
