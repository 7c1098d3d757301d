//! Archives that kernels unpack for their first root, one behind the other in a file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use osbc_ir::hex;
use osbc_module_api::*;
use sha2::{Digest, Sha256};

use crate::archives::compression::Format;

/// What an uncompressed archive has to begin at a multiple of, or the kernel does not find it.
const UNIT: u64 = 4;

/// How much of a file each line of a stream hash is about.
const BLOCK: usize = 2 << 20;

/// The names of the live system's root, which is looked for at a fixed place: it comes first.
const ROOTS: [&str; 2] = ["root.squashfs", "root.erofs"];

/// Appends a tree to an archive, compressed by gzip or not, and fills up the end.
///
/// # Errors
/// The tree cannot be read, cpio is missing or fails, or the file cannot be written.
pub(crate) fn append(cx: &StageContext, tree: &Tree, archive: &Path, compress: bool) -> Result<(), Error> {
    let members = members(tree)?;
    let directory = tree.path_for_tools("/")?;
    let tool = cx.tool("cpio")?.args(["-o", "-H", "newc", "-R", "root:root", "--quiet", "--reproducible"]);
    let tool = tool.args(["--force-local", "--null", "-D"]).arg(directory).stdin(members.join(&b'\0'));
    if compress {
        let bytes = tool.output()?;
        let append = || -> std::io::Result<()> {
            let file = OpenOptions::new().create(true).append(true).open(archive)?;
            let mut encoder = Format::Gzip.encoder(9, None, file)?;
            encoder.write_all(&bytes)?;
            encoder.finish()?.flush()
        };
        append().map_err(Error::io("write", archive))?;
    } else {
        align(archive)?;
        // It may be too large for memory.
        let mut part = archive.as_os_str().to_owned();
        part.push(".part");
        tool.arg("-O").arg(&part).run()?;
        let append = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(archive)?;
            std::io::copy(&mut File::open(&part)?, &mut file)?;
            std::fs::remove_file(&part)
        };
        append().map_err(Error::io("write", archive))?;
    }
    align(archive)
}

/// The paths in a tree as cpio takes them, directories before what is in them.
fn members(tree: &Tree) -> Result<Vec<Vec<u8>>, Error> {
    let mut members = Vec::new();
    tree.walk("/", |path, _| {
        let path = path.strip_prefix("/").unwrap_or(path);
        if !path.as_os_str().is_empty() {
            members.push(path.as_os_str().as_bytes().to_vec());
        }
        Ok(())
    })?;
    members.sort();
    if let Some(at) = members.iter().position(|member| ROOTS.iter().any(|root| member == root.as_bytes())) {
        let root = members.remove(at);
        members.insert(0, root);
    }
    Ok(members)
}

/// Fills a file up, so that an uncompressed archive may follow.
fn align(archive: &Path) -> Result<(), Error> {
    let fill = || -> std::io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(archive)?;
        let length = file.metadata()?.len();
        file.set_len(length.next_multiple_of(UNIT))
    };
    fill().map_err(Error::io("extend", archive))
}

/// The checksums by which a download of a file is verified piece by piece.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn stream_hash(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut text = format!("stream-hash sha256 {BLOCK}\n");
    loop {
        let mut block = Vec::new();
        Read::by_ref(&mut file).take(BLOCK as u64).read_to_end(&mut block).map_err(Error::io("read", path))?;
        if block.is_empty() {
            return Ok(text);
        }
        text.push_str(&hex(&Sha256::digest(&block)));
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_comes_first_and_directories_before_what_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        tree.create_dir_all("etc/a", 0o755).unwrap();
        for path in ["root.squashfs", "etc/a/b", "a"] {
            tree.write(path, "").unwrap();
        }
        let members = members(&tree).unwrap();
        let names: Vec<_> = members.iter().map(|name| String::from_utf8_lossy(name)).collect();
        assert_eq!(names, ["root.squashfs", "a", "etc", "etc/a", "etc/a/b"]);
    }

    #[test]
    fn the_end_is_filled_up() {
        let directory = tempfile::tempdir().unwrap();
        for (size, expected) in [(0, 0), (1, 4), (3, 4), (4, 4), (10938, 10940)] {
            let path = directory.path().join(size.to_string());
            std::fs::write(&path, vec![1; size]).unwrap();
            align(&path).unwrap();
            assert_eq!(std::fs::metadata(path).unwrap().len(), expected);
        }
    }

    #[test]
    fn each_block_has_its_checksum() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![0; BLOCK + 1]).unwrap();
        let text = stream_hash(file.path()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "stream-hash sha256 2097152"));
        assert_eq!(lines[2], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }
}
