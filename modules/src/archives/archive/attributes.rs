//! Extended attributes, access control lists and SELinux contexts as records of an extended tar header.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use osbc_module_api::Error;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use super::Settings;
use super::header::Record;
use super::names::Names;

const SELINUX: &[u8] = b"security.selinux";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// The records of a file's attributes, in the order in which GNU tar writes them.
///
/// # Errors
/// An attribute cannot be read.
pub(crate) fn records(path: &Path, metadata: &Metadata, settings: &Settings) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    if settings.xattrs.is_none() && !settings.acls && !settings.selinux {
        return Ok(records);
    }
    let names = names(path)?;
    if settings.selinux && has(&names, SELINUX) {
        let mut context = value(path, SELINUX)?;
        if context.last() == Some(&0) {
            context.pop();
        }
        records.push((b"RHT.security.selinux".to_vec(), context));
    }
    let lists = [(ACL_ACCESS, "SCHILY.acl.access"), (ACL_DEFAULT, "SCHILY.acl.default")];
    if settings.acls && lists.iter().any(|(name, _)| has(&names, name)) {
        for (name, key) in lists.into_iter().take(if metadata.is_dir() { 2 } else { 1 }) {
            let text = if has(&names, name) {
                acl_text(&value(path, name)?, &settings.names).ok_or_else(|| {
                    Error::failed(format!("the access control list of {} is malformed", path.display()))
                })?
            } else if name == ACL_ACCESS {
                mode_text(metadata.mode())
            } else {
                Vec::new()
            };
            records.push((key.into(), text));
        }
    }
    for name in names.iter().filter(|name| settings.xattrs.is_some_and(|wanted| wanted(name))) {
        records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value(path, name)?));
    }
    Ok(records)
}

fn has(names: &[Vec<u8>], name: &[u8]) -> bool {
    names.iter().any(|there| there == name)
}

/// The names of a file's attributes, sorted.
fn names(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut buffer = vec![0u8; 4096];
    let length = loop {
        match llistxattr(path, &mut buffer) {
            Ok(length) => break length,
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => break 0,
            Err(error) => return Err(Error::io("list the attributes of", path)(error)),
        }
    };
    let mut names: Vec<Vec<u8>> =
        buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

fn value(path: &Path, name: &[u8]) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0u8; 1024];
    loop {
        match lgetxattr(path, name, &mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(Error::io("read the attributes of", path)(error)),
        }
    }
}

/// The kernel's form of an access control list (version 2: tag, permissions and id of each entry, little endian) as
/// text, one entry a line, ids as names where they have one.
fn acl_text(value: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != 2u32.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = Vec::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let (kind, name) = match tag {
            0x01 => ("user", b"".to_vec()),
            0x02 => ("user", or_number(names.user(id), id)),
            0x04 => ("group", b"".to_vec()),
            0x08 => ("group", or_number(names.group(id), id)),
            0x10 => ("mask", b"".to_vec()),
            0x20 => ("other", b"".to_vec()),
            _ => return None,
        };
        line(kind, &name, permissions.into(), &mut text);
    }
    Some(text)
}

/// The list that a file without one has by its mode.
fn mode_text(mode: u32) -> Vec<u8> {
    let mut text = Vec::new();
    for (kind, shift) in [("user", 6), ("group", 3), ("other", 0)] {
        line(kind, b"", mode >> shift, &mut text);
    }
    text
}

fn or_number(name: &[u8], id: u32) -> Vec<u8> {
    if name.is_empty() { id.to_string().into_bytes() } else { name.to_vec() }
}

fn line(kind: &str, name: &[u8], permissions: u32, text: &mut Vec<u8>) {
    let bit = |mask: u32, letter: u8| if permissions & mask == 0 { b'-' } else { letter };
    text.extend_from_slice(&[kind.as_bytes(), b":", name, b":"].concat());
    text.extend_from_slice(&[bit(4, b'r'), bit(2, b'w'), bit(1, b'x'), b'\n']);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_control_lists_become_text() {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX)] {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let expected = b"user::rw-\nuser:1000:r--\ngroup::r--\nmask::r--\n";
        assert_eq!(acl_text(&value, &Names::default()).as_deref(), Some(&expected[..]));
        assert_eq!(acl_text(&value[..7], &Names::default()), None);
    }

    #[test]
    fn a_mode_is_a_list_of_three() {
        assert_eq!(mode_text(0o100751), b"user::rwx\ngroup::r-x\nother::--x\n");
    }
}
