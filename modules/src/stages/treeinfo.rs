//! Describes an installation tree in a `.treeinfo` file.
//!
//! The file has a section for each object of `treeinfo` in its order, then `[header]` with the version of the format.
//! Lists are joined by commas, yes and no are `true` and `false`; a list of objects is a section each, called after
//! their `name` too. For `checksums`, a list of files of the tree, the section has their SHA-256. The file has the mode
//! 0600, its directory is made.
//!
//! ```json
//! {
//!   "type": "org.osbuild.treeinfo",
//!   "options": {
//!     "path": "/.treeinfo",
//!     "treeinfo": {
//!       "general": { "arch": "x86_64", "family": "Fedora", "version": "42" },
//!       "release": { "name": "Fedora", "short": "Fedora", "version": "42" }
//!     }
//!   }
//! }
//! ```

use std::path::Path;

use osbc_ir::Number;
use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::downloads::checksum;
use crate::texts::ini::{self, Section, Sections};
use crate::texts::options::{Entries, InOrder};
use osbc_pytext::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.treeinfo",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"path": "/.treeinfo"}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": []}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": {"release": {"name": 1}}}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": {"tree": {"build_timestamp": "1"}}}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": {"images-x86_64": {"kernel": 1}}}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": {"variant-Server": {"id": 1}}}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": {"checksums": {}}}}"#,
        r#"{"options": {"path": "/.treeinfo", "treeinfo": {}, "other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The file
    path: String,
    /// What it says, by section
    treeinfo: InOrder<TreeInfo>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(transform = named_sections)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct TreeInfo {
    /// The release
    release: Option<Release>,
    /// The tree
    #[serde(rename = "tree")]
    own: Option<OwnTree>,
    /// The same for old readers
    general: Option<General>,
    /// The files that get a checksum
    checksums: Option<Vec<String>>,
    /// The installer's image
    stage2: Option<Stage2>,
}

fn named_sections(schema: &mut schemars::Schema) {
    let variant = options_schema::<Variant>();
    let images = options_schema::<Entries<String, String>>();
    schema.insert("patternProperties".into(), json!({"^images-.*$": images, "^variant-.*$": variant}));
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Release {
    /// Its name
    name: Option<String>,
    /// Its short name
    short: Option<String>,
    /// Its version
    version: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct OwnTree {
    /// The architecture
    arch: Option<String>,
    /// When it was built
    #[schemars(with = "Option<f64>")]
    build_timestamp: Option<Number>,
    /// The platforms that it starts on
    platforms: Option<Vec<String>>,
    /// The variants that it has
    variants: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct General {
    /// The architecture
    arch: Option<String>,
    /// The family
    family: Option<String>,
    /// The name
    name: Option<String>,
    /// The directory of packages
    packagedir: Option<String>,
    /// The platforms that it starts on
    platforms: Option<Vec<String>>,
    /// The repository
    repository: Option<String>,
    /// When it was built
    #[schemars(with = "Option<f64>")]
    timestamp: Option<Number>,
    /// The variant
    variant: Option<String>,
    /// The version
    version: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the settings are read in their order")]
struct Stage2 {
    /// Its path
    mainimage: Option<String>,
}

/// Only for the schema: the keys of such sections are open.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes the schema")]
struct Variant {
    /// Its id
    id: Option<String>,
    /// Its name
    name: Option<String>,
    /// The directory of packages
    packages: Option<String>,
    /// The repository
    repository: Option<String>,
    /// Its type
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Its unique id
    uid: Option<String>,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { path, treeinfo } = cx.options()?;
    let mut info = treeinfo.entries;
    info.insert("header".to_owned(), json!({"version": "1.0"}));
    if let Some(Value::Array(files)) = info.get("checksums")
        && !files.is_empty()
    {
        let files = files.iter().filter_map(Value::as_str);
        let sums =
            files.map(|file| Ok((file.to_owned(), Value::String(format!("sha256:{}", sha256(&cx.tree, file)?)))));
        let sums: Map<String, Value> = sums.collect::<Result<_, Error>>()?;
        info.insert("checksums".to_owned(), Value::Object(sums));
    }
    let text = text(&info)?;
    if let Some(directory) = Path::new(&path).parent() {
        cx.tree.create_dir_all(directory, 0o777)?;
    }
    cx.tree.write(&path, text)?;
    cx.tree.chmod(&path, 0o600)
}

fn sha256(tree: &Tree, path: &str) -> Result<String, Error> {
    let mut file = tree.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
    checksum::sha256(&mut file).map_err(Error::io("read", path))
}

fn text(info: &Map<String, Value>) -> Result<String, Error> {
    let mut file = Sections::default();
    for (name, section) in info {
        match section {
            Value::Object(settings) => fill(file.section(name)?, settings)?,
            Value::Array(sections) => {
                for section in sections {
                    let settings = section.get("config").and_then(Value::as_object);
                    let settings = settings
                        .ok_or_else(|| Error::failed(format!("a section of the list `{name}` has no `config`")))?;
                    let name = match section.get("name").and_then(text::str).as_deref() {
                        None | Some("" | "None") => name.clone(),
                        Some(own) => format!("{name}-{own}"),
                    };
                    fill(file.section(&name)?, settings)?;
                }
            }
            _ => return Err(Error::failed(format!("the section `{name}` is neither an object nor a list"))),
        }
    }
    Ok(file.text("="))
}

fn fill(section: &mut Section, settings: &Map<String, Value>) -> Result<(), Error> {
    for (key, value) in settings {
        let text = match value {
            Value::Bool(yes) => Some(yes.to_string()),
            Value::Array(items) => {
                items.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(|items| items.join(","))
            }
            value => text::str(value),
        };
        let text =
            text.ok_or_else(|| Error::failed(format!("the value of `{key}` has no form in a .treeinfo file")))?;
        section.set(key, ini::interpolated(key, &text)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn write(info: Value) -> Done {
        let case = Case::new(&MODULE).file("images/boot.iso", "iso");
        case.run(json!({"path": "/os/.treeinfo", "treeinfo": info}))
    }

    #[test]
    fn sections_keep_their_order_and_the_header_comes_last() {
        let info = json!({
            "tree": {"platforms": ["a", "b"], "build_timestamp": 1.5, "Own": true},
            "variants": [{"name": "Server", "config": {"id": "Server"}}, {"config": {"x": 1}}],
            "checksums": ["images/boot.iso"],
        });
        let done = write(info).ok();
        let text = done.text("os/.treeinfo");
        let (before, rest) = text.split_once("images/boot.iso=sha256:").unwrap();
        let start = "[tree]\nplatforms=a,b\nbuild_timestamp=1.5\nOwn=true\n\n[variants-Server]\nid=Server\n\n\
            [variants]\nx=1\n\n[checksums]\n";
        assert_eq!((before, &rest[64..]), (start, "\n\n[header]\nversion=1.0\n\n"));
        assert_eq!(done.mode("os/.treeinfo"), 0o600);
    }

    #[test]
    fn files_with_a_checksum_are_read_in_the_tree() {
        let done = write(json!({"checksums": ["/images/boot.iso"]})).ok();
        let expected = "e0e4548df88a35d5854d052281c5deedad16f286f82cb2c23f2f9dea494834ac";
        assert!(done.text("os/.treeinfo").contains(&format!("/images/boot.iso=sha256:{expected}\n")));
        assert!(write(json!({"checksums": ["missing"]})).err().contains("missing"));
    }

    #[test]
    fn what_has_no_form_in_the_file_is_refused() {
        for (info, word) in [
            (json!({"a": 1}), "neither"),
            (json!({"a": [{}]}), "`config`"),
            (json!({"a": {"b": {}}}), "no form"),
            (json!({"a": {"b": [1]}}), "no form"),
            (json!({"a": {"b": "5\n\n"}}), "`b`"),
            (json!({"a": {"b=c": "5"}}), "`b=c`"),
            (json!({"DEFAULT": {}}), "DEFAULT"),
        ] {
            let done = write(info);
            assert!(done.err().contains(word), "{}", done.err());
        }
        assert_eq!(write(json!({"checksums": []})).ok().text("os/.treeinfo"), "[header]\nversion=1.0\n\n");
    }

    #[test]
    fn percent_signs_are_doubled_for_configparser() {
        assert!(write(json!({"a": {"b": "5%"}})).ok().text("os/.treeinfo").contains("b=5%%\n"));
    }
}
