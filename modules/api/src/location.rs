//! Locations in options: `tree:///etc`, `mount://root/boot`, `input://files/…`, or a plain path of the tree.
//!
//! All after the place is the path, `#` and `?` too, which osbuild takes for the marks of a URL and cuts off.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::context::StageContext;
use crate::error::Error;
use crate::tree::Tree;

/// Where the sandbox has the mounts of a stage: the place of `mount:///…`, which names none of them.
pub const MOUNTS: &str = "/run/osbuild/mounts";

/// What a location means.
#[derive(Debug)]
pub struct Location {
    /// The tree, mount or input.
    pub tree: Tree,
    /// The path in there, without `.`, `..` and doubled `/`; where the location ends in `/` it ends in `/.`, by which
    /// [`Copy`](crate::tree::Copy) takes what is in a directory instead of the directory.
    pub path: PathBuf,
    /// The name that a copy gets in a directory where `path` has none: what the tree, mount or input is called, where
    /// the location is the whole of it and not what is in it, such as `input://root/.`.
    pub name: Option<OsString>,
}

impl StageContext {
    /// The place that a location names.
    ///
    /// # Errors
    /// It is malformed, or the stage has no such mount or input.
    pub fn location(&self, location: &str) -> Result<Location, Error> {
        let (scheme, rest) = location.split_once("://").unwrap_or(("tree", location));
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if path.is_empty() {
            return Err(Error::failed(format!("the location `{location}` has no path; a path begins with `/`")));
        }
        let place = match scheme {
            "tree" => None,
            "mount" if name.is_empty() => Some(Path::new(MOUNTS)),
            "mount" => Some(self.mount(name)?.path.as_path()),
            "input" => Some(self.input(name)?.path.as_path()),
            _ => return Err(Error::failed(format!("the location `{location}` is in no tree, mount or input"))),
        };
        let tree = place.map_or_else(|| self.tree.try_clone(), Tree::open)?;
        let path = normalize(path);
        let whole = path.as_os_str() == "/";
        let name = whole.then(|| place.and_then(Path::file_name).unwrap_or(OsStr::new("tree")).to_owned());
        Ok(Location { tree, path, name })
    }
}

/// A path without `.` and `..`, by its letters alone as osbuild does it: `a/link/../b` is `a/b` wherever the link
/// leads.
fn normalize(path: &str) -> PathBuf {
    let mut words = Vec::new();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." => drop(words.pop()),
            word => words.push(word),
        }
    }
    let normal = Path::new("/").join(words.join("/"));
    if path.ends_with('/') { normal.join(".") } else { normal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root_and_keep_the_mark_for_contents() {
        for (path, normal) in [
            ("/etc/x", "/etc/x"),
            ("//etc/./x/../y", "/etc/y"),
            ("/../../etc", "/etc"),
            ("/etc/", "/etc/."),
            ("/", "/."),
            ("/.", "/"),
            ("/etc/..", "/"),
            ("/a#b?c", "/a#b?c"),
        ] {
            assert_eq!(normalize(path).as_os_str(), normal);
        }
    }
}
