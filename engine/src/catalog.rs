//! The libraries of modules (osbc's own, and those of directories) and the runner that fits this host.

use std::path::{Path, PathBuf};

use osbc_ir::{Kind, Runner};
use osbc_module_api::{Catalog, Library, LibraryError};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::on_disk::OnDiskLibrary;
use osbc_modules::trees::runners;

use crate::Error;

/// Where a system says what it is, in order of preference (os-release(5)).
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Returns the built-in modules.
pub fn builtin() -> Box<dyn Library> {
    Box::new(BuiltIn)
}

/// Returns the on-disk modules of a directory like osbuild's `/usr/lib/osbuild`.
///
/// `python_path` are the directories in which Python looks for packages before it does in the system's.
///
/// # Errors
/// [`Error::NoModuleDirectory`] if there is no such directory, [`Error::Io`] if it cannot be found.
pub fn directory(path: &Path, python_path: Vec<PathBuf>) -> Result<Box<dyn Library>, Error> {
    if !path.is_dir() {
        return Err(Error::NoModuleDirectory(path.to_owned()));
    }
    let absolute = std::path::absolute(path).map_err(|source| Error::Io {
        act: "find the module directory",
        path: path.to_owned(),
        source,
    })?;
    Ok(Box::new(OnDiskLibrary::new(absolute).with_python_path(python_path)))
}

/// Returns the runner of pipelines that run in the host's tree.
///
/// # Errors
/// A library of the catalog cannot be read.
pub(crate) fn host_runner(catalog: &Catalog) -> Result<Runner, LibraryError> {
    let names = catalog.names(Kind::Runner)?;
    let os_release = OS_RELEASE.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    Ok(runners::for_host(&os_release, names.iter().map(String::as_str)))
}
