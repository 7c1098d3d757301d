//! Whether a server gives a file now, for who is about to name it as a source: asked as downloads are, with less
//! patience.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use osbc_module_api::{Error, SourceContext, Value};

use crate::downloads::checksum::Checksum;
use crate::downloads::download::{Access, Downloader, Patience};
use crate::downloads::url::Url;

/// Downloads a small file to `directory` and drops it; `environment` may name proxies, and `interrupted` is asked now
/// and then.
///
/// # Errors
/// The server cannot be reached or will not give the file, or it gives another one.
pub fn ask(
    url: &str,
    checksum: &str,
    directory: &Path,
    interrupted: &(dyn Fn() -> bool + Sync),
    environment: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let (url, expected) = (Url::parse(url)?, Checksum::parse(checksum)?);
    if url.scheme == "file" {
        return File::open(url.path).map(drop).map_err(Error::io("open", Path::new(url.path)));
    }
    let directory = tempfile::tempdir_in(directory).map_err(Error::io("make a directory in", directory))?;
    let context = SourceContext {
        options: &Value::Null,
        target: &directory.path().join("file"),
        shared: directory.path(),
        progress: &|_, _| {},
        interrupted,
        environment,
    };
    let patience = Patience { tries: 2, stall: Duration::from_secs(15), ..Patience::default() };
    Downloader::new(patience).fetch(&context, &url, &Access::default(), &expected)
}
