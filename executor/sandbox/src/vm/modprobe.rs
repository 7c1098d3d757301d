//! What the kernel of a machine calls when it wants a module: osbc by another name, with what the kernel's tree has.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::ExitCode;

use rustix::io::Errno;

use super::kernel::{Kernel, Module};

/// The name by which it is called.
pub const NAME: &str = "osbc-modprobe";

/// The directory, of the guest's own, with the program and what it reads.
const DIRECTORY: &str = "/run/osbc";
const KERNEL: &str = "/run/osbc/kernel";

/// Loads the module that the last of the arguments names, with those that it needs.
pub fn modprobe_main(arguments: &[OsString]) -> ExitCode {
    let name = arguments.last().and_then(|name| name.to_str()).unwrap_or_default();
    // Nobody hears why not: whoever wanted it finds that it is not there.
    match load_by_name(name) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn load_by_name(name: &str) -> io::Result<bool> {
    let kernel: Kernel = serde_json::from_reader(BufReader::new(File::open(KERNEL)?))?;
    let Some(modules) = kernel.modules(name).map_err(io::Error::other)? else { return Ok(false) };
    for Module { image, .. } in modules {
        load(&image)?;
    }
    Ok(true)
}

/// Loads a module unless it is there.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn load(image: &[u8]) -> io::Result<()> {
    match rustix::system::init_module(image, c"") {
        Err(Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

/// Has the kernel of this machine ask osbc for modules.
///
/// # Errors
/// The guest's own file systems are not there.
pub(crate) fn install(kernel: &Kernel) -> io::Result<()> {
    std::fs::create_dir_all(DIRECTORY)?;
    serde_json::to_writer(File::create(KERNEL)?, kernel)?;
    let program = Path::new(DIRECTORY).join(NAME);
    // The program of the first process is in no file system that others see by a path.
    std::os::unix::fs::symlink("/proc/1/exe", &program)?;
    // A kernel that asks nobody has all that it needs.
    match std::fs::write("/proc/sys/kernel/modprobe", program.as_os_str().as_encoded_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
