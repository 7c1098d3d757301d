//! All environment variables that osbc reads. No other file reads the environment.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use osbc_engine::Environment;

/// The name of osbuild's program, which is also the command of drop-in mode.
pub(crate) const DROP_IN: &str = "osbuild";

/// The variables that sources know: osbuild's own, and those of every HTTP client.
const SOURCE_VARIABLES: [&str; 18] = [
    "OSBUILD_SOURCES_CURL_PROXY",
    "OSBUILD_SOURCES_CURL_SSL_CLIENT_KEY",
    "OSBUILD_SOURCES_CURL_SSL_CLIENT_CERT",
    "OSBUILD_SOURCES_CURL_SSL_CA_CERT",
    "OSBUILD_SOURCES_OSTREE_PROXY",
    "OSBUILD_SOURCES_OSTREE_SSL_CLIENT_KEY",
    "OSBUILD_SOURCES_OSTREE_SSL_CLIENT_CERT",
    "OSBUILD_SOURCES_OSTREE_SSL_CA_CERT",
    "OSBUILD_SOURCES_OSTREE_INSECURE",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "HTTP_PROXY",
];

/// The command line, program first; what is no UTF-8 replaced.
pub(crate) fn arguments() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// The jobserver of a `make` that this process runs under, by `MAKEFLAGS`.
pub(crate) fn jobserver() -> Option<jobserver::Client> {
    #[expect(unsafe_code, reason = "the descriptors that make passes on are known by number only")]
    // SAFETY: what they are is checked, and this is called before this process opens descriptors of such numbers: those
    // were taken when it started.
    unsafe {
        jobserver::Client::from_env_ext(true).client.ok()
    }
}

/// Returns osbuild's arguments if this process is in drop-in mode: called by the name `osbuild`, or as `osbc osbuild`.
pub(crate) fn osbuild_arguments() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    let rest: Vec<OsString> = arguments.collect();
    if Path::new(&program).file_name() == Some(OsStr::new(DROP_IN)) {
        return Some(rest);
    }
    let (first, rest) = rest.split_first()?;
    (first == DROP_IN).then(|| rest.to_vec())
}

/// Returns how many stages run at the same time in drop-in mode; `None` if the variable is not set.
///
/// # Errors
/// It is no number from one on.
pub(crate) fn jobs() -> Result<Option<NonZeroUsize>, String> {
    let number = |text: String| {
        let reason = format!("OSBC_JOBS is `{text}`; give the number of stages to run at the same time, from 1 on");
        text.parse().map_err(|_| reason)
    };
    variable("OSBC_JOBS").map(number).transpose()
}

/// In drop-in mode, whether every stage's result is kept, not only checkpoints.
pub(crate) fn auto_cache() -> bool {
    variable("OSBC_AUTO_CACHE").as_deref() == Some("1")
}

/// In drop-in mode, the file that a trace of the build is written to.
pub(crate) fn trace() -> Option<PathBuf> {
    variable("OSBC_TRACE").map(PathBuf::from)
}

/// In drop-in mode, whether built-in modules come before those of the module directory.
pub(crate) fn native_first() -> bool {
    variable("OSBC_NATIVE").as_deref() == Some("1")
}

/// In drop-in mode, whether what is exported belongs to whoever runs it.
pub(crate) fn drops_owners() -> bool {
    variable("OSBUILD_EXPORT_FORCE_NO_PRESERVE_OWNER").as_deref() == Some("1")
}

/// What stages and sources may know of the environment.
pub(crate) fn environment() -> Environment {
    let text = |text: OsString| text.into_string().ok();
    Environment {
        sources: SOURCE_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?))).collect(),
        // Without variables that are no UTF-8.
        host: std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect(),
        terminal: variable("TERM").unwrap_or_else(|| "dumb".to_owned()),
    }
}

/// Where Python looks for packages before it does in the system's directories.
pub(crate) fn python_path() -> Vec<PathBuf> {
    let directories = variable("PYTHONPATH").unwrap_or_default();
    std::env::split_paths(&directories).filter(|directory| directory.is_absolute()).collect()
}

/// Where the user's caches lie: `$XDG_CACHE_HOME`, else `$HOME/.cache`.
pub(crate) fn cache_home() -> Option<PathBuf> {
    variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
