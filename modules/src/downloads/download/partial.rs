//! The file of a download that is under way: what is there of it, how much may still come, and whether it is worth
//! keeping when the download fails.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use osbc_module_api::Error;
use rustix::fs::fstatvfs;

use super::Failure;
use super::transfer::{Head, Resume};
use crate::downloads::checksum::{Checksum, Hasher};

/// After how many bytes of a file of unknown length the disk is looked at.
const LOOK: u64 = 4 << 20;

/// What a file of unknown length leaves free on a disk: a part of it, and at most this many bytes.
const FLOOR: u64 = 256 << 20;
const FLOOR_PART: u64 = 20;

/// What is there of the file, and its checksum so far.
pub(super) struct Partial<'a> {
    path: &'a Path,
    file: File,
    expected: &'a Checksum,
    hasher: Hasher,
    length: u64,
    /// How long the whole file is, as the last answer has announced it.
    total: Option<u64>,
    /// Whether the last answer has announced no length.
    endless: bool,
    /// By what the server knows whether the file is still the same.
    validator: Option<String>,
    /// Whether the bytes came by more than one answer.
    pieced: bool,
}

impl<'a> Partial<'a> {
    /// Goes on with what an earlier run has left at `path`.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub(super) fn open(path: &'a Path, expected: &'a Checksum) -> Result<Self, Error> {
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.map_err(Error::io("write", path))?;
        let mut hasher = expected.hasher();
        let length = hasher.update_from(&mut file).map_err(Error::io("read", path))?;
        Ok(Self { path, file, expected, hasher, length, total: None, endless: false, validator: None, pieced: false })
    }

    /// How many bytes are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// What the whole file must give.
    pub(super) fn expected(&self) -> &Checksum {
        self.expected
    }

    /// Whether the bytes came by more than one answer.
    pub(super) fn is_pieced(&self) -> bool {
        self.pieced
    }

    /// Whether all is there; else the checksum of what is.
    pub(super) fn check(&self) -> Result<(), Checksum> {
        self.expected.check(&self.hasher)
    }

    /// What to ask the server for.
    pub(super) fn resume(&self) -> Option<Resume> {
        (self.length > 0).then(|| Resume { from: self.length, validator: self.validator.clone() })
    }

    /// Gets ready for what an answer announces.
    ///
    /// # Errors
    /// The answer is not what was asked for, or announces more than the disk has room for.
    pub(super) fn prepare(&mut self, head: &Head) -> Result<(), Failure> {
        match head.status {
            200 => self.restart()?,
            206 if self.length > 0 && head.start == Some(self.length) => self.pieced = true,
            // The server has another file, or does not do what it says: from scratch.
            206 | 416 if self.length > 0 => {
                self.restart()?;
                return Err(Failure::remote(format!("the server cannot resume the download ({})", head.status)));
            }
            _ => return Err(head.refusal()),
        }
        self.validator.clone_from(&head.validator);
        (self.total, self.endless) = (head.total, head.total.is_none());
        let (missing, (free, size)) = (self.total.unwrap_or(0).saturating_sub(self.length), self.room()?);
        if missing > free {
            self.restart()?;
            let reason = format!("{missing} bytes are missing of the file, and its disk has {free} bytes free");
            // Somebody may make room for what a disk of this size could hold.
            let full = |reason| Error::io("write", self.path)(io::Error::new(io::ErrorKind::StorageFull, reason));
            return Err(if missing > size { Failure::lasting(reason) } else { full(reason).into() });
        }
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are more than was announced, or fill the disk; nothing is kept then.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let length = self.length + bytes.len() as u64;
        if let Some(total) = self.total.filter(|total| length > *total) {
            self.restart()?;
            return Err(Failure::lasting(format!(
                "the server sends more than the {total} bytes that it has announced"
            )));
        }
        if self.endless && length / LOOK > self.length / LOOK {
            let (free, size) = self.room()?;
            if free < FLOOR.min(size / FLOOR_PART) {
                self.restart()?;
                let reason =
                    format!("the file has no announced length, {length} bytes came, and its disk is nearly full");
                return Err(Failure::lasting(reason));
            }
        }
        if let Err(error) = self.file.write_all(bytes) {
            // What fills the disk cannot become the file; others may have use for the room.
            self.restart()?;
            return Err(Error::io("write", self.path)(error).into());
        }
        self.hasher.update(bytes);
        self.length = length;
        Ok(())
    }

    /// Forgets what is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io("write", self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("write", self.path))?;
        self.hasher = self.expected.hasher();
        (self.length, self.validator, self.pieced) = (0, None, false);
        Ok(())
    }

    /// Keeps what a later run can go on with, and nothing else.
    pub(super) fn leave(&self) {
        if self.length == 0 || self.endless {
            // Whoever comes next overwrites it anyway.
            fs::remove_file(self.path).ok();
        }
    }

    /// How many bytes the disk has free, and how many it has in all.
    fn room(&self) -> Result<(u64, u64), Error> {
        let disk = fstatvfs(&self.file).map_err(Error::io("inspect", self.path))?;
        Ok((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }
}
