//! The tree that the layers of a container image make.
//!
//! Each layer is extracted on its own by `tar` of the build root; then they are laid one over the other as an overlay
//! file system shows them, with what a layer says to hide left out.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use osbc_module_api::tree::Times;
use osbc_module_api::*;

use crate::archives::tarball;
use crate::containers::container_image::Image;
use crate::containers::image_blobs::{Arrangement, Blobs};

/// What the name of a file begins with that hides the file called like the rest.
const HIDES: &[u8] = b".wh.";
/// What hides all that layers below have in a directory.
const HIDES_ALL: &[u8] = b".wh..wh..opq";

/// How `tar` keeps all that a layer has.
const OPTIONS: [&str; 4] = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"];

/// How many indexes may lead from one to the next.
const MAX_INDEXES: usize = 4;

/// The mode of an image's root where no layer says it.
const ROOT_MODE: u32 = 0o555;

/// The layers of an image.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Their files, lowest first.
    files: Vec<PathBuf>,
}

impl Layers {
    /// Those of an image. What must be unpacked or copied for it goes to `workspace`.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn of(cx: &StageContext, image: &Image, workspace: &Path) -> Result<Self, Error> {
        let source = image.open()?;
        let directory = workspace.join("image");
        match source.reference.split_once(':') {
            Some(("dir", place)) => Self::flat(Path::new(place)).map_err(unusable(image)),
            Some(("oci-archive", place)) => {
                fs::create_dir(&directory).map_err(Error::io("create the directory", &directory))?;
                cx.tool("tar")?.args(["-xf", place, "-C"]).arg(&directory).run()?;
                Self::in_layout(&directory).map_err(unusable(image))
            }
            _ => {
                let target = format!("dir:{}", directory.display());
                cx.tool("skopeo")?.args(["copy", &source.reference, &target]).run()?;
                Self::flat(&directory).map_err(unusable(image))
            }
        }
    }

    /// Those of an image in skopeo's `dir` format.
    pub(crate) fn flat(directory: &Path) -> Result<Self, Error> {
        let blobs = Blobs::new(directory, Arrangement::Flat)?;
        Self::of_manifest(&blobs.document("manifest.json")?, &blobs)
    }

    /// Those of an image in the OCI's layout.
    pub(crate) fn in_layout(directory: &Path) -> Result<Self, Error> {
        let blobs = Blobs::new(directory, Arrangement::Layout)?;
        let mut document = blobs.document("index.json")?;
        for _ in 0..=MAX_INDEXES {
            let Some(manifests) = document.get("manifests").and_then(Value::as_array) else {
                return Self::of_manifest(&document, &blobs);
            };
            document = blobs.document_of(choose(manifests)?)?;
        }
        Err(Error::failed(format!("more than {MAX_INDEXES} indexes lie in each other")))
    }

    fn of_manifest(manifest: &Value, blobs: &Blobs) -> Result<Self, Error> {
        let layers = manifest.get("layers").and_then(Value::as_array);
        let layers = layers.ok_or_else(|| Error::failed("its manifest has no layers"))?;
        Ok(Self { files: layers.iter().map(|layer| blobs.blob(layer)).collect::<Result<_, Error>>()? })
    }

    /// Makes the image's tree in a directory of `workspace`, and returns its name in there.
    ///
    /// # Errors
    /// A layer cannot be extracted.
    pub(crate) fn unpack(&self, cx: &StageContext, workspace: &Path) -> Result<PathBuf, Error> {
        let space = Tree::open(workspace)?;
        let mut below: Option<PathBuf> = None;
        for (index, layer) in self.files.iter().enumerate() {
            let name = PathBuf::from(format!("layer-{index}"));
            space.create_dir(&name, 0o755)?;
            let root = below.as_ref().map(|below| space.metadata(below)).transpose()?;
            let mode = root.as_ref().map_or(ROOT_MODE, |root| root.mode() & 0o7777);
            if let Some(root) = root {
                space.chown(&name, Some(root.uid()), Some(root.gid()))?;
            }
            space.chmod(&name, mode)?;
            tarball::extract(cx, layer, &OPTIONS, &workspace.join(&name))?;
            lay_over(&space, &name, below.as_deref())?;
            below = Some(name);
        }
        below.ok_or_else(|| Error::failed("the image has no layers"))
    }
}

/// Names the image that something is wrong with.
fn unusable(image: &Image) -> impl Fn(Error) -> Error {
    move |error| Error::failed(format!("cannot use the image {image}: {error}"))
}

/// The only manifest of an index, or else the one for this machine.
fn choose(manifests: &[Value]) -> Result<&Value, Error> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let fits = |manifest: &&Value| {
        let of = |key: &str| manifest.pointer(&format!("/platform/{key}")).and_then(Value::as_str);
        of("architecture") == Some(architecture) && of("os") == Some("linux")
    };
    match manifests {
        [only] => Ok(only),
        _ => manifests.iter().find(fits).ok_or_else(|| {
            Error::failed(format!("none of the image's {} manifests is for {architecture}", manifests.len()))
        }),
    }
}

/// Moves to the directory `upper` what it does not hide of the directory `lower`, and takes from it the files that
/// hide.
///
/// Names and attributes of `upper` win.
fn lay_over(space: &Tree, upper: &Path, lower: Option<&Path>) -> Result<(), Error> {
    let metadata = space.symlink_metadata(upper)?;
    let (mut own, mut hidden, mut hides_all) = (BTreeSet::new(), BTreeSet::<OsString>::new(), false);
    for name in space.read_dir(upper)? {
        let Some(rest) = name.as_bytes().strip_prefix(HIDES) else {
            own.insert(name);
            continue;
        };
        hides_all |= name.as_bytes() == HIDES_ALL;
        hidden.insert(OsStr::from_bytes(rest).to_owned());
        space.remove_dir_all(upper.join(&name))?;
    }
    let is_directory = |path: &Path| Ok::<_, Error>(space.symlink_metadata(path)?.is_dir());
    let lower = lower.filter(|_| !hides_all);
    let below: BTreeSet<OsString> = match lower {
        Some(lower) => space.read_dir(lower)?.into_iter().filter(|name| !hidden.contains(name)).collect(),
        None => BTreeSet::new(),
    };
    for name in &own {
        let place = upper.join(name);
        if is_directory(&place)? {
            let lower = lower.filter(|_| below.contains(name)).map(|lower| lower.join(name));
            let lower = match lower {
                Some(lower) if is_directory(&lower)? => Some(lower),
                _ => None,
            };
            lay_over(space, &place, lower.as_deref())?;
        }
    }
    if let Some(lower) = lower {
        for name in below.difference(&own) {
            space.rename(lower.join(name), upper.join(name))?;
        }
    }
    let nanoseconds = |value: i64| u32::try_from(value).unwrap_or_default();
    let times = Times {
        accessed: (metadata.atime(), nanoseconds(metadata.atime_nsec())),
        modified: (metadata.mtime(), nanoseconds(metadata.mtime_nsec())),
    };
    space.set_times(upper, times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::registry_image::digest;

    fn space() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        for (path, text) in [
            ("low/a/kept", "low"),
            ("low/a/over", "low"),
            ("low/a/gone", "low"),
            ("low/b/all", "low"),
            ("low/c", "file"),
            ("low/d/x", "low"),
            ("low/only/x", "low"),
            ("up/a/over", "up"),
            ("up/a/.wh.gone", ""),
            ("up/b/.wh..wh..opq", ""),
            ("up/b/new", "up"),
            ("up/c/inner/x", "up"),
            ("up/c/inner/.wh.nothing", ""),
            ("up/.wh.missing", ""),
        ] {
            tree.create_dir_all(Path::new(path).parent().unwrap(), 0o755).unwrap();
            tree.write(path, text).unwrap();
        }
        tree.symlink("a", "up/d").unwrap();
        tree.chmod("up/a", 0o711).unwrap();
        (directory, tree)
    }

    #[test]
    fn layers_lie_over_each_other_as_an_overlay_shows_them() {
        let (_directory, tree) = space();
        let times = Times { accessed: (1, 0), modified: (5, 6) };
        tree.set_times("up/a", times).unwrap();
        lay_over(&tree, Path::new("up"), Some(Path::new("low"))).unwrap();
        let mut all = Vec::new();
        tree.walk("up", |path, _| {
            all.push(path.display().to_string());
            Ok(())
        })
        .unwrap();
        let expected = [
            "up",
            "up/a",
            "up/a/kept",
            "up/a/over",
            "up/b",
            "up/b/new",
            "up/c",
            "up/c/inner",
            "up/c/inner/x",
            "up/d",
            "up/only",
            "up/only/x",
        ];
        assert_eq!(all, expected);
        assert_eq!(tree.read_to_string("up/a/over").unwrap(), "up");
        let metadata = tree.metadata("up/a").unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.mtime(), metadata.mtime_nsec()), (0o711, 5, 6));
    }

    /// Puts a document into a layout and returns its descriptor.
    fn put(layout: &Path, document: &Value) -> Value {
        let text = document.to_string();
        let digest = digest(text.as_bytes());
        fs::write(layout.join("blobs").join(digest.replacen(':', "/", 1)), &text).unwrap();
        json!({"digest": digest, "size": text.len()})
    }

    #[test]
    fn indexes_lie_in_each_other_a_few_deep_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path();
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let layer = put(layout, &json!("a layer"));
        let mut document = json!({ "layers": [layer] });
        for deep in 0..=MAX_INDEXES {
            document = json!({"manifests": [put(layout, &document)]});
            fs::write(layout.join("index.json"), document.to_string()).unwrap();
            let files = Layers::in_layout(layout).map(|layers| layers.files.len()).map_err(|error| error.to_string());
            match deep < MAX_INDEXES {
                true => assert_eq!(files, Ok(1), "{deep}"),
                false => assert_eq!(files, Err("more than 4 indexes lie in each other".to_owned()), "{deep}"),
            }
        }
        fs::write(layout.join("index.json"), r#"{"manifests": []}"#).unwrap();
        assert!(Layers::in_layout(layout).unwrap_err().to_string().starts_with("none of the image's 0 manifests"));
        fs::write(layout.join("index.json"), "{}").unwrap();
        assert_eq!(Layers::in_layout(layout).unwrap_err().to_string(), "its manifest has no layers");
    }

    #[test]
    fn of_many_manifests_the_one_for_this_machine_is_chosen() {
        let one = json!({"digest": "sha256:1"});
        assert_eq!(choose(std::slice::from_ref(&one)).unwrap(), &one);
        let of = |architecture: &str| json!({"platform": {"architecture": architecture, "os": "linux"}});
        let machines = [of("amd64"), of("arm64"), of("ppc64le"), of("s390x"), of("riscv64")];
        assert!(choose(&machines).is_ok());
        assert!(choose(&[of("none"), of("other")]).unwrap_err().to_string().contains("none of the image's 2"));
    }
}
