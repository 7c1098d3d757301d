//! Container images as archives in the OCI image layout: layers of trees, a configuration, and what names them. Knows
//! nothing of which stage asks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use osbc_module_api::*;
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};
use sha2::{Digest, Sha256};

use crate::archives::archive::{self, Settings, header, names::Names};
use crate::archives::compression::Format;
use crate::archives::single_file;
use crate::trees::clock;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Where the stage puts the image together: on a disk, as it may be large.
const WORKSPACE: &str = "/var/tmp";

/// How containers of an image run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(crate) struct Config {
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
    /// Directories that volumes are mounted at
    #[serde(default)]
    volumes: Vec<String>,
    /// The working directory
    working_dir: Option<String>,
}

impl Config {
    /// As the image has it: without what is empty, and with names as keys where Go wants a set.
    ///
    /// In the order in which osbuild writes it, which the digest depends on.
    fn of_image(&self) -> Value {
        let path = || vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        let mut config = json!({
            "Env": self.env.clone().unwrap_or_else(path),
            "Cmd": self.cmd.clone().unwrap_or_else(|| vec!["sh".to_owned()]),
        });
        let text = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).map(|text| json!(text));
        let settings = [
            ("Entrypoint", (!self.entrypoint.is_empty()).then(|| json!(self.entrypoint))),
            ("User", text(&self.user)),
            ("Labels", (!self.labels.is_empty()).then(|| Value::Object(self.labels.clone()))),
            ("StopSignal", text(&self.stop_signal)),
            ("WorkingDir", text(&self.working_dir)),
        ];
        for (key, setting) in settings {
            if let Some(setting) = setting {
                config[key] = setting;
            }
        }
        for (key, names) in [("ExposedPorts", &self.exposed_ports), ("Volumes", &self.volumes)] {
            if !names.is_empty() {
                config[key] = names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>().into();
            }
        }
        config
    }
}

/// What an image says of itself, besides its layers.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    /// The processor architecture, as Go names it.
    pub(crate) architecture: &'a str,
    /// The variant of the architecture.
    pub(crate) variant: Option<&'a str>,
    /// How containers of the image run.
    pub(crate) config: &'a Config,
    /// Annotations of the manifest.
    pub(crate) annotations: &'a Map<String, Value>,
    /// Whether layers keep an extended attribute of that name.
    pub(crate) attributes: fn(&[u8]) -> bool,
    /// Whether it says from what each layer was made.
    pub(crate) history: bool,
}

/// Makes an image with these layers, in the order of their names, and puts its archive into the stage's tree.
///
/// # Errors
/// A layer cannot be read, or something cannot be written.
pub(crate) fn write(
    cx: &StageContext,
    layers: &BTreeMap<String, MappedInput>,
    description: &Description,
    filename: &str,
) -> Result<(), Error> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().cast_signed());
    let created = cx.meta.source_epoch.unwrap_or_else(now);
    let workspace = tempfile::tempdir_in(WORKSPACE).map_err(Error::io("create a directory in", WORKSPACE))?;
    let image = Image::new(workspace.path())?;
    let date = clock::date(created)?.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    image.fill(description, layers, &date)?;
    even_out(image.root, created)?;
    let settings = Settings { format: header::Format::Posix, ..Settings::default() };
    let members = archive::top_level(image.root)?;
    let file = BufWriter::new(single_file::create(&cx.tree, filename)?);
    archive::write(image.root, &members, &settings, file).map(drop)
}

/// An image layout in the making.
struct Image<'a> {
    root: &'a Path,
}

impl<'a> Image<'a> {
    fn new(root: &'a Path) -> Result<Self, Error> {
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("create the directory", &blobs))?;
        Ok(Self { root })
    }

    fn fill(
        &self,
        description: &Description,
        layers: &BTreeMap<String, MappedInput>,
        created: &str,
    ) -> Result<(), Error> {
        let settings = Settings {
            format: header::Format::Posix,
            xattrs: Some(description.attributes),
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
            "architecture": description.architecture,
            "os": "linux",
            "config": description.config.of_image(),
            "rootfs": {"type": "layers", "diff_ids": contents},
        });
        if description.history {
            config["history"] = history.into();
        }
        if let Some(variant) = description.variant {
            config["variant"] = json!(variant);
        }
        let config = self.document(&config, CONFIG)?;
        let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": descriptors});
        if !description.annotations.is_empty() {
            manifest["annotations"] = Value::Object(description.annotations.clone());
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
        let text = osbc_pytext::json::to_string(document);
        let mut blob = Digesting::new(io::sink());
        blob.write_all(text.as_bytes()).map_err(Error::io("write", "the image"))?;
        let (digest, size, _) = blob.finish();
        self.file("document", document)?;
        self.keep(&self.root.join("document"), &digest)?;
        Ok(descriptor(media_type, &digest, size))
    }

    fn file(&self, name: &str, document: &Value) -> Result<(), Error> {
        let path = self.root.join(name);
        fs::write(&path, osbc_pytext::json::to_string(document)).map_err(Error::io("write", &path))
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
pub(crate) struct Digesting<W> {
    to: W,
    state: Sha256,
    size: u64,
}

impl<W> Digesting<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, state: Sha256::new(), size: 0 }
    }

    pub(crate) fn finish(self) -> (String, u64, W) {
        let hex = osbc_ir::hex(&self.state.finalize());
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

/// Gives a directory and all in it one time, and modes that do not depend on the umask.
pub(crate) fn even_out(path: &Path, seconds: i64) -> Result<(), Error> {
    let directory = path.is_dir();
    if directory {
        for name in archive::top_level(path)? {
            even_out(&path.join(name), seconds)?;
        }
    }
    let mode = Mode::from_raw_mode(if directory { 0o755 } else { 0o644 });
    rustix::fs::chmod(path, mode).map_err(Error::io("change the mode of", path))?;
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).map_err(Error::io("change the times of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "Env": ["A=b"], "Cmd": [], "Entrypoint": ["/init"], "User": "web", "Labels": {"n": 1, "s": "x"},
            "StopSignal": "INT", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/var": {}},
        });
        assert_eq!(config(full).to_string(), expected.to_string());
    }
}
