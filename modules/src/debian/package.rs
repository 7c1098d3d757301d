//! A `.deb` file: an `ar` archive of control data and files.
//!
//! Reads it from the disk as a stream, within bounds: what it unpacks to says nothing of its own size. Knows no tree.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use osbc_module_api::Error;

use super::archive::{Bounded, members as archive_members};
use super::control::Control;
use crate::archives::compression;

/// A package, its control data read and its files still packed.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its paragraph of control data.
    pub(crate) control: Control,
    /// What else its control data has: scripts, checksums, triggers, the list of configuration files.
    files: Vec<ControlFile>,
    path: PathBuf,
    packed_control: Member,
    data: Member,
}

/// A file of a package's control data.
#[derive(Debug)]
pub(crate) struct ControlFile {
    pub(crate) name: String,
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
    /// What it says, if it is one of [`LISTS`].
    text: String,
}

/// A member of the archive and where it lies in there.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    start: u64,
    length: u64,
}

/// What an `ar` archive begins with.
const MAGIC: &[u8; 8] = b"!<arch>\n";
/// The length of a member's header.
const HEADER: usize = 60;

/// How large the control data may be in all: more than ten times what the largest packages have.
const CONTROL_LIMIT: u64 = 64 << 20;
/// How large a file of it may be that is kept in memory.
const TEXT_LIMIT: u64 = 2 << 20;
/// How much memory unpacking may take: twice what the highest preset of xz needs.
const MEMORY_LIMIT: u64 = 128 << 20;
/// The files of the control data that osbc reads itself.
const LISTS: [&str; 2] = ["conffiles", "triggers"];

impl Package {
    /// Reads the control data of a package.
    ///
    /// # Errors
    /// The file is no package, is damaged, or lacks something that each must have.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Self::read(path).map_err(|error| Error::failed(format!("cannot read the package {file}: {error}")))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let members = members(&mut File::open(path)?)?;
        let find = |prefix: &str| {
            let found = members.iter().find(|member| {
                member.name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            found.cloned().ok_or_else(|| damaged(format!("it has no {prefix}")))
        };
        match members.first() {
            Some(member) if member.name == "debian-binary" => check_format(path, member)?,
            _ => return Err(damaged("its first member is not debian-binary")),
        }
        let (packed_control, data) = (find("control.tar")?, find("data.tar")?);
        let mut paragraph = None;
        let mut files = Vec::new();
        each_control_file(path, &packed_control, |mut file, content| {
            let is_control = file.name == "control";
            if is_control || LISTS.contains(&file.name.as_str()) {
                content.read_to_string(&mut file.text).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData if error.get_ref().is_none() => {
                        damaged(format!("its {} file is not UTF-8", file.name))
                    }
                    _ => error,
                })?;
            }
            if is_control {
                paragraph = Some(Control::new(&file.text));
            } else {
                files.push(file);
            }
            Ok(())
        })?;
        let control = paragraph.ok_or_else(|| damaged("it has no control file"))?;
        for field in ["Package", "Version", "Architecture"] {
            let value = control.value(field);
            if value.is_empty() || value.contains(['/', '\n', ' ']) {
                return Err(damaged(format!("its control file has no usable field {field}")));
            }
        }
        Ok(Self { control, files, path: path.to_owned(), packed_control, data })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.control.value("Package")
    }

    /// Its version.
    pub(crate) fn version(&self) -> &str {
        self.control.value("Version")
    }

    /// How large its files are while they are packed.
    pub(crate) fn packed_size(&self) -> u64 {
        self.data.length
    }

    /// A file of its control data.
    pub(crate) fn file(&self, name: &str) -> Option<&ControlFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The lines of one of [`LISTS`] of its control data; none where there is no such file.
    pub(crate) fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let text = self.file(name).map_or("", |file| &file.text);
        text.lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// The configuration files that it brings, by absolute path.
    pub(crate) fn configuration_files(&self) -> impl Iterator<Item = &str> {
        // A line may have flags before the path: those say what is to be removed, not brought.
        self.lines("conffiles").filter(|line| line.starts_with('/'))
    }

    /// Calls a function with each file of the control data but `control`, and its content.
    ///
    /// # Errors
    /// The function's, or the file cannot be read any more.
    pub(crate) fn each_control_file(
        &self,
        mut function: impl FnMut(&ControlFile, &mut dyn Read) -> io::Result<()>,
    ) -> io::Result<()> {
        each_control_file(&self.path, &self.packed_control, |file, content| {
            if file.name == "control" { Ok(()) } else { function(&file, content) }
        })
    }

    /// Its files, unpacked as they are read.
    ///
    /// # Errors
    /// The file cannot be read or is packed in a way that is not known.
    pub(crate) fn data(&self) -> io::Result<tar::Archive<Box<dyn Read>>> {
        Ok(tar::Archive::new(open(&self.path, &self.data)?))
    }
}

fn damaged(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Reads the version of the format, of which dpkg and osbc know the second.
fn check_format(path: &Path, member: &Member) -> io::Result<()> {
    let mut text = String::new();
    part(path, member)?.take(16).read_to_string(&mut text)?;
    match text.split_once('.') {
        Some(("2", _)) => Ok(()),
        _ => Err(damaged(format!("its format is not 2.0 but {:?}", text.trim_end()))),
    }
}

/// Calls a function with each file of the packed control data, and its content.
fn each_control_file(
    path: &Path,
    member: &Member,
    mut function: impl FnMut(ControlFile, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = tar::Archive::new(Bounded::new(open(path, member)?, "its control data", CONTROL_LIMIT));
    for entry in archive_members(&mut archive)? {
        let mut entry = entry?;
        if !entry.entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        if name.contains('/') {
            return Err(damaged(format!("its control data has a file in a directory: {name}")));
        }
        // dpkg's own file of the paths that a package has.
        if name == "list" {
            continue;
        }
        let is_text = name == "control" || LISTS.contains(&name.as_str());
        let limit = if is_text { TEXT_LIMIT } else { CONTROL_LIMIT };
        let header = entry.entry.header();
        let size = header.entry_size()?;
        if size > limit {
            return Err(damaged(format!("{name} of its control data has {size} bytes; at most {limit} are taken")));
        }
        let mtime = i64::try_from(header.mtime()?).unwrap_or(0);
        let file = ControlFile { name, mode: header.mode()? & 0o7777, mtime, text: String::new() };
        function(file, &mut entry.entry)?;
    }
    Ok(())
}

/// The members of an `ar` archive.
fn members(file: &mut File) -> io::Result<Vec<Member>> {
    let length = file.metadata()?.len();
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(|_| damaged("it is no Debian package"))?;
    if &magic != MAGIC {
        return Err(damaged("it is no Debian package"));
    }
    let (mut members, mut start) = (Vec::new(), MAGIC.len() as u64);
    while start < length {
        let mut header = [0; HEADER];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut header).map_err(|_| damaged("it is cut off within a header"))?;
        let text = |range: std::ops::Range<usize>| str::from_utf8(&header[range]).unwrap_or_default().trim_end();
        // A number that `parse` takes may have a sign.
        let size = Some(text(48..58)).filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
        let size: u64 = match (size.and_then(|size| size.parse().ok()), text(58..60)) {
            (Some(size), "`") => size,
            _ => return Err(damaged("a header of it is damaged")),
        };
        let name = text(0..16).trim_end_matches('/').to_owned();
        start += HEADER as u64;
        if start + size > length {
            return Err(damaged(format!("it is cut off: {name} should have {size} bytes and has {}", length - start)));
        }
        members.push(Member { name, start, length: size });
        start += size.next_multiple_of(2);
    }
    Ok(members)
}

/// A member of a package, decompressed as it is read.
fn open(path: &Path, member: &Member) -> io::Result<Box<dyn Read>> {
    let packed = part(path, member)?;
    if member.name.ends_with(".tar") {
        return Ok(Box::new(packed));
    }
    let decoder = compression::decoder_within(packed, MEMORY_LIMIT)?;
    decoder.ok_or_else(|| damaged(format!("{} is compressed in an unknown way", member.name)))
}

/// A member of a package as it is.
fn part(path: &Path, member: &Member) -> io::Result<Take<File>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(member.start))?;
    Ok(file.take(member.length))
}

/// Packages that `dpkg-deb` would not make.
#[cfg(test)]
pub(crate) mod testing {
    /// Returns an `ar` archive of these members.
    pub(crate) fn packed(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = super::MAGIC.to_vec();
        for (name, content) in members {
            let size = content.len();
            archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).bytes());
            archive.extend(*content);
            archive.resize(archive.len().next_multiple_of(2), b'\n');
        }
        archive
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use osbc_fixtures::deb::Deb;
    use osbc_fixtures::has_tool;
    use tar::{EntryType, Header};

    use super::testing::packed;
    use super::*;
    use crate::archives::compression::Format;

    const CONTROL: &[u8] = b"Package: one\nVersion: 1\nArchitecture: all\n";

    /// Opens a package whose control data has these files, of so many zeros each where nothing else is said.
    fn open_with(files: &[(&str, EntryType, u64)]) -> Result<Package, Error> {
        let mut out = Format::Zstd.encoder(1, None, Vec::new()).unwrap();
        let mut put = |name: &str, kind: EntryType, size: u64, content: &mut dyn Read| {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_mode(0o755);
            header.set_mtime(0);
            header.set_cksum();
            out.write_all(header.as_bytes()).unwrap();
            let written = io::copy(content, &mut out).unwrap();
            let padding = vec![0; usize::try_from(written.next_multiple_of(512) - written).unwrap()];
            out.write_all(&padding).unwrap();
        };
        put("./control", EntryType::Regular, CONTROL.len() as u64, &mut &CONTROL[..]);
        for (name, kind, size) in files {
            // More than is read in any case need not be there.
            put(name, *kind, *size, &mut io::repeat(0).take((*size).min(100 << 20)));
        }
        let control = out.finish().unwrap();
        assert!(control.len() < 1 << 20, "a small package");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bomb.deb");
        let members: [(&str, &[u8]); 3] =
            [("debian-binary", b"2.0\n"), ("control.tar.zst", &control), ("data.tar", &[0; 1024])];
        std::fs::write(&path, packed(&members)).unwrap();
        Package::open(&path)
    }

    #[test]
    fn control_data_that_unpacks_to_more_than_any_has_is_refused() {
        let plain = EntryType::Regular;
        assert_eq!(open_with(&[("./postinst", plain, 10)]).unwrap().file("postinst").unwrap().mode, 0o755);
        for (files, reason) in [
            (
                vec![("./postinst", plain, 6_000_000_000)],
                "postinst of its control data has 6000000000 bytes; at most 67108864 are taken",
            ),
            (
                vec![("./conffiles", plain, 3 << 20)],
                "conffiles of its control data has 3145728 bytes; at most 2097152 are taken",
            ),
            (vec![("./a", plain, 40 << 20), ("./b", plain, 40 << 20)], "its control data has more than 67108864 bytes"),
            (vec![("./name", EntryType::GNULongName, 50 << 20)], "it has a name of more than 4096 bytes"),
            (vec![("./pax", EntryType::XHeader, 50 << 20)], "it has a pax header, which no package may have"),
        ] {
            let error = open_with(&files).map(drop).unwrap_err().to_string();
            assert_eq!(error, format!("cannot read the package bomb.deb: {reason}"));
        }
    }

    #[test]
    fn headers_that_say_odd_things_are_refused() {
        let whole = packed(&[("debian-binary", b"2.0\n"), ("control.tar", &[0; 1024]), ("data.tar", &[0; 1024])]);
        let changed = |at: usize, bytes: &[u8]| {
            let mut deb = whole.clone();
            deb[at..at + bytes.len()].copy_from_slice(bytes);
            deb
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("odd.deb");
        for (deb, reason) in [
            (changed(8 + 48, b"+4"), "a header of it is damaged"),
            (changed(8 + 48, b"-4"), "a header of it is damaged"),
            (changed(8 + 58, b"x"), "a header of it is damaged"),
            (changed(8 + 48, b"9999999999"), "it is cut off: debian-binary should have 9999999999 bytes and has 2172"),
            (changed(8 + 60, b"3.0\n"), "its format is not 2.0 but \"3.0\""),
            (whole.clone(), "it has no control file"),
        ] {
            std::fs::write(&path, deb).unwrap();
            let error = Package::open(&path).map(drop).unwrap_err().to_string();
            assert_eq!(error, format!("cannot read the package odd.deb: {reason}"));
        }
    }

    #[test]
    fn packages_of_all_compressions_are_read() {
        if !has_tool("dpkg-deb") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        for compression in ["none", "gzip", "xz", "zstd"] {
            let deb = Deb::new("one").compression(compression).file("usr/share/one", "content");
            let path = deb.control("postinst", "#!/bin/sh\n").write(directory.path());
            let package = Package::open(&path).unwrap();
            assert_eq!((package.name(), package.version()), ("one", "1.0-1"), "{compression}");
            assert_eq!(package.file("postinst").unwrap().mode, 0o755);
            let mut contents = Vec::new();
            let read = |file: &ControlFile, content: &mut dyn Read| {
                contents.push((file.name.clone(), io::read_to_string(content)?));
                Ok(())
            };
            package.each_control_file(read).unwrap();
            assert!(contents.contains(&("postinst".into(), "#!/bin/sh\n".into())), "{contents:?}");
            let mut data = package.data().unwrap();
            let names: Vec<_> = data.entries().unwrap().map(|one| one.unwrap().path().unwrap().into_owned()).collect();
            assert!(names.contains(&"./usr/share/one".into()), "{compression}: {names:?}");
        }
    }

    #[test]
    fn a_package_that_is_cut_off_or_none_is_refused_wherever_it_ends() {
        if !has_tool("dpkg-deb") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = Deb::new("one").file("usr/share/one", "content").write(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let cut = directory.path().join("cut.deb");
        // The last byte may be one that fills up.
        for length in 0..whole.len() - 1 {
            std::fs::write(&cut, &whole[..length]).unwrap();
            let error = Package::open(&cut).map(drop).unwrap_err().to_string();
            assert!(error.starts_with("cannot read the package cut.deb: it"), "{length}: {error}");
        }
        std::fs::write(&cut, [&whole[..], b"x"].concat()).unwrap();
        assert!(Package::open(&cut).is_err());
    }
}
