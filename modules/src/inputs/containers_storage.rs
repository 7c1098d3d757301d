//! Container images of the host's own storage, which goes with the source of the same name.
//!
//! The whole storage is shown to the stage: unlike other inputs it is not osbc's, and what is in it may change. Where
//! it is, is read from the host's `storage.conf`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.containers-storage",
//!   "origin": "org.osbuild.source",
//!   "references": {
//!     "sha256:dbb63178dc9157068107961f11397df3fb62c02fa64f697d571bf84aad71cb99": { "name": "registry.example.com/app" }
//!   }
//! }
//! ```

use std::fs;
use std::path::Path;

use osbc_module_api::*;

use crate::containers::container_storage::Configuration;
use crate::containers::image_input;
use crate::trees::bind::{Access, bind};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Input,
    name: "org.osbuild.containers-storage",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema()),
    rejects: &[
        r#"{"origin": "org.osbuild.source"}"#,
        r#"{"references": {"sha256:0": {"name": "n"}}}"#,
        r#"{"origin": "org.osbuild.source", "references": {}}"#,
        r#"{"origin": "org.osbuild.source", "references": ["sha256:0"]}"#,
        r#"{"origin": "org.osbuild.source", "references": {"sha256:0": {"tag": "t"}}}"#,
        r#"{"origin": "org.osbuild.pipeline", "references": {"name:c": {"name": "n"}}}"#,
    ],
    parse: |_| Ok(()),
    entry: Entry::Input(|context| map(context, Path::new("/"))),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What the image is called.
    name: Option<String>,
}

fn schema() -> Value {
    let options = options_schema::<Options>();
    image_input::schema(MODULE.name, "Images are of the host.", &["org.osbuild.source"], &options)
}

/// `host` is the root of the host's file system.
fn map(context: &InputContext, host: &Path) -> Result<MappedInput, Error> {
    let configuration = Configuration::read(host)?;
    let mut images = Map::new();
    for reference in &context.references {
        let options = Options::deserialize(&reference.options).map_err(Error::Options)?;
        let name = options.name.ok_or_else(|| Error::failed(format!("{}: no `name` is given", reference.id)))?;
        let image = json!({"format": "containers-storage", "name": name, "storage": configuration.storage});
        images.insert(reference.id.clone(), image);
    }
    let place = context.target.join("storage");
    fs::create_dir_all(&place).map_err(Error::io("create the directory", &place))?;
    let storage = Tree::open(host.join(configuration.graph_root().trim_start_matches('/')))?;
    bind(storage, Tree::open(&place)?, Access::AsIs).map_err(Error::io("bind the container storage to", &place))?;
    Ok(MappedInput { path: context.target.clone(), data: json!({ "archives": images }) })
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::has_root;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    #[test]
    fn root_the_storage_that_the_host_configures_is_shown() {
        if !has_root() {
            return;
        }
        let (host, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let context = |options| InputContext {
            origin: InputOrigin::Source,
            references: vec![InputReference { id: "sha256:1".into(), options, path: "/nowhere".into() }],
            options: json!({}),
            target: target.path().to_owned(),
        };
        let refused = |options| map(&context(options), host.path()).unwrap_err().to_string();
        assert!(refused(json!({"name": "app"})).contains("storage.conf"));
        fs::create_dir_all(host.path().join("etc/containers")).unwrap();
        let configuration = "[storage]\ndriver = \"vfs\"\ngraphroot = \"/srv/storage\"\n";
        fs::write(host.path().join("etc/containers/storage.conf"), configuration).unwrap();
        fs::create_dir_all(host.path().join("srv/storage/vfs-images")).unwrap();
        assert_eq!(refused(json!({})), "sha256:1: no `name` is given");
        in_own_namespace(|| {
            let data = map(&context(json!({"name": "app"})), host.path()).unwrap().data;
            let storage = json!({"driver": "vfs", "graphroot": "/srv/storage"});
            let image = json!({"format": "containers-storage", "name": "app", "storage": storage});
            assert_eq!(data, json!({"archives": {"sha256:1": image}}));
            assert!(target.path().join("storage/vfs-images").is_dir());
        });
    }
}
