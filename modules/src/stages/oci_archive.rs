//! Makes an OCI image archive.
//!
//! The inputs become the image's layers: `base` first, then `layer.1`, `layer.2` and so on, sorted by name. The result
//! is a tar archive in the OCI image layout, as `podman pull oci-archive:…` and `skopeo` take it. No tool is needed,
//! and the same trees give the same bytes when the pipeline has a `source-epoch`.
//!
//! Layers keep owners, access control lists and the attributes `user.*`, `security.ima` and `security.capability`.
//! `ExposedPorts` and `Volumes` are arrays here. The stop signal is spelled `StopSiganl`, as osbuild's schema has it;
//! it goes into the image as `StopSignal`, where osbuild drops it. An image of several layers names each of them in
//! `rootfs.diff_ids`, where osbuild names the last one alone.
//!
//! ```json
//! {
//!   "type": "org.osbuild.oci-archive",
//!   "inputs": {
//!     "base": {
//!       "type": "org.osbuild.tree",
//!       "origin": "org.osbuild.pipeline",
//!       "references": ["name:os"]
//!     }
//!   },
//!   "options": {
//!     "filename": "os.oci.tar",
//!     "architecture": "amd64",
//!     "config": { "Cmd": ["/bin/sh"], "ExposedPorts": ["80"], "Labels": { "version": "1" } },
//!     "annotations": { "com.example.note": "hello" }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use osbc_module_api::*;
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};
use sha2::{Digest, Sha256};

use crate::archive::{self, Settings, header, names::Names};
use crate::calendar::DateTime;
use crate::compression::Format;
use crate::single_file;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.oci-archive",
    revision: 1,
    capabilities: &[],
    schema: || Schema::stage::<Options>().with("inputs", inputs_schema()).done(),
    rejects: &[
        r#"{"options": {"filename": "x"}}"#,
        r#"{"options": {"architecture": "amd64"}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "extra": 1}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "config": {"Cmd": "sh"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "config": {"StopSignal": "TERM"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "annotations": {"org.osbuild.x": "y"}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64", "annotations": {"a": 1}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64"}, "inputs": {"layer.1": {}}}"#,
        r#"{"options": {"filename": "x", "architecture": "amd64"}, "inputs": {"base": {}, "top": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Where the stage puts the image together: on a disk, as it may be large.
const WORKSPACE: &str = "/var/tmp";

fn inputs_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["base"],
        "properties": {"base": {"type": "object", "additionalProperties": true}},
        "patternProperties": {r"layer\.[1-9]\d*": {"type": "object", "additionalProperties": true}},
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The archive
    filename: String,
    /// The processor architecture, as Go names it
    architecture: String,
    /// The variant of the architecture
    variant: Option<String>,
    /// How containers of the image run
    #[serde(default)]
    config: Config,
    /// Annotations of the manifest
    #[serde(default)]
    #[schemars(schema_with = "annotations_schema")]
    annotations: Map<String, Value>,
}

fn annotations_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "org.osbuild.ostree.layer": {"description": "The layer that holds the OSTree repository", "type": "string"},
            "org.osbuild.ostree.repo": {"description": "The repository's path in that layer", "type": "string"},
            "org.osbuild.ostree.ref": {"description": "The reference of the OSTree commit", "type": "string"},
        },
        "patternProperties": {"^(?!org.osbuild|org.opencontainer).+": {"type": "string"}},
    })
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Config {
    /// The command, or the entry point's arguments
    cmd: Option<Vec<String>>,
    /// The entry point
    #[serde(default)]
    entrypoint: Vec<String>,
    /// The environment
    env: Option<Vec<String>>,
    /// Ports that are served
    #[serde(default)]
    exposed_ports: Vec<String>,
    /// The user, and maybe the group
    user: Option<String>,
    /// Labels
    #[serde(default)]
    labels: Map<String, Value>,
    /// The signal that ends the container
    #[serde(rename = "StopSiganl")]
    stop_signal: Option<String>,
    /// Folders that volumes are mounted at
    #[serde(default)]
    volumes: Vec<String>,
    /// The working directory
    working_dir: Option<String>,
}

impl Config {
    /// As the image has it: without what is empty, and with names as keys where Go wants a set.
    fn of_image(&self) -> Value {
        let path = || vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        let mut config = json!({
            "Env": self.env.clone().unwrap_or_else(path),
            "Cmd": self.cmd.clone().unwrap_or_else(|| vec!["sh".to_owned()]),
        });
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        let texts = [("User", &self.user), ("StopSignal", &self.stop_signal), ("WorkingDir", &self.working_dir)];
        for (key, text) in texts {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                config[key] = json!(text);
            }
        }
        if !self.labels.is_empty() {
            config["Labels"] = Value::Object(self.labels.clone());
        }
        for (key, names) in [("ExposedPorts", &self.exposed_ports), ("Volumes", &self.volumes)] {
            if !names.is_empty() {
                config[key] = names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>().into();
            }
        }
        config
    }
}

/// Whether a layer keeps an extended attribute.
fn kept(attribute: &[u8]) -> bool {
    [&b"user."[..], b"security.ima", b"security.capability"].iter().any(|start| attribute.starts_with(start))
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let options: Options = cx.options()?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().cast_signed());
    let created = cx.meta.source_epoch.unwrap_or_else(now);
    let workspace = tempfile::tempdir_in(WORKSPACE).map_err(Error::io("create a folder in", WORKSPACE))?;
    let image = Image::new(workspace.path())?;
    image.fill(&options, &cx.inputs, &DateTime::from_epoch(created).to_string())?;
    even_out(image.root, created)?;
    let settings = Settings { format: header::Format::Posix, ..Settings::default() };
    let members = archive::top_level(image.root)?;
    let file = BufWriter::new(single_file::create(&cx.tree, &options.filename)?);
    archive::write(image.root, &members, &settings, file).map(drop)
}

/// An image layout in the making.
struct Image<'a> {
    root: &'a Path,
}

impl<'a> Image<'a> {
    fn new(root: &'a Path) -> Result<Self, Error> {
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("create the folder", &blobs))?;
        Ok(Self { root })
    }

    fn fill(&self, options: &Options, layers: &BTreeMap<String, MappedInput>, created: &str) -> Result<(), Error> {
        let settings = Settings {
            format: header::Format::Posix,
            xattrs: Some(kept),
            acls: true,
            names: Names::read(Path::new("/etc"))?,
            ..Settings::default()
        };
        let (mut descriptors, mut contents, mut history) = (Vec::new(), Vec::new(), Vec::new());
        for (name, input) in layers {
            let (content, descriptor) = self.layer(&input.path, &settings)?;
            contents.push(content);
            descriptors.push(descriptor);
            let created_by = format!("/bin/sh -c #(nop) osbuild input '{name}'");
            history.push(json!({"created": created, "created_by": created_by}));
        }
        let mut config = json!({
            "created": created,
            "architecture": options.architecture,
            "os": "linux",
            "config": options.config.of_image(),
            "rootfs": {"type": "layers", "diff_ids": contents},
            "history": history,
        });
        if let Some(variant) = options.variant.as_deref().filter(|variant| !variant.is_empty()) {
            config["variant"] = json!(variant);
        }
        let config = self.document(&config, CONFIG)?;
        let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": descriptors});
        if !options.annotations.is_empty() {
            manifest["annotations"] = Value::Object(options.annotations.clone());
        }
        let manifest = self.document(&manifest, MANIFEST)?;
        self.file("index.json", &json!({"schemaVersion": 2, "manifests": [manifest]}))?;
        self.file("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))
    }

    /// Archives and compresses a tree; gives the digest of the archive and the descriptor of the blob.
    fn layer(&self, tree: &Path, settings: &Settings) -> Result<(String, Value), Error> {
        let path = self.root.join("layer");
        let write = |error| Error::io("write", &path)(error);
        let blob = Digesting::new(BufWriter::new(File::create(&path).map_err(write)?));
        let encoder = Format::Gzip.encoder(Format::Gzip.default_level(), None, blob).map_err(write)?;
        let members = archive::top_level(tree)?;
        let (digest, _, encoder) = archive::write(tree, &members, settings, Digesting::new(encoder))?.finish();
        let (blob, size, mut file) = encoder.finish().map_err(write)?.finish();
        file.flush().map_err(write)?;
        self.keep(&path, &blob)?;
        Ok((digest, descriptor(LAYER, &blob, size)))
    }

    fn document(&self, document: &Value, media_type: &str) -> Result<Value, Error> {
        let text = document.to_string();
        let mut blob = Digesting::new(io::sink());
        blob.write_all(text.as_bytes()).map_err(Error::io("write", "the image"))?;
        let (digest, size, _) = blob.finish();
        self.file("document", document)?;
        self.keep(&self.root.join("document"), &digest)?;
        Ok(descriptor(media_type, &digest, size))
    }

    fn file(&self, name: &str, document: &Value) -> Result<(), Error> {
        let path = self.root.join(name);
        fs::write(&path, document.to_string()).map_err(Error::io("write", &path))
    }

    /// Makes a file the blob of that digest.
    fn keep(&self, path: &Path, digest: &str) -> Result<(), Error> {
        let hex = digest.trim_start_matches("sha256:");
        fs::rename(path, self.root.join("blobs/sha256").join(hex)).map_err(Error::io("rename", path))
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"digest": digest, "size": size, "mediaType": media_type})
}

/// Passes on what is written to it, and takes its digest and size.
struct Digesting<W> {
    to: W,
    state: Sha256,
    size: u64,
}

impl<W> Digesting<W> {
    fn new(to: W) -> Self {
        Self { to, state: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (String, u64, W) {
        let hex: String = self.state.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (format!("sha256:{hex}"), self.size, self.to)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.to.write(data)?;
        self.state.update(&data[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Gives a folder and all in it one time, and modes that do not depend on the umask.
fn even_out(path: &Path, seconds: i64) -> Result<(), Error> {
    let folder = path.is_dir();
    if folder {
        for name in archive::top_level(path)? {
            even_out(&path.join(name), seconds)?;
        }
    }
    let mode = Mode::from_raw_mode(if folder { 0o755 } else { 0o644 });
    rustix::fs::chmod(path, mode).map_err(Error::io("change the mode of", path))?;
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).map_err(Error::io("change the times of", path))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn case() -> Case {
        let case = Case::new(&MODULE).input("base", json!({}), |tree| {
            tree.create_dir("etc", 0o755).unwrap();
            tree.write("etc/hostname", "web\n").unwrap();
        });
        let case = case.input("layer.1", json!({}), |tree| tree.write("added", "x").unwrap());
        case.source_epoch(1_700_000_000)
    }

    fn options() -> Value {
        json!({"filename": "image.tar", "architecture": "amd64"})
    }

    /// The image's files by name.
    fn unpacked(done: &Done) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let archive = done.tree.path_for_tools("image.tar").unwrap();
        let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
        assert!(status.success());
        folder
    }

    fn blob(image: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let data = fs::read(image.join("blobs/sha256").join(&digest[7..])).unwrap();
        assert_eq!(descriptor["size"], data.len());
        let mut check = Digesting::new(io::sink());
        check.write_all(&data).unwrap();
        assert_eq!(check.finish().0, digest);
        data
    }

    fn json(data: &[u8]) -> Value {
        serde_json::from_slice(data).unwrap()
    }

    #[test]
    fn configurations_leave_out_what_is_empty() {
        let config = |value: Value| Config::deserialize(value).unwrap().of_image();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(config(json!({})), json!({"Env": [path], "Cmd": ["sh"]}));
        let full = json!({
            "Cmd": [], "Env": ["A=b"], "Entrypoint": ["/init"], "User": "web", "Labels": {"n": 1, "s": "x"},
            "ExposedPorts": ["80/tcp"], "Volumes": ["/var"], "WorkingDir": "", "StopSiganl": "INT",
        });
        let expected = json!({
            "Env": ["A=b"], "Cmd": [], "Entrypoint": ["/init"], "User": "web", "StopSignal": "INT",
            "Labels": {"n": 1, "s": "x"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/var": {}},
        });
        assert_eq!(config(full), expected);
    }

    #[test]
    fn index_manifest_configuration_and_layers_name_each_other_by_digest() {
        if !has_tool("tar") {
            return;
        }
        let mut options = options();
        options["annotations"] = json!({"com.example": "note"});
        options["variant"] = json!("v2");
        let done = case().run(options).ok();
        let image = unpacked(&done);
        let image = image.path();
        assert_eq!(json(&fs::read(image.join("oci-layout")).unwrap()), json!({"imageLayoutVersion": "1.0.0"}));
        let index = json(&fs::read(image.join("index.json")).unwrap());
        let manifest = json(&blob(image, &index["manifests"][0]));
        assert_eq!(manifest["annotations"], json!({"com.example": "note"}));
        let config = json(&blob(image, &manifest["config"]));
        assert_eq!(config["created"], "2023-11-14T22:13:20+00:00");
        assert_eq!((&config["architecture"], &config["variant"]), (&json!("amd64"), &json!("v2")));
        assert_eq!(config["history"][1]["created_by"], "/bin/sh -c #(nop) osbuild input 'layer.1'");
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for (index, layer) in layers.iter().enumerate() {
            let packed = blob(image, layer);
            let mut plain = Digesting::new(io::sink());
            io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][index], plain.finish().0);
        }
    }

    #[test]
    fn the_same_trees_give_the_same_archive_members_sorted_and_without_owners() {
        let archive = |_| {
            let dated = |tree: &Tree| {
                tree.write("a", "x").unwrap();
                for path in ["a", "/"] {
                    even_out(&tree.path_for_tools(path).unwrap(), 5).unwrap();
                }
            };
            let case = Case::new(&MODULE).input("base", json!({}), dated).source_epoch(7);
            case.run(options()).ok().tree.read("image.tar").unwrap()
        };
        let first = archive(1);
        assert!(first == archive(2));
        assert_eq!(&first[..6], b"blobs/");
        assert_eq!(&first[100..107], b"0000755");
    }

    #[test]
    fn skopeo_reads_the_image() {
        if !has_tool("skopeo") {
            return;
        }
        let done = case().run(options()).ok();
        let place = format!("oci-archive:{}", done.tree.path_for_tools("image.tar").unwrap().display());
        let output = Command::new("skopeo").arg("inspect").arg(place).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report = json(&output.stdout);
        assert_eq!(report["Architecture"], "amd64");
        assert_eq!(report["Layers"].as_array().unwrap().len(), 2);
    }
}
