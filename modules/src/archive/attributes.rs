//! Extended attributes, access control lists and SELinux contexts as records of an extended tar header.

use std::fs::Metadata;
use std::path::Path;

use osbc_module_api::Error;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use super::Settings;

/// The records of a file's attributes, in the order in which GNU tar writes them.
///
/// # Errors
/// An attribute cannot be read.
pub(crate) fn records(path: &Path, metadata: &Metadata, settings: &Settings) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
    let mut records = Vec::new();
    if settings.xattrs.is_none() && !settings.acls && !settings.selinux {
        return Ok(records);
    }
    for name in names(path)? {
        let key = match name.as_slice() {
            b"system.posix_acl_access" if settings.acls => b"SCHILY.acl.access".to_vec(),
            b"system.posix_acl_default" if settings.acls && metadata.is_dir() => b"SCHILY.acl.default".to_vec(),
            b"security.selinux" if settings.selinux => b"RHT.security.selinux".to_vec(),
            b"security.selinux" => continue,
            plain if plain.starts_with(b"system.posix_acl_") => continue,
            plain if settings.xattrs.is_some_and(|wanted| wanted(plain)) => [b"SCHILY.xattr.", plain].concat(),
            _ => continue,
        };
        let mut value = value(path, &name)?;
        if key.starts_with(b"SCHILY.acl.") {
            value = acl_text(&value)
                .ok_or_else(|| Error::failed(format!("the access control list of {} is malformed", path.display())))?
                .into_bytes();
        } else if key == b"RHT.security.selinux" && value.last() == Some(&0) {
            value.pop();
        }
        records.push((key, value));
    }
    // GNU tar writes the context first, then the lists, then the rest.
    records.sort_by_key(|(key, _)| match key.as_slice() {
        b"RHT.security.selinux" => 0,
        list if list.starts_with(b"SCHILY.acl.") => 1,
        _ => 2,
    });
    Ok(records)
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
/// text, ids as numbers.
fn acl_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != 2u32.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let mut lines = Vec::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |mask: u16, letter: char| if permissions & mask == 0 { '-' } else { letter };
        lines.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::acl_text;

    #[test]
    fn access_control_lists_become_text() {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX)] {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        assert_eq!(acl_text(&value).as_deref(), Some("user::rw-,user:1000:r--,group::r--,mask::r--"));
        assert_eq!(acl_text(&value[..7]), None);
    }
}
