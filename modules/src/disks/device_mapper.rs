//! Devices of the kernel's device mapper as devices of a stage: a node in its private `/dev`, and an end that comes by
//! itself.
//!
//! The kernel is asked right away to remove the device with its last user, so that it goes whatever happens to the
//! build, and what it lies on goes after it.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use osbc_module_api::loopdev::make_node;
use osbc_module_api::{DeviceContext, Error, Tool};
use rustix::fs::{Mode, OFlags};

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Number {
    /// Reads what tools print: both numbers with something between them.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn parse(text: &[u8], separator: char) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(text);
        let numbers = text.trim().split_once(separator).and_then(|(major, minor)| {
            Some(Self { major: major.trim().parse().ok()?, minor: minor.trim().parse().ok()? })
        });
        numbers.ok_or_else(|| Error::failed(format!("`{}` is no number of a device", text.trim())))
    }
}

/// The node that the host has for the device below, or for a partition of it: tools of the host look at those alone.
///
/// # Errors
/// There is no device below.
pub(crate) fn parent(context: &DeviceContext, partition: Option<u64>) -> Result<PathBuf, Error> {
    let parent = context.parent.ok_or_else(|| Error::failed("the device needs a parent"))?;
    let mut name = parent.path.clone().into_os_string();
    if let Some(number) = partition {
        name.push(OsString::from(format!("p{number}")));
    }
    Ok(Path::new("/dev").join(name))
}

/// Makes nodes of a device below the private `/dev` and opens it by the first.
///
/// # Errors
/// A node cannot be made, or there is no such device.
pub(crate) fn open(dev: &Path, names: &[&str], number: Number) -> Result<OwnedFd, Error> {
    for name in names {
        let node = dev.join(name);
        if let Some(directory) = node.parent() {
            fs::create_dir_all(directory).map_err(Error::io("create the directory", directory))?;
        }
        make_node(&node, number.major, number.minor).map_err(Error::io("make the node", &node))?;
    }
    let node = dev.join(names.first().ok_or_else(|| Error::failed("a device needs a name"))?);
    rustix::fs::open(&node, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", &node))
}

/// Lets the kernel remove a device when nobody has it open any more.
///
/// # Errors
/// The tool is missing or fails.
pub(crate) fn remove_with_last_user(name: &str) -> Result<(), Error> {
    Tool::of_host("dmsetup")?.args(["remove", "--deferred", name]).quiet_output().map(drop)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::{OpenDevice, Tree, json};

    use super::*;

    #[test]
    fn numbers_are_read_from_what_tools_print() {
        let number = Number { major: 253, minor: 1 };
        assert_eq!(Number::parse(b"253:1\n", ':').unwrap(), number);
        assert_eq!(Number::parse(b"  253;  1 ", ';').unwrap(), number);
        for other in [&b""[..], b"253", b"-1;-1", b"a:b"] {
            assert!(Number::parse(other, ':').is_err());
        }
    }

    #[test]
    fn a_parent_is_wanted_and_may_be_a_partition() {
        let (directory, options) = (tempfile::tempdir().unwrap(), json!({}));
        let tree = Tree::open(directory.path()).unwrap();
        let below = OpenDevice { path: "loop3".into(), data: json!({}), keep: Vec::new() };
        let context = |parent| DeviceContext { dev: directory.path(), tree: &tree, parent, options: &options };
        assert_eq!(parent(&context(Some(&below)), None).unwrap(), Path::new("/dev/loop3"));
        assert_eq!(parent(&context(Some(&below)), Some(2)).unwrap(), Path::new("/dev/loop3p2"));
        assert_eq!(parent(&context(None), None).unwrap_err().to_string(), "the device needs a parent");
    }
}
