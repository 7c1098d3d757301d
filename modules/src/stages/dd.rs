//! Copies a part of a file over the beginning of another.
//!
//! `count` bytes of `src` from `src_offset` on, or as many as there are, are written to the beginning of `dst`, which is
//! created if it is not there. What `dst` has behind stays. No tool is needed.
//!
//! ```json
//! {
//!   "type": "org.osbuild.dd",
//!   "options": { "src": "input://image/disk.img", "dst": "/boot.img", "src_offset": 512, "count": 1048576 },
//!   "inputs": {
//!     "image": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:image"] }
//!   }
//! }
//! ```

use std::io::{self, Read, Seek, SeekFrom};

use osbc_module_api::*;
use rustix::fs::OFlags;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.dd",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().any_inputs().version_2_alone(),
    rejects: &[
        r#"{"options": {"src": "tree:///a", "dst": "/b"}}"#,
        r#"{"options": {"src": "/a", "dst": "/b", "count": 1}}"#,
        r#"{"options": {"src": "tree://", "dst": "/b", "count": 1}}"#,
        r#"{"options": {"src": "tree:///a", "dst": "/b", "count": 0}}"#,
        r#"{"options": {"src": "tree:///a", "dst": "/b", "count": 1, "src_offset": -1}}"#,
        r#"{"options": {"src": "tree:///a", "dst": "/b", "count": 1.5}}"#,
        r#"{"options": {"src": "tree:///a", "dst": "/b", "count": 1, "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What is copied: `input://NAME/path`, `tree:///path` or `mount://NAME/path`
    #[schemars(regex(pattern = "^(input|tree|mount)://."))]
    src: String,
    /// Where it is copied to, in the tree
    dst: String,
    /// How many bytes are left out at the beginning
    #[serde(default)]
    src_offset: u64,
    /// How many bytes are copied
    #[schemars(range(min = 1))]
    count: u64,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { src, dst, src_offset, count } = cx.options()?;
    let Location { tree, path, .. } = cx.location(&src)?;
    let mut source = tree.open_file(&path, OFlags::RDONLY, 0)?;
    let mut target = cx.tree.open_file(&dst, OFlags::WRONLY | OFlags::CREATE, 0o666)?;
    source.seek(SeekFrom::Start(src_offset)).map_err(Error::io("read", &path))?;
    io::copy(&mut source.take(count), &mut target).map(drop).map_err(Error::io("copy to", &dst))
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case() -> Case {
        Case::new(&MODULE).file("a", "0123456789").file("b", "abcdefgh").input("in", json!({}), |tree| {
            tree.write("c", "xyz").unwrap();
        })
    }

    #[test]
    fn the_beginning_is_written_and_the_rest_stays() {
        for (options, result) in [
            (json!({"src": "tree:///a", "dst": "/b", "src_offset": 3, "count": 4}), "3456efgh"),
            (json!({"src": "tree:///a", "dst": "b", "src_offset": 8, "count": 100}), "89cdefgh"),
            (json!({"src": "tree:///a", "dst": "b", "src_offset": 50, "count": 1}), "abcdefgh"),
            (json!({"src": "input://in/c", "dst": "b", "count": 2}), "xycdefgh"),
        ] {
            assert_eq!(case().run(options).ok().text("b"), result);
        }
        let done = case().run(json!({"src": "tree:///a", "dst": "/new", "count": 2})).ok();
        assert_eq!((done.text("new").as_str(), done.mode("new")), ("01", 0o644));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for (src, dst) in [("tree:///missing", "/b"), ("tree:///a", "/missing/b"), ("input://other/c", "/b")] {
            assert!(case().run(json!({"src": src, "dst": dst, "count": 1})).result.is_err());
        }
    }
}
