//! Container images that inputs hand to stages, as the tools of containers name them.
//!
//! Knows the three formats in which they come: a directory of skopeo's (`dir`), an archive (`oci-archive`), and the
//! storage of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use osbc_module_api::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::containers::image_blobs::MAX_DOCUMENT;
use crate::trees::bind::Access;
use crate::trees::bound::Bound;

/// Where the host's storage appears while a stage uses it.
const STORAGE: &str = "/run/osbuild/containers/storage";
/// An empty storage beside it, that takes what would be written to the other one.
const EMPTY_STORAGE: &str = "/run/osbuild/containers/storage2";
/// Where storages keep what does not outlast a boot.
const RUN: &str = "/run/containers/storage";

/// The file of a `dir` image that says what belongs to it.
const MANIFEST: &str = "manifest.json";

/// An image of the input `images`.
#[derive(Debug)]
pub(crate) struct Image {
    /// What it is called where it is put.
    pub(crate) name: String,
    /// The input's name of it: its id, or the name of the archive.
    key: String,
    /// How it comes.
    format: Format,
    /// Where it is.
    path: PathBuf,
    /// The list of images that it was chosen from, to be kept with it.
    manifest_list: Option<PathBuf>,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.key)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    Dir,
    OciArchive,
    Storage { driver: String },
}

/// An image as tools read it, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Source {
    /// What tools call it, such as `dir:/tmp/…`.
    pub(crate) reference: String,
    _directory: Option<TempDir>,
    _bound: Bound,
}

impl Image {
    /// The images of the input `images`, with what the input `manifest-lists` adds to them.
    ///
    /// # Errors
    /// There is no such input, it is malformed, or a list belongs to none of the images.
    pub(crate) fn of_inputs(cx: &StageContext) -> Result<Vec<Self>, Error> {
        let lists = match cx.inputs.get("manifest-lists") {
            Some(input) => Lists::read(input)?,
            None => Lists::default(),
        };
        let mut used = BTreeSet::new();
        let input = cx.input("images")?;
        let archives = input.data.get("archives").and_then(Value::as_object);
        let mut images = Vec::new();
        for (key, data) in archives.into_iter().flatten() {
            let mut image = Self::read(&input.path, key, data)?;
            if image.format == Format::Dir {
                let path = image.path.join(MANIFEST);
                let digest = digest(&outside::read(&path, MAX_DOCUMENT).map_err(Error::io("read", &path))?);
                if let Some(list) = lists.by_manifest.get(&digest) {
                    used.insert(list);
                    image.manifest_list = Some(list.clone());
                }
            }
            images.push(image);
        }
        let unused: Vec<_> =
            lists.all.iter().filter(|list| !used.contains(list)).filter_map(|l| l.file_name()).collect();
        if unused.is_empty() {
            return Ok(images);
        }
        let names: Vec<_> = unused.iter().map(|name| name.to_string_lossy()).collect();
        Err(Error::failed(format!("these manifest lists belong to none of the images: {}", names.join(", "))))
    }

    fn read(directory: &Path, key: &str, data: &Value) -> Result<Self, Error> {
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let missing = |what: &str| Error::failed(format!("the image {key} has no {what}"));
        let (format, path) = match text("format").ok_or_else(|| missing("format"))? {
            "dir" => (Format::Dir, directory.join(key)),
            "oci-archive" => (Format::OciArchive, directory.join(key)),
            "containers-storage" => {
                let driver = data.pointer("/storage/driver").and_then(Value::as_str).unwrap_or("overlay").to_owned();
                (Format::Storage { driver }, directory.join("storage"))
            }
            other => return Err(Error::failed(format!("the image {key} has the format {other}, which is not known"))),
        };
        let name = text("name").ok_or_else(|| missing("name"))?.to_owned();
        Ok(Self { name, key: key.to_owned(), format, path, manifest_list: None })
    }

    /// Makes it readable for tools. `:` and the like mean something to them, so they get it by a plain name.
    ///
    /// # Errors
    /// A directory cannot be made, or the host's storage not be shown.
    pub(crate) fn open(&self) -> Result<Source, Error> {
        let prefix = match &self.format {
            Format::Dir => "dir",
            Format::OciArchive => "oci-archive",
            Format::Storage { driver } => return self.open_storage(driver),
        };
        let directory = tempfile::tempdir().map_err(Error::io("create a directory in", std::env::temp_dir()))?;
        let place = directory.path().join("image");
        match &self.manifest_list {
            Some(list) => with_list(&self.path, list, &place)?,
            None => symlink(&self.path, &place).map_err(Error::io("create the link", &place))?,
        }
        let reference = format!("{prefix}:{}", place.display());
        Ok(Source { reference, _directory: Some(directory), _bound: Bound::default() })
    }

    fn open_storage(&self, driver: &str) -> Result<Source, Error> {
        fs::create_dir_all(STORAGE).map_err(Error::io("create the directory", STORAGE))?;
        let mut bound = Bound::default();
        bound.show(&Tree::open(&self.path)?, "/", &Tree::open("/")?, STORAGE, Access::Writable)?;
        let id = self.key.split_once(':').map_or(self.key.as_str(), |(_, hex)| hex);
        // Only this driver takes a second storage, and the host's may be where nothing can be laid over.
        let storage = match driver {
            "overlay" => format!("{driver}@{EMPTY_STORAGE}+{RUN}:additionalimagestore={STORAGE}"),
            _ => format!("{driver}@{STORAGE}+{RUN}"),
        };
        Ok(Source { reference: format!("containers-storage:[{storage}]{id}"), _directory: None, _bound: bound })
    }
}

/// Lists of images.
#[derive(Debug, Default)]
struct Lists {
    all: Vec<PathBuf>,
    /// The list that has the image with this digest of its manifest.
    by_manifest: BTreeMap<String, PathBuf>,
}

impl Lists {
    fn read(input: &MappedInput) -> Result<Self, Error> {
        let mut lists = Self::default();
        let files = input.data.get("files").and_then(Value::as_object);
        for name in files.into_iter().flat_map(Map::keys) {
            let path = input.path.join(name);
            let text = outside::read(&path, MAX_DOCUMENT).map_err(Error::io("read", &path))?;
            let list: Value = serde_json::from_slice(&text)
                .map_err(|error| Error::failed(format!("the manifest list {name} is no JSON: {error}")))?;
            let manifests = list.get("manifests").and_then(Value::as_array);
            let manifests = manifests.ok_or_else(|| Error::failed(format!("{name} is no manifest list")))?;
            for digest in manifests.iter().filter_map(|manifest| manifest.get("digest")?.as_str()) {
                lists.by_manifest.insert(digest.to_owned(), path.clone());
            }
            lists.all.push(path);
        }
        Ok(lists)
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex = osbc_ir::hex(&Sha256::digest(bytes));
    format!("sha256:{hex}")
}

/// Makes a `dir` image of another one, with the list in place of its manifest, which gets the name of its digest.
fn with_list(image: &Path, list: &Path, place: &Path) -> Result<(), Error> {
    let link = |from: &Path, name: &str| {
        let path = place.join(name);
        symlink(from, &path).map_err(Error::io("create the link", path))
    };
    fs::create_dir(place).map_err(Error::io("create the directory", place))?;
    for entry in fs::read_dir(image).map_err(Error::io("list", image))? {
        let path = entry.map_err(Error::io("list", image))?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| *name != MANIFEST) {
            link(&path, name)?;
        }
    }
    let manifest = image.join(MANIFEST);
    let digest = digest(&outside::read(&manifest, MAX_DOCUMENT).map_err(Error::io("read", &manifest))?);
    link(&manifest, &format!("{}.{MANIFEST}", digest.trim_start_matches("sha256:")))?;
    link(list, MANIFEST)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    /// The names of the images and what tools see of them.
    fn images(case: Case) -> Result<Vec<(String, String)>, String> {
        let images = Image::of_inputs(case.context()).map_err(|error| error.to_string())?;
        let look = |image: &Image| {
            let source = image.open().unwrap();
            let (_, path) = source.reference.split_once(':').unwrap();
            let mut names: Vec<String> = match fs::read_dir(path) {
                Ok(entries) => entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
                Err(_) => vec![fs::read_to_string(path).unwrap()],
            };
            names.sort();
            (image.name.clone(), names.join(" "))
        };
        Ok(images.iter().map(look).collect())
    }

    fn case(archives: Value) -> Case {
        let module = crate::builtin::find(Kind::Stage, "org.osbuild.skopeo").unwrap().def;
        Case::new(module).input("images", json!({ "archives": archives }), |tree| {
            tree.create_dir("sha256:1", 0o755).unwrap();
            tree.write("sha256:1/manifest.json", "{}").unwrap();
            tree.write("sha256:1/blob", "").unwrap();
            tree.write("image.oci", "archive").unwrap();
        })
    }

    const OF_EMPTY: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn directories_and_archives_are_opened_by_plain_names() {
        let found = images(case(json!({
            "sha256:1": {"format": "dir", "name": "a"},
            "image.oci": {"format": "oci-archive", "name": "b"},
        })));
        let expected = [("a".to_owned(), "blob manifest.json".to_owned()), ("b".to_owned(), "archive".to_owned())];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_list_takes_the_place_of_the_manifest_that_it_names() {
        let list = |digest: &str| json!({"manifests": [{"digest": digest}]}).to_string();
        let with = |digest: &str| {
            let text = list(digest);
            let case = case(json!({"sha256:1": {"format": "dir", "name": "a"}}));
            case.input("manifest-lists", json!({"files": {"list": {}}}), |tree| tree.write("list", text).unwrap())
        };
        let found = images(with(&format!("sha256:{OF_EMPTY}"))).unwrap();
        assert_eq!(found, [("a".to_owned(), format!("{OF_EMPTY}.manifest.json blob manifest.json"))]);
        let refused = images(with("sha256:other")).unwrap_err();
        assert_eq!(refused, "these manifest lists belong to none of the images: list");
    }

    #[test]
    fn images_that_cannot_be_read_are_refused_by_name() {
        let refused = |image: Value| images(case(json!({ "x": image }))).unwrap_err();
        assert_eq!(refused(json!({"format": "dir"})), "the image x has no name");
        assert_eq!(refused(json!({"name": "a"})), "the image x has no format");
        assert!(refused(json!({"name": "a", "format": "docker"})).contains("format docker, which is not known"));
    }
}
