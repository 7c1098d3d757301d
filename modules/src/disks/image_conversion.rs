//! Making an image of another format from a disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use osbc_module_api::*;
use tempfile::NamedTempFile;

use crate::archives::single_file;
use crate::disks::qcow2::{self, Compression, Version};

/// Where files are that are only there while an image is made.
const SCRATCH: &str = "/var/tmp";

/// What QEMU knows images by that are not raw, and where; not an encrypted disk, which is taken as it is.
const KNOWN: [(u64, &[u8]); 12] = [
    (0, b"QFI\xfb"),
    (0, b"QED\0"),
    (0, b"KDMV"),
    (0, b"COWD"),
    (0, b"# Disk DescriptorFile"),
    (0, b"conectix"),
    (0, b"vhdxfile"),
    (0, b"WithoutFreeSpace"),
    (0, b"WithouFreSpacExt"),
    (0, b"Bochs Virtual HD Image"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe]),
];

/// How an image is made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// osbc writes the image itself.
    Qcow2 {
        /// Version of the format.
        version: Version,
        /// How the data is compressed.
        compression: Option<Compression>,
    },
    /// `qemu-img convert` with these arguments does it.
    Tool(Vec<String>),
}

impl Conversion {
    /// One to qcow2 in the version that QEMU takes `compat` for.
    ///
    /// # Errors
    /// There is no such version.
    pub(crate) fn to_qcow2(compat: Option<&str>, compression: Option<Compression>) -> Result<Self, Error> {
        Ok(Conversion::Qcow2 { version: Version::of(compat)?, compression })
    }

    /// One to another format, by qemu-img's names of it and of its options.
    pub(crate) fn by_tool(format: &str, compressed: bool, options: &[String]) -> Self {
        let mut arguments = vec!["convert".to_owned(), "-O".to_owned(), format.to_owned()];
        if compressed {
            arguments.push("-c".to_owned());
        }
        if !options.is_empty() {
            arguments.extend(["-o".to_owned(), options.join(",")]);
        }
        Conversion::Tool(arguments)
    }

    /// Makes the image `target` of the tree from the disk `source`, which may have any format that QEMU knows.
    ///
    /// # Errors
    /// `qemu-img` is needed and missing or fails; reading or writing fails.
    pub(crate) fn run(&self, cx: &StageContext, source: &Path, target: &str) -> Result<(), Error> {
        match self {
            Conversion::Tool(arguments) => {
                let target = cx.tree.path_for_tools(target)?;
                cx.tool("qemu-img")?.args(arguments).arg(source).arg(target).run()
            }
            Conversion::Qcow2 { version, compression } => {
                let disk = raw(cx, source)?;
                let image = single_file::create(&cx.tree, target)?;
                qcow2::write(&disk, &image, *version, *compression).map_err(Error::io("make a qcow2 image of", source))
            }
        }
    }
}

/// How the extents of a VMDK lie.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum VmdkLayout {
    MonolithicSparse,
    MonolithicFlat,
    TwoGbMaxExtentSparse,
    TwoGbMaxExtentFlat,
    StreamOptimized,
}

impl VmdkLayout {
    /// The option of qemu-img.
    pub(crate) fn option(self) -> String {
        let word = match self {
            VmdkLayout::MonolithicSparse => "monolithicSparse",
            VmdkLayout::MonolithicFlat => "monolithicFlat",
            VmdkLayout::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            VmdkLayout::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
            VmdkLayout::StreamOptimized => "streamOptimized",
        };
        format!("subformat={word}")
    }
}

/// The disk `source` as it is, made raw where it is not.
fn raw(cx: &StageContext, source: &Path) -> Result<File, Error> {
    let disk = File::open(source).map_err(Error::io("open", source))?;
    if is_raw(&disk).map_err(Error::io("read", source))? {
        return Ok(disk);
    }
    let scratch = NamedTempFile::new_in(SCRATCH).map_err(Error::io("create a file in", SCRATCH))?;
    cx.tool("qemu-img")?.args(["convert", "-O", "raw"]).arg(source).arg(scratch.path()).run()?;
    Ok(scratch.into_file())
}

fn is_raw(disk: &File) -> io::Result<bool> {
    for (start, known) in KNOWN {
        let mut found = vec![0; known.len()];
        match disk.read_exact_at(&mut found, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Ok(()) if found != known => {}
            Ok(()) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
