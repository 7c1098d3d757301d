//! A program in the form in which the kernel takes it, so that it can be started without allocating anything.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A program with its arguments and its environment.
#[derive(Debug)]
pub(super) struct Image {
    path: CString,
    arguments: Words,
    environment: Words,
}

impl Image {
    /// Takes a program, what it is called as, its other arguments, and its environment, which is that of this process
    /// unless given.
    ///
    /// # Errors
    /// A text has a NUL, which the kernel cannot pass on.
    pub(super) fn new(
        path: &Path,
        name: &str,
        arguments: &[OsString],
        environment: Option<&[(String, String)]>,
    ) -> io::Result<Self> {
        let words = std::iter::once(OsStr::new(name)).chain(arguments.iter().map(OsString::as_os_str));
        let arguments = Words::new(words.map(|word| word.as_bytes().to_vec()))?;
        let variable = |name: &[u8], value: &[u8]| [name, b"=", value].concat();
        let environment = match environment {
            Some(given) => Words::new(given.iter().map(|(name, value)| variable(name.as_bytes(), value.as_bytes())))?,
            None => Words::new(std::env::vars_os().map(|(name, value)| variable(name.as_bytes(), value.as_bytes())))?,
        };
        Ok(Self { path: CString::new(path.as_os_str().as_bytes())?, arguments, environment })
    }

    /// Becomes the program, and returns only if that fails. Unlike the C library's functions it starts nothing else then.
    pub(super) fn start(&self) -> io::Error {
        let (arguments, environment) = (self.arguments.pointers.as_ptr(), self.environment.pointers.as_ptr());
        #[expect(unsafe_code, reason = "no dependency starts a program without allocating")]
        // SAFETY: the strings and the arrays of them end as the call expects, and live as long as this does.
        unsafe {
            libc::execve(self.path.as_ptr(), arguments, environment)
        };
        io::Error::last_os_error()
    }
}

/// Strings, and where they lie.
#[derive(Debug)]
struct Words {
    /// Where each of `_owned` lies, and null behind the last.
    pointers: Vec<*const libc::c_char>,
    _owned: Vec<CString>,
}

#[expect(unsafe_code, reason = "pointers are sent where what they lead to is")]
// SAFETY: the strings belong to the same value, are never changed, and lie where they do wherever the value is.
unsafe impl Send for Words {}

#[expect(unsafe_code, reason = "pointers are shared where what they lead to is")]
// SAFETY: nothing is ever written by them.
unsafe impl Sync for Words {}

impl Words {
    fn new(words: impl Iterator<Item = Vec<u8>>) -> io::Result<Self> {
        let owned = words.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _owned: owned })
    }
}
