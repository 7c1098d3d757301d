//! Makes a squashfs image of a tree.
//!
//! Calls `mksquashfs` of the build root on the input `tree` or on `source`, a directory of an input (`input://NAME/…`)
//! or of a mount (`mount://NAME/…`, or `mount:///…` below the place of all mounts).
//!
//! ```json
//! {
//!   "type": "org.osbuild.squashfs",
//!   "inputs": {
//!     "tree": {
//!       "type": "org.osbuild.tree",
//!       "origin": "org.osbuild.pipeline",
//!       "references": ["name:os"]
//!     }
//!   },
//!   "options": {
//!     "filename": "root.squashfs",
//!     "exclude_paths": ["boot/.*"],
//!     "compression": { "method": "xz", "options": { "bcj": "x86" } }
//!   }
//! }
//! ```

use std::ffi::OsString;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.squashfs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mksquashfs")],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).any_devices().mounts().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x", "extra": "option"}}"#,
        r#"{"options": {"filename": "x", "source": "tree:///usr"}}"#,
        r#"{"options": {"filename": "x", "source": "input:///usr"}}"#,
        r#"{"options": {"filename": "x", "compression": {}}}"#,
        r#"{"options": {"filename": "x", "compression": {"method": "lzma"}}}"#,
        r#"{"options": {"filename": "x", "compression": {"method": "xz", "options": {"bcj": "mips"}}}}"#,
        r#"{"options": {"filename": "x", "compression": {"method": "xz", "options": {"level": 9}}}}"#,
        r#"{"options": {"filename": "x"}, "inputs": {}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The image
    filename: String,
    /// The directory to take instead of the input `tree`: `mount://…` or `input://NAME/…`
    #[schemars(regex(pattern = r"^(mount://|input://[^/]+/)"))]
    source: Option<String>,
    /// Regular expressions of paths that are left out
    #[serde(default)]
    exclude_paths: Vec<String>,
    /// How the image is compressed
    compression: Option<Compression>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Compression {
    /// The method
    method: Method,
    /// The method's options
    #[serde(default)]
    options: MethodOptions,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MethodOptions {
    /// The filter for machine code
    bcj: Option<Filter>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Filter {
    X86,
    Arm,
    ArmThumb,
    PowerPc,
    Sparc,
    Ia64,
}

impl Options {
    /// Returns the arguments of `mksquashfs` after source and target.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<&str> = Vec::new();
        if let Some(compression) = &self.compression {
            let method = match compression.method {
                Method::Gzip => "gzip",
                Method::Lz4 => "lz4",
                Method::Xz => "xz",
                Method::Zstd => "zstd",
            };
            arguments.extend(["-comp", method]);
            if let Some(filter) = compression.options.bcj {
                let filter = match filter {
                    Filter::X86 => "x86",
                    Filter::Arm => "arm",
                    Filter::ArmThumb => "armthumb",
                    Filter::PowerPc => "powerpc",
                    Filter::Sparc => "sparc",
                    Filter::Ia64 => "ia64",
                };
                arguments.extend(["-Xbcj", filter]);
            }
        }
        if !self.exclude_paths.is_empty() {
            arguments.extend(["-regex", "-e"]);
            arguments.extend(self.exclude_paths.iter().map(String::as_str));
        }
        arguments.into_iter().map(OsString::from).collect()
    }
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let source = match &options.source {
        Some(source) => {
            let place = cx.location(source)?;
            place.tree.path_for_tools(&place.path)?
        }
        None => cx.input("tree")?.path.clone(),
    };
    let target = cx.tree.path_for_tools(&options.filename)?;
    cx.tool("mksquashfs")?.arg(source).arg(target).args(options.arguments()).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn arguments_of(mut options: Value) -> Vec<OsString> {
        options["filename"] = json!("x");
        Options::deserialize(options).unwrap().arguments()
    }

    #[test]
    fn compression_and_exclusions_follow_the_files() {
        assert_eq!(arguments_of(json!({})), [""; 0]);
        assert_eq!(arguments_of(json!({"compression": {"method": "lz4"}})), ["-comp", "lz4"]);
        let options = json!({"compression": {"method": "xz", "options": {"bcj": "armthumb"}}});
        assert_eq!(arguments_of(options), ["-comp", "xz", "-Xbcj", "armthumb"]);
        let options = json!({"exclude_paths": ["boot/.*", "root/.*"]});
        assert_eq!(arguments_of(options), ["-regex", "-e", "boot/.*", "root/.*"]);
    }

    fn listed(done: &Done) -> Vec<String> {
        let path = done.tree.path_for_tools("out.img").unwrap();
        let output = Command::new("unsquashfs").arg("-ls").arg(path).output().unwrap();
        let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.retain(|line| line.starts_with("squashfs-root/"));
        lines
    }

    #[test]
    fn tree_input_or_mount_become_an_image() {
        if !has_tool("mksquashfs") || !has_tool("unsquashfs") {
            return;
        }
        let case = || {
            let case = Case::new(&MODULE).input("tree", json!({}), |tree| {
                tree.create_dir("sub", 0o755).unwrap();
                tree.write("sub/file", "content").unwrap();
                tree.write("other", "content").unwrap();
            });
            case.mount("disk", |tree| tree.write("mounted", "content").unwrap())
        };
        let all = ["squashfs-root/other", "squashfs-root/sub", "squashfs-root/sub/file"];
        assert_eq!(listed(&case().run(json!({"filename": "/out.img"})).ok()), all);
        let options = json!({"filename": "out.img", "exclude_paths": ["sub/.*"]});
        assert_eq!(listed(&case().run(options).ok()), ["squashfs-root/other", "squashfs-root/sub"]);
        let options = json!({"filename": "out.img", "source": "input://tree/sub"});
        assert_eq!(listed(&case().run(options).ok()), ["squashfs-root/file"]);
        let options = json!({"filename": "out.img", "source": "mount://disk/", "compression": {"method": "zstd"}});
        assert_eq!(listed(&case().run(options).ok()), ["squashfs-root/mounted"]);
    }
}
