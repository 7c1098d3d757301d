//! Archives a tree as zip.
//!
//! The input `tree` becomes the archive `filename`, to which `.zip` is added when it has no dot. Links are followed, as
//! the tool `zip` does, but inside the tree alone; a link that dangles or leads to a directory it lies in is left out,
//! and so are pipes and devices. Modes, owners and modification times are kept; entries are sorted by name. No tool is
//! needed.
//!
//! With `include`, only the paths that match one of the patterns are taken: `*` stands for any characters, `/` too, `?`
//! for one, `[a-z]` for one of these, and `\` takes the special meaning away. Directories have a `/` at their end.
//!
//! ```json
//! {
//!   "type": "org.osbuild.zip",
//!   "inputs": {
//!     "tree": {
//!       "type": "org.osbuild.tree",
//!       "origin": "org.osbuild.pipeline",
//!       "references": ["name:files"]
//!     }
//!   },
//!   "options": { "filename": "files.zip", "include": ["boot/*", "etc/*.conf"], "level": 9 }
//! }
//! ```

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;

use osbc_module_api::*;
use rustix::fs::OFlags;
use zip::write::{ExtendedFileOptions, FileOptions};
use zip::{CompressionMethod, ZipWriter};

use crate::archives::single_file;
use crate::trees::clock;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.zip",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": ""}}"#,
        r#"{"options": {"filename": "x", "level": 99}}"#,
        r#"{"options": {"filename": "x", "include": "*"}}"#,
        r#"{"options": {"filename": "x", "extra": 1}}"#,
        r#"{"options": {"filename": "x"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The archive
    #[schemars(length(min = 1))]
    filename: String,
    /// Patterns of the paths that are taken; all when there are none
    #[serde(default)]
    include: Vec<String>,
    /// From 0, not at all, to 9, small
    #[serde(default = "usual")]
    #[schemars(range(min = 0, max = 9))]
    level: u8,
}

fn usual() -> u8 {
    6
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let tree = Tree::open(&cx.input("tree")?.path)?;
    let name = &options.filename;
    let base = name.rsplit('/').next().unwrap_or(name);
    let target = if base.contains('.') { name.clone() } else { format!("{name}.zip") };
    let file = BufWriter::with_capacity(1 << 18, single_file::create(&cx.tree, &target)?);
    let mut archive =
        Archive { zip: ZipWriter::new(file), tree: &tree, options: &options, ancestors: Vec::new(), count: 0 };
    archive.directory("", &tree.metadata("/")?)?;
    if archive.count == 0 {
        return Err(Error::failed("nothing in the tree is to be archived; see the option `include`"));
    }
    let file = archive.zip.finish().map_err(|error| Error::io("write", &target)(io::Error::from(error)))?;
    file.into_inner().map(drop).map_err(|error| Error::io("write", &target)(error.into_error()))
}

/// The archive in the making.
struct Archive<'a> {
    zip: ZipWriter<BufWriter<File>>,
    tree: &'a Tree,
    options: &'a Options,
    /// Device and inode of the directories that the present one lies in.
    ancestors: Vec<(u64, u64)>,
    count: usize,
}

impl Archive<'_> {
    /// Adds what is in a directory; its name ends in `/` unless it is the root.
    fn directory(&mut self, name: &str, metadata: &Metadata) -> Result<(), Error> {
        let key = (metadata.dev(), metadata.ino());
        if self.ancestors.contains(&key) {
            return Ok(());
        }
        if !name.is_empty() && self.wanted(name) {
            let entry = entry(metadata).map_err(|error| failed(name, error))?;
            self.zip.add_directory(name, entry).map_err(|error| failed(name, error.into()))?;
            self.count += 1;
        }
        self.ancestors.push(key);
        for entry in self.tree.read_dir(format!("/{name}"))? {
            let entry = entry.to_str().ok_or_else(|| {
                Error::failed(format!("the name {} in /{name} is not UTF-8, as zip wants names", entry.display()))
            })?;
            let path = format!("{name}{entry}");
            if !self.tree.exists(&path)? {
                continue;
            }
            let metadata = self.tree.metadata(&path)?;
            if metadata.is_dir() {
                self.directory(&format!("{path}/"), &metadata)?;
            } else if metadata.is_file() && self.wanted(&path) {
                self.file(&path, &metadata)?;
            }
        }
        self.ancestors.pop();
        Ok(())
    }

    fn file(&mut self, path: &str, metadata: &Metadata) -> Result<(), Error> {
        let mut content = self.tree.open_file(path, OFlags::RDONLY, 0)?;
        let level = self.options.level;
        let mut add = || -> io::Result<()> {
            let entry = entry(metadata)?.large_file(metadata.len() >= u64::from(u32::MAX) / 2);
            let entry = if level == 0 || metadata.len() == 0 {
                entry.compression_method(CompressionMethod::Stored)
            } else {
                entry.compression_method(CompressionMethod::Deflated).compression_level(Some(level.into()))
            };
            self.zip.start_file(path, entry)?;
            io::copy(&mut content, &mut self.zip)?;
            self.zip.flush()
        };
        add().map_err(|error| failed(path, error))?;
        self.count += 1;
        Ok(())
    }

    fn wanted(&self, name: &str) -> bool {
        let include = &self.options.include;
        include.is_empty() || include.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }
}

fn failed(path: &str, error: io::Error) -> Error {
    Error::io("archive", format!("/{path}"))(error)
}

/// Returns a time as the format has it; `None` if the format has no such year.
fn time(date: jiff::civil::DateTime) -> Option<zip::DateTime> {
    let year = u16::try_from(date.year()).ok()?;
    let [month, day, hour, minute, second] =
        [date.month(), date.day(), date.hour(), date.minute(), date.second()].map(i8::unsigned_abs);
    zip::DateTime::from_date_and_time(year, month, day, hour, minute, second).ok()
}

/// Mode, times and owner of an entry.
fn entry(metadata: &Metadata) -> io::Result<FileOptions<'static, 'static, ExtendedFileOptions>> {
    const DIRECTORY: u32 = 0x10;
    let time = clock::date(metadata.mtime()).ok().and_then(time);
    let attributes = metadata.mode() << 16 | if metadata.is_dir() { DIRECTORY } else { 0 };
    let mut entry = FileOptions::<ExtendedFileOptions>::default()
        .external_attributes(attributes)
        // The format knows the years from 1980 to 2107; the field behind it says more.
        .last_modified_time(time.unwrap_or_default())
        .with_extended_timestamp(u32::try_from(metadata.mtime()).ok(), None, None)?;
    let owner = [&[1, 4], &metadata.uid().to_le_bytes()[..], &[4], &metadata.gid().to_le_bytes()].concat();
    entry.add_extra_field(UNIX_OWNER, owner, false)?;
    Ok(entry)
}

/// Info-ZIP's field for numbers of user and group.
const UNIX_OWNER: u16 = 0x7875;

/// Whether a pattern of `zip -i` fits a name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([b'[', class @ ..], [letter, name @ ..]) => match one_of(class, *letter) {
            Some((true, rest)) => matches(rest, name),
            _ => false,
        },
        ([b'\\', special, rest @ ..], [letter, name @ ..]) => special == letter && matches(rest, name),
        ([plain, rest @ ..], [letter, name @ ..]) => plain == letter && matches(rest, name),
        (_, []) => false,
    }
}

/// Whether a letter is in the class that a pattern goes on with, and what follows the class; none if it does not end.
fn one_of(class: &[u8], letter: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    let mut first = true;
    loop {
        (found, rest) = match rest {
            [b']', rest @ ..] if !first => return Some((found != negated, rest)),
            [b'\\', one, rest @ ..] => (found || *one == letter, rest),
            [low, b'-', high, rest @ ..] if *high != b']' => (found || (*low..=*high).contains(&letter), rest),
            [one, rest @ ..] => (found || *one == letter, rest),
            [] => return None,
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE).input("tree", json!({}), |tree| {
            tree.write("file.txt", "other content").unwrap();
            tree.create_dir("sub", 0o755).unwrap();
            tree.write("sub/inner.txt", "sub content ".repeat(1000)).unwrap();
            tree.chmod("sub/inner.txt", 0o4711).unwrap();
            tree.create_dir("sub2", 0o755).unwrap();
            tree.symlink("/file.txt", "sub2/link.txt").unwrap();
            tree.symlink("nowhere", "sub2/dangling").unwrap();
            tree.symlink("..", "sub2/loop").unwrap();
        })
    }

    fn archive(done: &Done, name: &str) -> zip::ZipArchive<io::Cursor<Vec<u8>>> {
        zip::ZipArchive::new(io::Cursor::new(done.tree.read(name).unwrap())).unwrap()
    }

    fn names(options: Value) -> Vec<String> {
        archive(&case().run(options).ok(), "a.zip").file_names().map(|name| name.unwrap().into_owned()).collect()
    }

    #[test]
    fn a_tree_is_archived_with_links_followed_inside_of_it() {
        let all = ["file.txt", "sub/", "sub/inner.txt", "sub2/", "sub2/link.txt"];
        assert_eq!(names(json!({"filename": "/a.zip"})), all);
        let mut archive = archive(&case().run(json!({"filename": "a.zip"})).ok(), "a.zip");
        let mut text = String::new();
        archive.by_name("sub2/link.txt").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "other content");
        let file = archive.by_name("sub/inner.txt").unwrap();
        assert_eq!(file.external_attributes() >> 16, 0o104711);
        assert!(file.compressed_size() < file.size());
        drop(file);
        assert_eq!(archive.by_name("sub/").unwrap().unix_mode().unwrap() & 0o170000, 0o040000);
    }

    #[test]
    fn patterns_choose_what_is_archived() {
        assert_eq!(names(json!({"filename": "a.zip", "include": ["sub/*"]})), ["sub/", "sub/inner.txt"]);
        let both = json!({"filename": "a.zip", "include": ["sub2/*", "file.t?t"]});
        assert_eq!(names(both), ["file.txt", "sub2/", "sub2/link.txt"]);
        let done = case().run(json!({"filename": "a.zip", "include": ["missing"]}));
        assert!(done.err().contains("nothing in the tree is to be archived"));
    }

    #[test]
    fn patterns_are_those_of_the_zip_tool() {
        for (pattern, name, fits) in [
            ("*", "a/b", true),
            ("a*c", "abbc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]y", "]y", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[ab", "a", false),
            ("sub/*", "sub/", true),
            ("sub", "sub/", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_without_a_dot_gets_one() {
        archive(&case().run(json!({"filename": "archive"})).ok(), "archive.zip");
        archive(&case().run(json!({"filename": "no", "level": 0})).ok(), "no.zip");
    }

    #[test]
    fn the_zip_tools_take_the_archive() {
        if !has_tool("unzip") {
            return;
        }
        let done = case().run(json!({"filename": "a.zip"})).ok();
        let output = Command::new("unzip").arg("-tq").arg(done.tree.path_for_tools("a.zip").unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
