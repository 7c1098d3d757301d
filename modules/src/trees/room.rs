//! What does not fit: how much something takes, how much room there is, and how much is missing.

use osbc_ir::size;
use osbc_module_api::*;
use rustix::io::Errno;

/// What something takes and what there is for it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// What it takes.
    pub(crate) need: u64,
    /// What there is.
    pub(crate) have: u64,
}

impl Room {
    /// Returns how much is missing, for people, and what to do; `None` if it fits.
    pub(crate) fn lacking(self) -> Option<String> {
        let missing = self.need.checked_sub(self.have).filter(|missing| *missing > 0)?;
        let (need, have, missing) = (size(self.need), size(self.have), size(missing));
        Some(format!(
            "what it is to hold takes {need}, and it has room for {have}: at least {missing} are missing; raise its `size`"
        ))
    }

    /// What the files at `location` take, and all that the file system of `to` has room for.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn of_copy(from: &Location, to: &Tree) -> Result<Self, Error> {
        let place = to.path_for_tools("/")?;
        let stat = rustix::fs::statvfs(&place).map_err(|error: Errno| Error::io("inspect", &place)(error))?;
        Ok(Self { need: allocated(&from.tree, &from.path)?, have: stat.f_blocks.saturating_mul(stat.f_frsize) })
    }
}

/// How many bytes are allocated for a file or all below a directory.
fn allocated(tree: &Tree, path: &std::path::Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    tree.walk(path, |_, metadata| {
        bytes += metadata.blocks() * 512;
        Ok(())
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_reported_in_numbers() {
        assert_eq!(Room { need: 5, have: 5 }.lacking(), None);
        let said = Room { need: 3 << 20, have: 3 << 19 }.lacking().unwrap();
        assert_eq!(
            said,
            "what it is to hold takes 3.0 MiB, and it has room for 1.5 MiB: at least 1.5 MiB are missing; raise its `size`"
        );
    }
}
