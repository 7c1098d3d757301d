//! Opens files that have to be regular ones, as all are that the store keeps for itself.
//!
//! A named pipe, a device, a directory or a symbolic link in the place of one is an error, and nothing waits for it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// What a new file allows before the umask.
pub(crate) const FOR_ALL: Mode = Mode::from_raw_mode(0o666);
/// What a new file allows that is its owner's alone.
pub const PRIVATE: Mode = Mode::from_raw_mode(0o600);

/// Opens the file at `path`; `mode` is that of a new one.
///
/// # Errors
/// It cannot be opened, or is not a regular file.
pub fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags, mode) {
        Ok(file) => file,
        // A pipe that nobody reads, a socket, a link, a directory.
        Err(Errno::NXIO | Errno::LOOP | Errno::ISDIR) => {
            let stat = rustix::fs::lstat(path)?;
            return Err(not_regular(FileType::from_raw_mode(stat.st_mode)));
        }
        Err(error) => return Err(error.into()),
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        other => Err(not_regular(other)),
    }
}

/// Returns the content of the file at `path`.
///
/// # Errors
/// It cannot be read, or is not a regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open(path, OFlags::RDONLY, FOR_ALL)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// Returns the content of the file at `path` as text.
///
/// # Errors
/// It cannot be read, is not a regular file, or is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Makes `content` that of the file at `path`, which need not be there.
///
/// # Errors
/// It cannot be written to, or is not a regular file.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    open(path, flags, FOR_ALL)?.write_all(content.as_ref())
}

fn not_regular(kind: FileType) -> io::Error {
    let kind = match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    };
    let reason = format!("it is {kind} and should be a file; put an empty file in its place");
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_waits() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        rustix::fs::mkfifoat(CWD, path("fifo"), PRIVATE).expect("makes");
        symlink("file", path("link")).expect("makes");
        std::fs::create_dir(path("directory")).expect("makes");
        let _socket = UnixListener::bind(path("socket")).expect("makes");
        std::fs::write(path("file"), "old").expect("writes");
        for (name, kind) in [
            ("fifo", "a named pipe"),
            ("link", "a symbolic link"),
            ("directory", "a directory"),
            ("socket", "a socket"),
        ] {
            for error in [read(&path(name)).unwrap_err(), write(&path(name), "new").unwrap_err()] {
                assert!(
                    error.to_string().starts_with(&format!("it is {kind} and should be a file")),
                    "{name}: {error}"
                );
            }
        }
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().starts_with("it is a device"));
        assert_eq!(read_to_string(&path("file")).expect("reads"), "old");
        write(&path("file"), "new").expect("writes");
        assert_eq!(read(&path("file")).expect("reads"), b"new");
        assert_eq!(read(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
