//! Makes an EROFS image of a tree.
//!
//! Calls `mkfs.erofs` of the build root on the input `tree` or on `source`, a directory of an input (`input://NAME/…`)
//! or of a mount (`mount://NAME/…`, or `mount:///…` below the place of all mounts). The tool gives each image a random
//! identifier.
//!
//! ```json
//! {
//!   "type": "org.osbuild.erofs",
//!   "inputs": {
//!     "tree": { "type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:os"] }
//!   },
//!   "options": {
//!     "filename": "root.erofs",
//!     "exclude_paths": ["^boot/"],
//!     "compression": { "method": "lz4hc", "level": 9 },
//!     "options": ["dedupe"],
//!     "cluster-size": 65536
//!   }
//! }
//! ```

use std::path::Path;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.erofs",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("mkfs.erofs")],
    schema: || Schema::stage::<Options>().inputs(&["tree"]).any_devices().mounts().version_2_alone(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"filename": "x", "extra": 1}}"#,
        r#"{"options": {"filename": "x", "source": "tree:///usr"}}"#,
        r#"{"options": {"filename": "x", "source": "input:///usr"}}"#,
        r#"{"options": {"filename": "x", "compression": {"level": 9}}}"#,
        r#"{"options": {"filename": "x", "compression": {"method": "xz"}}}"#,
        r#"{"options": {"filename": "x", "compression": {"method": "lz4", "level": "9"}}}"#,
        r#"{"options": {"filename": "x", "options": []}}"#,
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
    /// The most bytes that are compressed together
    #[serde(rename = "cluster-size")]
    #[schemars(with = "Option<f64>")]
    cluster_size: Option<i64>,
    /// Extended options of the file system
    #[serde(default)]
    #[schemars(schema_with = "extended_options_schema")]
    options: Vec<String>,
}

/// As in osbuild, where a slip of the pen in the schema lets anything be an option.
fn extended_options_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "array", "minItems": 1})
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Compression {
    /// The method
    method: Method,
    /// How hard it tries; 0 leaves it to the tool
    #[schemars(with = "Option<f64>")]
    level: Option<i64>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    Lz4,
    Lz4hc,
    Lzma,
    Zstd,
}

/// Returns the arguments of `mkfs.erofs` after target and source.
fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec!["--quiet".to_owned()];
    if let Some(compression) = &options.compression {
        let method = match compression.method {
            Method::Lz4 => "lz4",
            Method::Lz4hc => "lz4hc",
            Method::Lzma => "lzma",
            Method::Zstd => "zstd",
        };
        let level = compression.level.filter(|level| *level != 0).map(|level| format!(",{level}"));
        arguments.extend(["-z".to_owned(), format!("{method}{}", level.unwrap_or_default())]);
    }
    if !options.options.is_empty() {
        arguments.extend(["-E".to_owned(), options.options.join(",")]);
    }
    if let Some(size) = options.cluster_size.filter(|size| *size != 0) {
        arguments.extend(["-C".to_owned(), size.to_string()]);
    }
    for path in &options.exclude_paths {
        arguments.extend(["--exclude-regex".to_owned(), path.clone()]);
    }
    arguments
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
    let target = cx.tree.path_for_tools(Path::new(options.filename.trim_start_matches('/')))?;
    cx.tool("mkfs.erofs")?.arg(target).arg(source).args(arguments(&options)).run()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::Case;

    use super::*;

    fn arguments_of(options: Value) -> String {
        arguments(&Options::deserialize(options).expect("valid options")).join(" ")
    }

    #[test]
    fn only_what_is_given_is_said() {
        assert_eq!(arguments_of(json!({"filename": "x"})), "--quiet");
        let nothing = json!({"filename": "x", "compression": {"method": "zstd", "level": 0}, "cluster-size": 0});
        assert_eq!(arguments_of(nothing), "--quiet -z zstd");
        let all = json!({
            "filename": "x", "compression": {"method": "lz4hc", "level": 9}, "cluster-size": 65536,
            "options": ["dedupe", "all-fragments"], "exclude_paths": ["^boot/", "a"],
        });
        assert_eq!(
            arguments_of(all),
            "--quiet -z lz4hc,9 -E dedupe,all-fragments -C 65536 --exclude-regex ^boot/ --exclude-regex a"
        );
    }

    #[test]
    fn the_tool_makes_an_image_of_the_input_or_of_a_directory_in_it() {
        if !has_tool("mkfs.erofs") || !has_tool("dump.erofs") {
            return;
        }
        let fill = |tree: &Tree| {
            tree.create_dir_all("etc/ssh", 0o755).unwrap();
            tree.write("etc/ssh/config", "kept").unwrap();
            tree.write("etc/left-out", "gone").unwrap();
        };
        let has = |source: Option<&str>, path: &str| {
            let mut options = json!({"filename": "/root.erofs", "exclude_paths": ["left-out$"]});
            if let Some(source) = source {
                options["source"] = json!(source);
            }
            let done = Case::new(&MODULE).input("tree", json!({}), fill).run(options).ok();
            let image = done.tree.path_for_tools("root.erofs").unwrap();
            let output = Command::new("dump.erofs").arg(format!("--path={path}")).arg(image).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("NID")
        };
        assert!(has(None, "/etc/ssh/config"));
        assert!(!has(None, "/etc/left-out"));
        assert!(has(Some("input://tree/etc"), "/ssh/config"));
    }

    #[test]
    fn an_input_is_wanted() {
        assert_eq!(Case::new(&MODULE).run(json!({"filename": "x"})).err(), "the stage needs an input called `tree`");
    }
}
