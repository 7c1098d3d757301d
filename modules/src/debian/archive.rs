//! The tar archives of a package as dpkg takes them, read as a stream and within bounds: plain members, and the long
//! names of GNU's tar.
//!
//! What dpkg does not take either (pax headers, sparse files) is refused or left to the caller.

use std::io::{self, Read};

use tar::{Archive, Entries, Entry, EntryType};

/// The longest name or target of a link with the NUL behind it, which is the longest path of Linux.
const LONGEST_NAME: u64 = 4096;
/// How much the names of one archive take together: some hundred times what the largest packages have.
const ALL_NAMES: usize = 256 << 20;

/// A member of an archive: its header and its content.
pub(crate) struct Member<'a, R: Read> {
    /// Where it goes.
    pub(crate) path: Vec<u8>,
    /// What it is a link to; empty for what is no link.
    pub(crate) target: Vec<u8>,
    /// Its header, and its content to read.
    pub(crate) entry: Entry<'a, R>,
}

/// The members of an archive, in its order.
pub(crate) struct Members<'a, R: Read> {
    entries: Entries<'a, R>,
    names: usize,
}

/// Returns the members of an archive.
///
/// # Errors
/// It was read before.
pub(crate) fn members<R: Read>(archive: &mut Archive<R>) -> io::Result<Members<'_, R>> {
    // As they are: the crate would put names of any length together, and content of any size for pax headers.
    Ok(Members { entries: archive.entries()?.raw(true), names: 0 })
}

impl<'a, R: Read> Members<'a, R> {
    fn read(&mut self) -> io::Result<Option<Member<'a, R>>> {
        let (mut path, mut target) = (None, None);
        for entry in self.entries.by_ref() {
            let mut entry = entry?;
            match entry.header().entry_type() {
                EntryType::GNULongName => path = Some(long_name(&mut entry)?),
                EntryType::GNULongLink => target = Some(long_name(&mut entry)?),
                EntryType::XHeader | EntryType::XGlobalHeader => {
                    return Err(invalid("it has a pax header, which no package may have"));
                }
                _ => {
                    let path = path.unwrap_or_else(|| entry.path_bytes().into_owned());
                    let target = target.or_else(|| Some(entry.link_name_bytes()?.into_owned())).unwrap_or_default();
                    self.names += path.len() + target.len();
                    if self.names > ALL_NAMES {
                        return Err(invalid(format!("the names of its files have more than {ALL_NAMES} bytes")));
                    }
                    return Ok(Some(Member { path, target, entry }));
                }
            }
        }
        Ok(None)
    }
}

impl<'a, R: Read> Iterator for Members<'a, R> {
    type Item = io::Result<Member<'a, R>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Reads a name that does not fit into a header; it ends with NUL.
fn long_name(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    entry.take(LONGEST_NAME + 1).read_to_end(&mut name)?;
    if name.len() as u64 > LONGEST_NAME {
        return Err(invalid(format!("it has a name of more than {LONGEST_NAME} bytes")));
    }
    while name.pop_if(|last| *last == 0).is_some() {}
    Ok(name)
}

/// A stream that must not have more than so many bytes.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
    what: &'static str,
}

impl<R: Read> Bounded<R> {
    /// Bounds a stream, which messages call `what`.
    pub(crate) fn new(inner: R, what: &'static str, limit: u64) -> Self {
        Self { inner, left: limit, limit, what }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(length as u64) else {
            return Err(invalid(format!("{} has more than {} bytes", self.what, self.limit)));
        };
        self.left = left;
        Ok(length)
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    /// Returns an archive of members of these kinds and contents, each called `name`.
    fn archive(members: &[(EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, content) in members {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..4].copy_from_slice(b"name");
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        members(&mut Archive::new(bytes))?.map(|one| one.map(|member| (member.path, member.target))).collect()
    }

    #[test]
    fn long_names_belong_to_the_next_member() {
        let long = vec![b'x'; 4095];
        let bytes = archive(&[
            (EntryType::GNULongName, &[&long[..], b"\0"].concat()),
            (EntryType::GNULongLink, b"target\0"),
            (EntryType::Symlink, b""),
            (EntryType::Regular, b"content"),
        ]);
        assert_eq!(read(&bytes).unwrap(), [(long, b"target".to_vec()), (b"name".to_vec(), Vec::new())]);
    }

    #[test]
    fn what_grows_without_bounds_is_refused() {
        let long = vec![b'x'; 1 << 20];
        for (kind, content, reason) in [
            (EntryType::GNULongName, &long[..], "it has a name of more than 4096 bytes"),
            (EntryType::GNULongLink, &long[..], "it has a name of more than 4096 bytes"),
            (EntryType::XHeader, b"9 path=x\n", "it has a pax header"),
            (EntryType::XGlobalHeader, &long[..], "it has a pax header"),
        ] {
            let error = read(&archive(&[(kind, content), (EntryType::Regular, b"")])).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn a_bounded_stream_ends_at_its_limit() {
        let read = |length: usize| io::copy(&mut Bounded::new(&vec![0; length][..], "it", 10), &mut io::sink());
        assert_eq!(read(10).unwrap(), 10);
        assert_eq!(read(11).unwrap_err().to_string(), "it has more than 10 bytes");
    }
}
