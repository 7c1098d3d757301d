//! Modules on disk: a directory in osbuild's layout (`stages/`, `sources/`, …, `runners/`) as a library.
//!
//! Only what is asked for is read, and nothing is run.
//!
//! A module is described by `NAME.meta.json` beside it, or by literals in its own Python source.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

use osbc_module_api::{Kind, Library, LibraryError, Module, OnDisk, Provider, Revision, Value, outside};

use crate::builtin::{self, describe_runner};
use crate::trees::runners::preparation;

mod meta;
mod python;

/// What the metadata of a module is called behind its name.
const META: &str = ".meta.json";

/// The largest description, source or library file that is read, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// The directory of the library that on-disk modules import.
const PACKAGE: &str = "osbuild";

/// Where a system's Python looks for packages: `python3*/{dist,site}-packages` below these.
const PYTHON: [&str; 3] = ["/usr/local/lib", "/usr/lib", "/usr/lib64"];

/// What a module says about itself.
#[derive(Debug, Default, PartialEq)]
struct Metadata {
    summary: String,
    description: String,
    schema: Option<Value>,
    schema_2: Option<Value>,
    capabilities: Vec<String>,
}

/// A directory of modules.
#[derive(Debug)]
pub struct OnDiskLibrary {
    root: PathBuf,
    /// Where else Python looks for packages, before the system's directories.
    python_path: Vec<PathBuf>,
    /// The library that its modules import.
    package: OnceLock<Result<Package, LibraryError>>,
}

/// The Python library that modules import.
#[derive(Debug, Clone)]
struct Package {
    /// None where there is none: modules that speak the protocol themselves need none.
    directory: Option<PathBuf>,
    digest: blake3::Hash,
}

impl OnDiskLibrary {
    /// The modules below `root`, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), python_path: Vec::new(), package: OnceLock::new() }
    }

    /// The same, with directories that Python looks for packages in before it does in the system's: `PYTHONPATH`.
    #[must_use]
    pub fn with_python_path(self, directories: Vec<PathBuf>) -> Self {
        Self { python_path: directories, ..self }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The library that the modules import: the directory's own, or where that one is empty the system's.
    fn package(&self) -> Result<Package, LibraryError> {
        let find = || {
            let own = self.root.join(PACKAGE);
            let is_own = fs::read_dir(&own).is_ok_and(|mut entries| entries.next().is_some());
            let on_path =
                || self.python_path.iter().map(|directory| directory.join(PACKAGE)).find(|package| is_package(package));
            let directory = if is_own { Some(own) } else { on_path().or_else(|| installed(&PYTHON.map(Path::new))) };
            let digest = directory.as_deref().map_or_else(|| Ok(blake3::hash(b"")), package_digest)?;
            Ok(Package { directory, digest })
        };
        self.package.get_or_init(find).clone()
    }

    /// Which code: the module's file, and the library that it imports.
    fn revision(&self, file: &Path) -> Result<Revision, LibraryError> {
        let mut hasher = blake3::Hasher::new();
        File::open(file).and_then(|file| hasher.update_reader(file).map(drop)).map_err(unreadable(file))?;
        hasher.update(self.package()?.digest.as_bytes());
        Ok(Revision::Digest(hasher.finalize().into()))
    }
}

impl Library for OnDiskLibrary {
    fn label(&self) -> String {
        self.root.display().to_string()
    }

    fn module(&self, kind: Kind, name: &str) -> Result<Option<Module>, LibraryError> {
        if name.is_empty() || name.starts_with('.') || name.ends_with(META) || name.contains(['/', '\0']) {
            return Ok(None);
        }
        let file = self.root.join(kind.directory()).join(name);
        let meta = file.with_file_name(format!("{name}{META}"));
        let metadata = match (kind, outside::read(&meta, MAX_TEXT)) {
            (Kind::Runner, _) if !file.is_file() => return Ok(None),
            // osbuild's own are built in too, and then done once for a build root instead of once a stage.
            (Kind::Runner, _) => match String::from_utf8(read(&file)?) {
                Ok(text) if preparation::is_built_in(name, &text) => {
                    return Ok(preparation::definition(name).map(describe_runner));
                }
                _ => Metadata::default(),
            },
            (_, Ok(text)) if file.is_file() => meta::read(&text).map_err(malformed(&meta))?,
            (_, Ok(_)) => return Err(malformed(&meta)("describes a module that is not beside it".to_owned())),
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                if !file.is_file() {
                    return Ok(None);
                }
                let source =
                    String::from_utf8(read(&file)?).map_err(|_| malformed(&file)("is not UTF-8".to_owned()))?;
                python::read(&source).map_err(malformed(&file))?
            }
            (_, Err(error)) => return Err(unreadable(&meta)(error)),
        };
        // Nobody says what an on-disk module calls, but devices are devices, and content is where others look for it.
        let namesake = builtin::find(kind, name).map(|row| row.def);
        let requires = namesake.map_or(&[][..], |def| def.requires).iter().filter(|need| need.is_of_kernel());
        let content_type = match (kind, namesake) {
            (Kind::Source, Some(def)) => builtin::content_type(def),
            (Kind::Source, None) => name,
            _ => "",
        };
        Ok(Some(Module {
            kind,
            requires: requires.copied().collect(),
            content_type: content_type.to_owned(),
            name: name.to_owned(),
            revision: self.revision(&file)?,
            summary: metadata.summary,
            description: metadata.description,
            schema: metadata.schema,
            schema_2: metadata.schema_2,
            capabilities: metadata.capabilities,
            provider: Provider::OnDisk(OnDisk { file, libdir: self.root.clone(), package: self.package()?.directory }),
        }))
    }

    fn names(&self, kind: Kind) -> Result<Vec<String>, LibraryError> {
        let directory = self.root.join(kind.directory());
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&directory)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable(&directory))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.') && !name.ends_with(META) && entry.path().is_file() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn is_package(directory: &Path) -> bool {
    directory.join("__init__.py").is_file()
}

/// The package of a system, by the directories that its Python has its libraries in; of several the newest Python's.
fn installed(roots: &[&Path]) -> Option<PathBuf> {
    for root in roots {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let mut pythons: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
            .map(|entry| entry.path())
            .collect();
        // 3.9 before 3.11.
        pythons.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        for python in pythons.iter().rev() {
            let packages = ["site-packages", "dist-packages"].map(|directory| python.join(directory).join(PACKAGE));
            if let Some(found) = packages.into_iter().find(|package| is_package(package)) {
                return Some(found);
            }
        }
    }
    None
}

/// A digest over the Python files of a package, by name.
fn package_digest(package: &Path) -> Result<blake3::Hash, LibraryError> {
    let mut files = Vec::new();
    let mut directories = vec![package.to_owned()];
    // Links may lead back.
    let mut seen = HashSet::new();
    while let Some(directory) = directories.pop() {
        if fs::metadata(&directory).is_ok_and(|metadata| !seen.insert((metadata.dev(), metadata.ino()))) {
            continue;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(&directory)(error)),
        };
        for entry in entries {
            let path = entry.map_err(unreadable(&directory))?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "py") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for file in files {
        let name = file.strip_prefix(package).unwrap_or(&file);
        part(name.as_os_str().as_encoded_bytes());
        part(&read(&file)?);
    }
    Ok(hasher.finalize())
}

fn read(path: &Path) -> Result<Vec<u8>, LibraryError> {
    outside::read(path, MAX_TEXT).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> LibraryError {
    let path = path.to_owned();
    move |error| LibraryError::Unreadable { path: path.clone(), reason: error.to_string() }
}

fn malformed(path: &Path) -> impl Fn(String) -> LibraryError {
    let path = path.to_owned();
    move |reason| LibraryError::Malformed { path: path.clone(), reason }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn libdir(files: &[(&str, &str)]) -> (tempfile::TempDir, OnDiskLibrary) {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        let library = OnDiskLibrary::new(root.path());
        (root, library)
    }

    fn revision(library: &OnDiskLibrary) -> Revision {
        library.module(Kind::Stage, "org.example.a").expect("fine").expect("there").revision
    }

    #[test]
    fn of_what_a_built_in_namesake_needs_the_kernels_part_holds_too() {
        let meta = r#"{"summary": "A", "description": ["b"], "schema_2": {"options": {}}}"#;
        let names = [
            "devices/org.osbuild.loopback",
            "stages/org.osbuild.mkfs.ext4",
            "sources/org.osbuild.curl",
            "sources/a.b.c",
        ];
        let files = names.map(|name| [(name.to_owned(), "#!/bin/sh\n"), (format!("{name}.meta.json"), meta)]);
        let files: Vec<(&str, &str)> = files.iter().flatten().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_root, library) = libdir(&files);
        let module = |kind, name| library.module(kind, name).unwrap().unwrap();
        assert_eq!(module(Kind::Device, "org.osbuild.loopback").loop_devices(&json!({})), 1);
        assert!(module(Kind::Stage, "org.osbuild.mkfs.ext4").requires.is_empty(), "nobody says what it calls");
        assert_eq!(module(Kind::Source, "org.osbuild.curl").content_type, "org.osbuild.files");
        assert_eq!(module(Kind::Source, "a.b.c").content_type, "a.b.c");
    }

    #[test]
    fn metadata_beside_a_module_describes_it() {
        let meta = r#"{"summary": "A", "description": ["b", "c"], "capabilities": ["CAP_MKNOD"], "schema_2": {"options": {}}}"#;
        let (_root, library) = libdir(&[
            ("stages/org.example.a", "#!/bin/sh\n"),
            ("stages/org.example.a.meta.json", meta),
            ("stages/b", ""),
        ]);
        let module = library.module(Kind::Stage, "org.example.a").expect("fine").expect("there");
        assert_eq!((module.summary.as_str(), module.description.as_str()), ("A", "b\nc"));
        assert_eq!((module.schema, module.schema_2), (None, Some(json!({"options": {}}))));
        assert_eq!(module.capabilities, ["CAP_MKNOD"]);
        assert_eq!(library.names(Kind::Stage).expect("a directory"), ["b", "org.example.a"]);
    }

    #[test]
    fn what_is_not_there_is_none_and_what_is_broken_an_error() {
        let (_root, library) = libdir(&[
            ("stages/a", ""),
            ("stages/a.meta.json", "{"),
            ("stages/b", ""),
            ("stages/b.meta.json", r#"{"summary": 1, "description": [], "schema": {}}"#),
            ("stages/c.meta.json", r#"{"summary": "", "description": [], "schema": {}}"#),
            ("stages/d", "SCHEMA = \"\"\"\n\"a\": [\n\"\"\"\n"),
        ]);
        for name in ["", "none", "../stages/a", "a.meta.json", "..", "\0"] {
            assert!(library.module(Kind::Stage, name).expect(name).is_none(), "{name}");
        }
        assert!(library.module(Kind::Device, "a").expect("no directory").is_none());
        assert_eq!(library.names(Kind::Device).expect("no directory"), Vec::<String>::new());
        for name in ["a", "b", "c", "d"] {
            let error = library.module(Kind::Stage, name).expect_err(name);
            assert!(matches!(error, LibraryError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn the_revision_is_the_code_and_the_library_that_it_imports() {
        let files = [("stages/org.example.a", "pass"), ("osbuild/__init__.py", "x = 1"), ("osbuild/util/a.py", "")];
        let (_same, library) = libdir(&files);
        let (_root, other) = libdir(&files);
        assert_eq!(revision(&library), revision(&other));
        for (index, text) in [(0, "pass "), (1, "x = 2"), (2, "y")] {
            let mut files = files;
            files[index].1 = text;
            let (_root, other) = libdir(&files);
            assert_ne!(revision(&library), revision(&other), "{text}");
        }
    }

    #[test]
    fn links_that_lead_back_are_followed_once() {
        let (root, library) =
            libdir(&[("stages/org.example.a", ""), ("osbuild/__init__.py", ""), ("osbuild/u/a.py", "")]);
        for name in ["osbuild/u/one", "osbuild/u/other"] {
            std::os::unix::fs::symlink("..", root.path().join(name)).expect("a link");
        }
        revision(&library);
    }

    #[test]
    fn what_is_no_file_describes_nothing() {
        let (root, library) = libdir(&[("stages/a", ""), ("stages/b", "")]);
        std::os::unix::fs::symlink("/dev/zero", root.path().join("stages/a.meta.json")).expect("a link");
        let error = library.module(Kind::Stage, "a").expect_err("a device").to_string();
        assert!(error.ends_with("a.meta.json: it is no regular file"), "{error}");
        File::create(root.path().join("stages/b")).and_then(|file| file.set_len(MAX_TEXT + 1)).expect("a file");
        let error = library.module(Kind::Stage, "b").expect_err("too large").to_string();
        assert!(error.contains("more than 67108864 are not read"), "{error}");
    }

    #[test]
    fn the_library_is_the_directory_s_own_or_the_system_s() {
        let (root, library) = libdir(&[("stages/a", "SCHEMA = ''"), ("osbuild/__init__.py", "")]);
        let module = library.module(Kind::Stage, "a").expect("fine").expect("there");
        let Provider::OnDisk(on_disk) = module.provider else { panic!("{:?}", module.provider) };
        assert_eq!(on_disk.package, Some(root.path().join("osbuild")));
        assert_eq!((on_disk.libdir, on_disk.file), (root.path().to_owned(), root.path().join("stages/a")));

        let (root, library) = libdir(&[("stages/a", "SCHEMA = ''"), ("path/osbuild/__init__.py", "")]);
        let library = library.with_python_path(vec![root.path().join("none"), root.path().join("path")]);
        let package = library.package().expect("readable").directory;
        assert_eq!(package, Some(root.path().join("path/osbuild")));

        let (root, _) = libdir(&[
            ("lib/python3/dist-packages/osbuild/__init__.py", ""),
            ("lib/python3.9/site-packages/osbuild/__init__.py", ""),
            ("lib/python3.11/site-packages/osbuild/__init__.py", ""),
            ("lib/python3.13/site-packages/osbuild/meta.py", ""),
            ("lib64/python2/site-packages/osbuild/__init__.py", ""),
        ]);
        let roots = |names: &[&str]| names.iter().map(|name| root.path().join(name)).collect::<Vec<_>>();
        let found = |names: &[&str]| {
            let roots = roots(names);
            installed(&roots.iter().map(PathBuf::as_path).collect::<Vec<_>>())
        };
        let newest = root.path().join("lib/python3.11/site-packages/osbuild");
        assert_eq!(found(&["none", "lib64", "lib"]), Some(newest));
        assert_eq!(found(&["none", "lib64"]), None);
    }

    #[test]
    fn runners_are_found_by_file_name() {
        let (_root, library) = libdir(&[("runners/org.osbuild.linux", "#!/bin/sh\n")]);
        assert_eq!(library.names(Kind::Runner).expect("a directory"), ["org.osbuild.linux"]);
        assert!(library.module(Kind::Runner, "org.osbuild.linux").expect("fine").is_some());
        assert!(library.module(Kind::Runner, "org.osbuild.arch").expect("fine").is_none());
    }
}
