//! Container images: of a source, or archives that pipelines have made.
//!
//! A reference is the id of an image that `org.osbuild.skopeo` has fetched, or a pipeline. Of a pipeline's tree the
//! image is the file at its top whose name comes first. `name` is what the image is called where the stage puts it.
//!
//! ```json
//! {
//!   "type": "org.osbuild.containers",
//!   "origin": "org.osbuild.source",
//!   "references": {
//!     "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": { "name": "registry.example.com/app" }
//!   }
//! }
//! ```
//!
//! ```json
//! {
//!   "type": "org.osbuild.containers",
//!   "origin": "org.osbuild.pipeline",
//!   "references": [{ "id": "name:container", "options": { "name": "app" } }]
//! }
//! ```

use std::fs::{self, File};

use osbc_module_api::*;
use rustix::fs::OFlags;

use crate::containers::image_input;
use crate::trees::bind::{Access, bind};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.containers",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema()),
    rejects: &[
        r#"{"origin": "org.osbuild.source"}"#,
        r#"{"references": {"sha256:0": {"name": "n"}}}"#,
        r#"{"origin": "org.osbuild.source", "references": {}}"#,
        r#"{"origin": "org.osbuild.source", "references": ["sha256:0"]}"#,
        r#"{"origin": "org.osbuild.source", "references": {"sha256:0": {}}}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": {"name:c": {"name": "n", "tag": "t"}}}"#,
        r#"{"origin": "elsewhere", "references": {"sha256:0": {"name": "n"}}}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Input(map),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What the image is called.
    name: String,
}

fn schema() -> Value {
    let origins = ["org.osbuild.source", "org.osbuild.pipeline"];
    let options = options_schema::<Options>();
    image_input::schema(MODULE.name, "Images come from sources and pipelines.", &origins, &options)
}

fn map(context: &InputContext) -> Result<MappedInput, Error> {
    let mut images = Map::new();
    for reference in &context.references {
        let options = Options::deserialize(&reference.options).map_err(Error::Options)?;
        let (key, format) = match context.origin {
            InputOrigin::Source => {
                let place = context.target.join(&reference.id);
                fs::create_dir_all(&place).map_err(Error::io("create the directory", &place))?;
                let image = Tree::open(&reference.path)?.subtree("image")?;
                bind(image, Tree::open(&place)?, Access::ReadOnly).map_err(Error::io("bind an image to", &place))?;
                (reference.id.clone(), "dir")
            }
            InputOrigin::Pipeline => (show_archive(context, reference)?, "oci-archive"),
        };
        images.insert(key, json!({"format": format, "name": options.name}));
    }
    Ok(MappedInput { path: context.target.clone(), data: json!({ "archives": images }) })
}

/// Shows the archive of a pipeline under its own name, which is returned.
fn show_archive(context: &InputContext, reference: &InputReference) -> Result<String, Error> {
    let tree = Tree::open(&reference.path)?;
    for name in tree.read_dir("/")? {
        let Some(name) = name.to_str().filter(|name| tree.is_file(name).unwrap_or(false)) else { continue };
        let place = context.target.join(name);
        let over = File::create_new(&place).map_err(Error::io("create", &place))?;
        let archive = tree.open_file(name, OFlags::PATH, 0)?;
        bind(archive, over, Access::ReadOnly).map_err(Error::io("bind an image to", &place))?;
        return Ok(name.to_owned());
    }
    Err(Error::failed("the pipeline's tree has no archive at its top"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use osbc_fixtures::has_root;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    fn mapped(origin: InputOrigin, references: &[(&str, &Path)], target: &Path) -> Result<Value, String> {
        let reference = |(id, path): &(&str, &Path)| InputReference {
            id: (*id).to_owned(),
            options: json!({"name": "app"}),
            path: (*path).to_owned(),
        };
        let context = InputContext {
            origin,
            references: references.iter().map(reference).collect(),
            options: json!({}),
            target: target.to_owned(),
        };
        map(&context).map(|input| input.data).map_err(|error| error.to_string())
    }

    #[test]
    fn root_images_of_the_source_are_shown_by_their_ids() {
        if !has_root() {
            return;
        }
        let (item, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(item.path().join("image")).unwrap();
        fs::write(item.path().join("image/manifest.json"), "{}").unwrap();
        in_own_namespace(|| {
            let data = mapped(InputOrigin::Source, &[("sha256:1", item.path())], target.path()).unwrap();
            assert_eq!(data, json!({"archives": {"sha256:1": {"format": "dir", "name": "app"}}}));
            let shown = target.path().join("sha256:1/manifest.json");
            assert_eq!(fs::read_to_string(&shown).unwrap(), "{}");
            assert!(fs::write(shown, "other").is_err());
        });
    }

    #[test]
    fn root_the_first_file_of_a_pipeline_is_its_archive() {
        if !has_root() {
            return;
        }
        let (one, other, target) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(one.path().join("a")).unwrap();
        fs::write(one.path().join("b.oci"), "one").unwrap();
        fs::write(one.path().join("c.oci"), "").unwrap();
        fs::write(other.path().join("d.oci"), "other").unwrap();
        in_own_namespace(|| {
            let both = [("id", one.path()), ("other", other.path())];
            let data = mapped(InputOrigin::Pipeline, &both, target.path()).unwrap();
            let image = json!({"format": "oci-archive", "name": "app"});
            assert_eq!(data, json!({"archives": {"b.oci": image, "d.oci": image}}));
            assert_eq!(fs::read_to_string(target.path().join("b.oci")).unwrap(), "one");
            assert_eq!(fs::read_to_string(target.path().join("d.oci")).unwrap(), "other");
            let again = mapped(InputOrigin::Pipeline, &[("id", one.path())], target.path()).unwrap_err();
            assert!(again.starts_with("cannot create "), "{again}");
        });
        fs::remove_file(one.path().join("b.oci")).unwrap();
        fs::remove_file(one.path().join("c.oci")).unwrap();
        let none = mapped(InputOrigin::Pipeline, &[("id", one.path())], target.path()).unwrap_err();
        assert_eq!(none, "the pipeline's tree has no archive at its top");
    }
}
