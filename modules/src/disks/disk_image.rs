//! How large the disk is that an image file holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use osbc_module_api::*;
use rustix::fs::OFlags;

/// The first bytes of the two formats whose headers are read here.
const QCOW2: &[u8] = b"QFI\xfb";
const VMDK: &[u8] = b"KDMV";
/// What the header of a VMDK counts in.
const SECTOR: u64 = 512;

/// The size of the disk in the image `path` of the tree, in bytes.
///
/// The headers of qcow2 and VMDK are read here; for all other formats `qemu-img` of the build root is asked.
///
/// # Errors
/// The image cannot be read, or `qemu-img` is needed and missing or does not know it.
pub(crate) fn virtual_size(cx: &StageContext, path: &str) -> Result<u64, Error> {
    let image = cx.tree.open_file(path, OFlags::RDONLY, 0)?;
    if let Some(size) = of_header(&image).map_err(Error::io("read", path))? {
        return Ok(size);
    }
    let place = cx.tree.path_for_tools(path)?;
    let report = cx.tool("qemu-img")?.args(["info", "--output=json"]).arg(place).output()?;
    let report: Value = serde_json::from_slice(&report).unwrap_or_default();
    let size = report.get("virtual-size").and_then(Value::as_u64);
    size.ok_or_else(|| Error::failed(format!("`qemu-img info` says nothing of the size of {path}")))
}

pub(crate) fn of_header(image: &File) -> io::Result<Option<u64>> {
    let mut header = [0; 32];
    match image.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let field = |at: usize| <[u8; 8]>::try_from(&header[at..at + 8]).unwrap_or_default();
    Ok(match &header[..4] {
        QCOW2 => Some(u64::from_be_bytes(field(24))),
        VMDK => u64::from_le_bytes(field(12)).checked_mul(SECTOR),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn headers_say_what_qemu_img_made() {
        if !has_tool("qemu-img") {
            return;
        }
        let directory = tempdir().unwrap();
        let path = directory.path().join("image");
        for (format, options, known) in [
            ("qcow2", "compat=1.1", true),
            ("qcow2", "compat=0.10", true),
            ("vmdk", "subformat=monolithicSparse", true),
            ("vmdk", "subformat=streamOptimized", true),
            ("vdi", "static=off", false),
        ] {
            let mut command = Command::new("qemu-img");
            let command = command.args(["create", "-q", "-f", format, "-o", options]).arg(&path).arg("123M");
            assert!(command.status().unwrap().success());
            let size = of_header(&File::open(&path).unwrap()).unwrap();
            assert_eq!(size, known.then_some(123 << 20), "{format} {options}");
        }
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(of_header(&File::open(&path).unwrap()).unwrap(), None);
    }
}
