//! A `.deb` file: an `ar` archive of control data and files. Reads it from the disk; knows no tree.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use osbc_module_api::Error;

use super::control::Control;
use crate::compression;

/// A package, its control data read and its files still packed.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its paragraph of control data.
    pub(crate) control: Control,
    /// What else its control data has: scripts, checksums, triggers, the list of configuration files.
    pub(crate) files: Vec<ControlFile>,
    path: PathBuf,
    data: Member,
}

/// A file of a package's control data.
#[derive(Debug)]
pub(crate) struct ControlFile {
    pub(crate) name: String,
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
    pub(crate) content: Vec<u8>,
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
            Some(member) if member.name == "debian-binary" => {}
            _ => return Err(damaged("its first member is not debian-binary")),
        }
        let (control, data) = (find("control.tar")?, find("data.tar")?);
        let mut paragraph = None;
        let mut files = Vec::new();
        let mut archive = tar::Archive::new(open(path, &control)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.strip_prefix(".").map(|name| name.to_string_lossy().into_owned());
            let name = name.or_else(|_| entry.path().map(|name| name.to_string_lossy().into_owned()))?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            if name.contains('/') {
                return Err(damaged(format!("its control data has a file in a folder: {name}")));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if name == "control" {
                let text = String::from_utf8(content).map_err(|_| damaged("its control file is not UTF-8"))?;
                paragraph = Some(Control::new(&text));
            } else {
                let header = entry.header();
                let mtime = i64::try_from(header.mtime()?).unwrap_or(0);
                files.push(ControlFile { name, mode: header.mode()? & 0o7777, mtime, content });
            }
        }
        let control = paragraph.ok_or_else(|| damaged("it has no control file"))?;
        for field in ["Package", "Version", "Architecture"] {
            let value = control.value(field);
            if value.is_empty() || value.contains(['/', '\n', ' ']) {
                return Err(damaged(format!("its control file has no usable field {field}")));
            }
        }
        Ok(Self { control, files, path: path.to_owned(), data })
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

    /// The lines of a text file of its control data; none where there is no such file.
    pub(crate) fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let content = self.file(name).map_or(&b""[..], |file| &file.content);
        str::from_utf8(content).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// The configuration files that it brings, by absolute path.
    pub(crate) fn configuration_files(&self) -> impl Iterator<Item = &str> {
        // A line may have flags before the path: those say what is to be removed, not brought.
        self.lines("conffiles").filter(|line| line.starts_with('/'))
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
        let size: u64 = match (text(48..58).parse(), text(58..60)) {
            (Ok(size), "`") => size,
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
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(member.start))?;
    let packed: Take<File> = file.take(member.length);
    if member.name.ends_with(".tar") {
        return Ok(Box::new(packed));
    }
    compression::decoder(packed)?.ok_or_else(|| damaged(format!("{} is compressed in an unknown way", member.name)))
}

#[cfg(test)]
mod tests {
    use osbc_fixtures::deb::Deb;
    use osbc_fixtures::has_tool;

    use super::*;

    #[test]
    fn packages_of_all_compressions_are_read() {
        if !has_tool("dpkg-deb") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for compression in ["none", "gzip", "xz", "zstd"] {
            let deb = Deb::new("one").compression(compression).file("usr/share/one", "content");
            let path = deb.control("postinst", "#!/bin/sh\n").write(folder.path());
            let package = Package::open(&path).unwrap();
            assert_eq!((package.name(), package.version()), ("one", "1.0-1"), "{compression}");
            assert_eq!(package.file("postinst").unwrap().mode, 0o755);
            assert_eq!(package.file("postinst").unwrap().content, b"#!/bin/sh\n");
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
        let folder = tempfile::tempdir().unwrap();
        let path = Deb::new("one").file("usr/share/one", "content").write(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let cut = folder.path().join("cut.deb");
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
