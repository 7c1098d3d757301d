//! Directories that are shown elsewhere while a stage works: bind mounts in its own mount namespace, taken away at the
//! end.

use std::path::PathBuf;

use osbc_module_api::{Error, Tree};
use rustix::fs::OFlags;
use rustix::mount::{UnmountFlags, unmount};

use crate::trees::bind::{Access, bind};

/// Mounts that end when this is dropped, the last one first.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    places: Vec<PathBuf>,
}

impl Bound {
    /// Shows a directory, with all that is mounted below it, at another one; both must be there.
    ///
    /// # Errors
    /// One is not there, or the kernel refuses.
    pub(crate) fn bind(&mut self, from: &Tree, source: &str, to: &Tree, target: &str) -> Result<(), Error> {
        self.show(from, source, to, target, Access::AsIs)
    }

    /// Shows the sandbox's own devices, processes and system in a tree, at directories that are made where there are
    /// none.
    ///
    /// # Errors
    /// A directory cannot be made, or the kernel refuses.
    pub(crate) fn show_kernel(&mut self, tree: &Tree) -> Result<(), Error> {
        let root = Tree::open("/")?;
        ["dev", "sys", "proc"].into_iter().try_for_each(|directory| {
            tree.create_dir_all(directory, 0o777)?;
            self.bind(&root, directory, tree, directory)
        })
    }

    /// The same as [`bind`](Self::bind), with more or less that may be done there.
    ///
    /// # Errors
    /// One is not there, or the kernel refuses.
    pub(crate) fn show(
        &mut self,
        from: &Tree,
        source: &str,
        to: &Tree,
        target: &str,
        access: Access,
    ) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let over = to.open_file(target, flags, 0)?;
        let place = to.path_for_tools(target)?;
        bind(from.open_file(source, flags, 0)?, over, access).map_err(Error::io("bind a directory to", target))?;
        self.places.push(place);
        Ok(())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        while let Some(place) = self.places.pop() {
            // What cannot be taken away here ends with the stage's mount namespace.
            unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use osbc_fixtures::has_root;

    use super::*;
    use crate::trees::bind::in_own_namespace;

    #[test]
    fn root_directories_are_shown_until_the_end() {
        if !has_root() {
            return;
        }
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(one.path().join("a/b")).unwrap();
        fs::create_dir(other.path().join("c")).unwrap();
        in_own_namespace(|| {
            let (from, to) = (Tree::open(one.path()).unwrap(), Tree::open(other.path()).unwrap());
            let mut bound = Bound::default();
            bound.bind(&from, "a", &to, "c").unwrap();
            bound.bind(&from, "a", &from, "a").unwrap();
            fs::write(other.path().join("c/b/file"), "").unwrap();
            assert!(bound.bind(&from, "missing", &to, "c").is_err());
            drop(bound);
            assert!(fs::read_dir(other.path().join("c")).unwrap().next().is_none());
        });
        assert!(one.path().join("a/b/file").exists());
    }
}
