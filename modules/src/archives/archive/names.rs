//! Names of users and groups, as the build root's own `/etc/passwd` and `/etc/group` give them: the names that go into
//! an archive beside the numbers.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use osbc_module_api::{Error, outside};

/// The names that are known by number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Names {
    /// Reads `passwd` and `group` of that directory, `/etc` in general; a file that is not there knows nobody.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        Ok(Self { users: table(&directory.join("passwd"))?, groups: table(&directory.join("group"))? })
    }

    /// The user's name; empty when it has none.
    pub(crate) fn user(&self, id: u32) -> &[u8] {
        self.users.get(&id).map_or(b"", Vec::as_slice)
    }

    /// The group's name; empty when it has none.
    pub(crate) fn group(&self, id: u32) -> &[u8] {
        self.groups.get(&id).map_or(b"", Vec::as_slice)
    }
}

/// Name and number of each line; the first line of a number counts.
fn table(path: &Path) -> Result<HashMap<u32, Vec<u8>>, Error> {
    let text = match outside::read(path, outside::WHOLE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        text => text.map_err(Error::io("read", path))?,
    };
    let mut names = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else { continue };
        if let Some(id) = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()) {
            names.entry(id).or_insert_with(|| name.to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts() {
        let etc = tempfile::tempdir().expect("a directory");
        fs::write(etc.path().join("passwd"), "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\nbad line\nann:x:1000:10::/:\n")
            .expect("a file");
        let names = Names::read(etc.path()).expect("it is read");
        assert_eq!((names.user(0), names.user(1000), names.user(7)), (&b"root"[..], &b"ann"[..], &b""[..]));
        assert_eq!(names.group(0), b"");
        symlink("/dev/zero", etc.path().join("group")).expect("a link");
        assert!(Names::read(etc.path()).unwrap_err().to_string().ends_with("it is no regular file"));
    }
}
