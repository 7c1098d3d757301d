//! The first file system of a machine, as a cpio archive (`newc`): osbc with the libraries that it has loaded itself,
//! modules, and configuration.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

/// Where the libraries are, for the dynamic linker.
pub(crate) const LIBRARIES: &str = "/libraries";
/// Where the modules are, in the order in which they are loaded.
pub(crate) const MODULES: &str = "/modules";

/// An archive in the making.
pub(crate) struct Archive<W: Write> {
    out: W,
    directories: BTreeSet<PathBuf>,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// One that is written to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self { out, directories: BTreeSet::new(), entries: 0 }
    }

    /// Adds this very program as `/init`.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn add_this_program(&mut self) -> io::Result<()> {
        self.add(Path::new("/init"), &std::fs::read("/proc/self/exe")?)?;
        for library in libraries() {
            let content = std::fs::read(&library)?;
            // The program names the linker by its whole path.
            self.add(&library, &content)?;
            if let Some(name) = library.file_name() {
                self.add(&Path::new(LIBRARIES).join(name), &content)?;
            }
        }
        Ok(())
    }

    /// Adds a file that may be executed, and the directories around it.
    ///
    /// # Errors
    /// Writing fails.
    pub(crate) fn add(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let directories: Vec<&Path> =
            path.ancestors().skip(1).filter(|directory| directory.parent().is_some()).collect();
        for directory in directories.into_iter().rev() {
            if self.directories.insert(directory.to_owned()) {
                self.entry(directory, FileType::Directory, &[])?;
            }
        }
        self.entry(path, FileType::RegularFile, content)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Writing fails.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.entry(Path::new("TRAILER!!!"), FileType::Unknown, &[])?;
        self.out.flush()
    }

    fn entry(&mut self, path: &Path, kind: FileType, content: &[u8]) -> io::Result<()> {
        let name = path.as_os_str().as_bytes();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is too large", path.display()));
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let mode = if kind == FileType::Unknown { 0 } else { kind.as_raw_mode() | 0o755 };
        let length = u32::try_from(name.len() + 1).map_err(too_large)?;
        self.entries += 1;
        self.out.write_all(b"070701")?;
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name)?;
        // The header has 110 bytes; name and content end at multiples of four.
        let pad = |length: usize| &b"\0\0\0"[..length.wrapping_neg() % 4];
        self.out.write_all(b"\0")?;
        self.out.write_all(pad(110 + name.len() + 1))?;
        self.out.write_all(content)?;
        self.out.write_all(pad(content.len()))
    }
}

/// The shared libraries of this process and its dynamic linker, by the names under which it has loaded them.
fn libraries() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    #[expect(unsafe_code, reason = "no dependency lists the libraries of a process")]
    // SAFETY: the callback takes the vector for what it is, and nothing keeps it.
    unsafe {
        libc::dl_iterate_phdr(Some(take_library), (&raw mut found).cast());
    }
    // The program itself has no name, and what the kernel gives every process no path.
    found.retain(|path| path.is_absolute());
    found
}

#[expect(unsafe_code, reason = "what lists the libraries calls back")]
// SAFETY: to be called with a library, whose name is a terminated string for that time, and a vector of paths.
unsafe extern "C" fn take_library(
    library: *mut libc::dl_phdr_info,
    _: libc::size_t,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: by the condition above.
    let (found, name) = unsafe { (&mut *found.cast::<Vec<PathBuf>>(), (*library).dlpi_name) };
    if !name.is_null() {
        // SAFETY: by the condition above.
        let name = unsafe { CStr::from_ptr(name) };
        found.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
    }
    0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use osbc_fixtures::has_tool;

    use super::*;

    #[test]
    fn cpio_reads_the_archive() {
        if !has_tool("cpio") {
            return;
        }
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        for (path, content) in [("/init", &b"program"[..]), ("/a/b/one", b"1"), ("/a/b/two", b"")] {
            archive.add(Path::new(path), content).expect("in memory");
        }
        archive.finish().expect("in memory");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut cpio = Command::new("cpio");
        cpio.args(["--extract", "--verbose", "--quiet"]).current_dir(directory.path());
        let mut cpio = cpio.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cpio starts");
        cpio.stdin.take().expect("is piped").write_all(&bytes).expect("cpio reads");
        let output = cpio.wait_with_output().expect("cpio ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "init\na\na/b\na/b/one\na/b/two\n");
        assert_eq!(std::fs::read(directory.path().join("init")).expect("was written"), b"program");
        assert_eq!(std::fs::read(directory.path().join("a/b/one")).expect("was written"), b"1");
    }

    #[test]
    fn this_program_goes_with_its_linker() {
        let libraries = libraries();
        assert!(libraries.iter().all(|library| library.is_file()), "{libraries:?}");
    }
}
