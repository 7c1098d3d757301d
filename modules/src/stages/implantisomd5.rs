//! Puts a checksum into an ISO image.
//!
//! Calls `implantisomd5` of the build root: an installer that is started from the image can then check its medium. What
//! is no ISO image is refused, as the tool would look in it without end.
//!
//! ```json
//! { "type": "org.osbuild.implantisomd5", "options": { "filename": "installer.iso" } }
//! ```

use std::os::unix::fs::FileExt;

use osbc_module_api::*;
use rustix::fs::OFlags;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.implantisomd5",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("implantisomd5")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": 1}}"#,
        r#"{"options": {"filename": "a.iso", "force": true}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    filename: String,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { filename } = cx.options()?;
    let path = filename.trim_start_matches('/');
    let mut mark = [0; MARK.len()];
    let image = cx.tree.open_file(path, OFlags::RDONLY, 0)?;
    if image.read_exact_at(&mut mark, MARK_AT).is_err() || mark != *MARK {
        return Err(Error::failed(format!("/{path} is no ISO image")));
    }
    cx.tool("implantisomd5")?.arg(cx.tree.path_for_tools(path)?).run()
}

/// What the first volume descriptor of an image begins with, behind a byte, and where.
const MARK: &[u8; 5] = b"CD001";
const MARK_AT: u64 = 16 * 2048 + 1;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    #[test]
    fn an_image_holds_its_checksum() {
        if !has_tool("implantisomd5") || !has_tool("xorrisofs") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("a.iso");
        std::fs::write(directory.path().join("file"), vec![7; 3 << 20]).unwrap();
        let made =
            Command::new("xorrisofs").args(["-quiet", "-o"]).arg(&image).arg(directory.path().join("file")).status();
        assert!(made.unwrap().success());
        let done = Case::new(&MODULE).file("a.iso", std::fs::read(image).unwrap()).run(json!({"filename": "/a.iso"}));
        let image = done.ok().tree.read("a.iso").unwrap();
        // In the part of the volume descriptor that is free for use.
        assert!(image[16 * 2048..][..2048].windows(13).any(|window| window == b"ISO MD5SUM = "));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let error = Case::new(&MODULE).file("a.iso", "text").run(json!({"filename": "a.iso"})).err();
        assert_eq!(error, "/a.iso is no ISO image");
        let error = Case::new(&MODULE).run(json!({"filename": "/a.iso"})).err();
        assert!(error.contains("/a.iso"), "{error}");
    }
}
