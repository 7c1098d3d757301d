//! Single files: items of a source, or files out of the trees of pipelines.
//!
//! Items of a source are named by their checksum. Of a pipeline's tree the option `file` of the reference names the
//! file; it keeps its place, and a link on the way to it leads nowhere but inside that tree. The stage gets the
//! `metadata` of each reference along with the file's name, under `files`; its keys have a prefix, like `rpm.`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.files",
//!   "origin": "org.osbuild.source",
//!   "references": {
//!     "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03": { "metadata": { "rpm.check_gpg": true } }
//!   }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.files",
//!   "origin": "org.osbuild.pipeline",
//!   "references": [{ "id": "name:image", "options": { "file": "disk.img" } }]
//! }
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use osbc_module_api::*;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::trees::bind::{Access, bind};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.files",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema()),
    rejects: &[
        r#"{"origin": "org.osbuild.source"}"#,
        r#"{"references": ["sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]}"#,
        r#"{"origin": "elsewhere", "references": ["sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]}"#,
        r#"{"origin": "org.osbuild.source", "references": {}}"#,
        r#"{"origin": "org.osbuild.source", "references": {"sha256:0": {"file": "disk.img"}}}"#,
        r#"{"origin": "org.osbuild.source", "references": {"sha256:0": {"metadata": {"plain": 1}}}}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": ["name:image"]}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": [{"options": {"file": "disk.img"}}]}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": {"name:image": {"file": 1}}}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Input(map),
};

/// What a reference may say about its file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What the stage learns about the file.
    #[serde(default)]
    #[schemars(schema_with = "metadata_schema")]
    metadata: Map<String, Value>,
    /// The file's path in the pipeline's tree.
    file: Option<String>,
}

fn metadata_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": false,
        "patternProperties": {"^\\w+[.]{1}\\w+$": {"additionalProperties": false}}
    })
}

fn schema() -> Value {
    let of_pipeline = options_schema::<Options>();
    let mut of_source = of_pipeline.clone();
    if let Some(Value::Object(properties)) = of_source.get_mut("properties") {
        properties.shift_remove("file");
    }
    let case = |origin: &str, references: Vec<Value>| {
        json!({
            "additionalProperties": false,
            "required": ["type", "origin", "references"],
            "properties": {
                "type": {"enum": ["org.osbuild.files"]},
                "origin": {"type": "string", "enum": [origin]},
                "references": {"description": "The files.", "oneOf": references}
            }
        })
    };
    let list = |options: &Value| {
        json!({
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["id"],
                "properties": {"id": {"type": "string"}, "options": options}
            }
        })
    };
    let object = |options: &Value| {
        json!({
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "patternProperties": {".*": options}
        })
    };
    let names = json!({"type": "array", "items": {"type": "string"}});
    json!({
        "additionalProperties": true,
        "oneOf": [
            case("org.osbuild.source", vec![names, list(&of_source), object(&of_source)]),
            case("org.osbuild.pipeline", vec![list(&of_pipeline), object(&of_pipeline)])
        ]
    })
}

fn map(context: &InputContext) -> Result<MappedInput, Error> {
    let mut files = Map::new();
    for reference in &context.references {
        let options: Options = parsed(&reference.options)?;
        let name = match context.origin {
            InputOrigin::Source => reference.id.clone(),
            InputOrigin::Pipeline => {
                let file =
                    options.file.ok_or_else(|| Error::failed(format!("{}: no `file` is named", reference.id)))?;
                file.trim_start_matches('/').to_owned()
            }
        };
        let place = place(&context.target, &name)?;
        match context.origin {
            InputOrigin::Source => link(&reference.path, &place)?,
            InputOrigin::Pipeline => {
                let file = Tree::open(&reference.path)?.open_file(&name, OFlags::PATH, 0)?;
                show(&file, &place)?;
            }
        }
        files.insert(name, Value::Object(options.metadata));
    }
    Ok(MappedInput { path: context.target.clone(), data: json!({ "files": files }) })
}

fn parsed(options: &Value) -> Result<Options, Error> {
    Options::deserialize(options).map_err(Error::Options)
}

/// The path of a file below the target, with the directories above it made.
fn place(target: &Path, name: &str) -> Result<PathBuf, Error> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !plain {
        return Err(Error::failed(format!("`{name}` does not name a file below the input; leave out `..`")));
    }
    let place = target.join(name);
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory).map_err(Error::io("create the directory", directory))?;
    }
    Ok(place)
}

/// Makes an item of the store visible: by another name where that is possible, else by a mount.
fn link(item: &Path, place: &Path) -> Result<(), Error> {
    let impossible = |error: &io::Error| {
        let error = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(error, Some(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP))
    };
    match fs::hard_link(item, place) {
        Err(error) if impossible(&error) => show(&File::open(item).map_err(Error::io("open", item))?, place),
        result => result.map_err(Error::io("link", item)),
    }
}

/// Shows a file read-only at a place where none is yet.
fn show(file: &File, place: &Path) -> Result<(), Error> {
    let over = File::create_new(place).map_err(Error::io("create", place))?;
    bind(file, over, Access::ReadOnly).map_err(Error::io("bind a file to", place))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use nix::mount::{MsFlags, mount};
    use osbc_fixtures::has_root;
    use tempfile::TempDir;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    fn references(origin: InputOrigin, references: &[(&str, &Path, Value)], target: &TempDir) -> Result<Value, Error> {
        let reference = |(id, path, options): &(&str, &Path, Value)| InputReference {
            id: (*id).to_owned(),
            options: options.clone(),
            path: (*path).to_owned(),
        };
        let mapped = map(&InputContext {
            origin,
            references: references.iter().map(reference).collect(),
            options: json!({}),
            target: target.path().to_owned(),
        })?;
        assert_eq!(mapped.path, target.path());
        Ok(mapped.data)
    }

    #[test]
    fn items_of_a_source_get_another_name_and_their_metadata_is_handed_on() {
        let (store, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let item = store.path().join("md5:b1");
        fs::write(&item, "one").unwrap();
        let given = [("md5:b1", item.as_path(), json!({"metadata": {"rpm.check_gpg": true}}))];
        let data = references(InputOrigin::Source, &given, &target).unwrap();
        assert_eq!(data, json!({"files": {"md5:b1": {"rpm.check_gpg": true}}}));
        let there = fs::metadata(target.path().join("md5:b1")).unwrap();
        assert_eq!(there.ino(), fs::metadata(&item).unwrap().ino());
    }

    #[test]
    fn root_items_on_another_file_system_are_shown_by_a_mount() {
        if !has_root() {
            return;
        }
        let (store, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        in_own_namespace(|| {
            mount(Some("tmpfs"), store.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let item = store.path().join("md5:b1");
            fs::write(&item, "one").unwrap();
            references(InputOrigin::Source, &[("md5:b1", &item, json!({}))], &target).unwrap();
            let shown = target.path().join("md5:b1");
            assert_eq!(fs::read_to_string(&shown).unwrap(), "one");
            assert!(fs::write(&shown, "other").is_err());
        });
    }

    #[test]
    fn root_files_of_a_tree_keep_their_place_and_links_stay_inside() {
        if !has_root() {
            return;
        }
        let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.path().join("usr/etc")).unwrap();
        symlink("/usr/etc", tree.path().join("etc")).unwrap();
        fs::write(tree.path().join("usr/etc/hostname"), "inside").unwrap();
        in_own_namespace(|| {
            let options = json!({"file": "/etc/hostname", "metadata": {"a.b": 1}});
            let data = references(InputOrigin::Pipeline, &[("id", tree.path(), options)], &target).unwrap();
            assert_eq!(data, json!({"files": {"etc/hostname": {"a.b": 1}}}));
            let shown = target.path().join("etc/hostname");
            assert_eq!(fs::read_to_string(&shown).unwrap(), "inside");
            assert!(fs::write(&shown, "other").is_err());
            let again =
                references(InputOrigin::Pipeline, &[("id", tree.path(), json!({"file": "etc/hostname"}))], &target);
            assert!(again.unwrap_err().to_string().starts_with("cannot create "));
        });
    }

    #[test]
    fn what_names_no_file_of_the_tree_is_refused() {
        let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let refused = |options| {
            let result = references(InputOrigin::Pipeline, &[("id", tree.path(), options)], &target);
            result.unwrap_err().to_string()
        };
        assert_eq!(refused(json!({})), "id: no `file` is named");
        assert_eq!(
            refused(json!({"file": "../secret"})),
            "`../secret` does not name a file below the input; leave out `..`"
        );
        assert!(refused(json!({"file": "missing"})).starts_with("cannot open /missing:"));
    }
}
