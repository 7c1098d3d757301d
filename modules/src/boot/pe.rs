//! The headers of executables for UEFI (Portable Executable): what it takes to put sections behind those that there are.
//! Reads only what it is asked for.

/// What is wrong with an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no executable for 64-bit UEFI")]
pub(crate) struct NotExecutable;

/// Where the DOS header says where the others begin.
const HEADERS: usize = 0x3c;
const SIGNATURE: &[u8] = b"PE\0\0";
/// The length of the file header behind the signature.
const FILE_HEADER: usize = 20;
const SECTION_HEADER: usize = 40;
/// Of an optional header for 64 bits.
const PE32_PLUS: u16 = 0x20b;

/// Where the sections of an executable end in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The first address behind the last section.
    pub(crate) end: u64,
    /// What the addresses of sections are multiples of.
    pub(crate) alignment: u64,
}

impl Layout {
    /// Reads the headers at the start of `file`.
    pub(crate) fn read(file: &[u8]) -> Result<Self, NotExecutable> {
        let start = file_header(file)?;
        let (sections, optional_size) = (number16(file, start + 2)?, number16(file, start + 16)?);
        let optional = start + FILE_HEADER;
        if number16(file, optional)? != PE32_PLUS {
            return Err(NotExecutable);
        }
        // The alignment in the file is smaller, unless the other one is not set.
        let alignment = number32(file, optional + 32)?.max(number32(file, optional + 36)?);
        let last = usize::from(sections).checked_sub(1).ok_or(NotExecutable)?;
        let header = optional + usize::from(optional_size) + last * SECTION_HEADER;
        let (size, address) = (number32(file, header + 8)?, number32(file, header + 12)?);
        Ok(Self { end: u64::from(address) + u64::from(size), alignment: u64::from(alignment) })
    }

    /// The first address from `address` on that a section may begin at.
    pub(crate) fn align(&self, address: u64) -> u64 {
        if self.alignment == 0 { address } else { address.next_multiple_of(self.alignment) }
    }
}

/// Where the file header says when the file was made.
pub(crate) fn timestamp(file: &[u8]) -> Result<usize, NotExecutable> {
    number_at(file, file_header(file)? + 4)
}

/// Where the optional header has the checksum of the file.
pub(crate) fn checksum_place(file: &[u8]) -> Result<usize, NotExecutable> {
    number_at(file, file_header(file)? + FILE_HEADER + 64)
}

/// The place itself, if the file has a number of 32 bits there.
fn number_at(file: &[u8], place: usize) -> Result<usize, NotExecutable> {
    number32(file, place).map(|_| place)
}

/// The checksum of the whole file: the sum of its 16-bit words but those of the checksum itself, with what is carried
/// out added again, and its length.
pub(crate) fn checksum(file: &[u8]) -> Result<u32, NotExecutable> {
    let place = checksum_place(file)?;
    let word = |(index, bytes): (usize, &[u8])| {
        let own = (place..place + 4).contains(&(index * 2));
        let word = u16::from_le_bytes([bytes[0], bytes.get(1).copied().unwrap_or(0)]);
        if own { 0 } else { u64::from(word) }
    };
    let mut sum: u64 = file.chunks(2).enumerate().map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u32::try_from(sum + file.len() as u64).map_err(|_| NotExecutable)
}

fn file_header(file: &[u8]) -> Result<usize, NotExecutable> {
    let signature = usize::try_from(number32(file, HEADERS)?).map_err(|_| NotExecutable)?;
    let start = signature + SIGNATURE.len();
    if file.get(signature..start) == Some(SIGNATURE) { Ok(start) } else { Err(NotExecutable) }
}

fn number16(file: &[u8], at: usize) -> Result<u16, NotExecutable> {
    file.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u16::from_le_bytes(*bytes)).ok_or(NotExecutable)
}

fn number32(file: &[u8], at: usize) -> Result<u32, NotExecutable> {
    file.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes)).ok_or(NotExecutable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An executable with headers alone: its last section has 0x123 bytes at 0x4000.
    fn executable(sections: u16, alignment: u32) -> Vec<u8> {
        let mut file = vec![0; 0x40 + 4 + 20 + 112 + 2 * 40];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(HEADERS, &0x40u32.to_le_bytes());
        put(0x40, SIGNATURE);
        put(0x44 + 2, &sections.to_le_bytes());
        put(0x44 + 16, &112u16.to_le_bytes());
        put(0x58, &PE32_PLUS.to_le_bytes());
        put(0x58 + 32, &alignment.to_le_bytes());
        put(0x58 + 36, &0x200u32.to_le_bytes());
        put(0x58 + 112 + 40 + 8, &0x123u32.to_le_bytes());
        put(0x58 + 112 + 40 + 12, &0x4000u32.to_le_bytes());
        file
    }

    #[test]
    fn the_end_of_the_last_section_and_the_alignment_are_read() {
        let layout = Layout::read(&executable(2, 0x1000)).unwrap();
        assert_eq!(layout, Layout { end: 0x4123, alignment: 0x1000 });
        assert_eq!(layout.align(0x4123), 0x5000);
        assert_eq!(layout.align(0x5000), 0x5000);
        assert_eq!(Layout::read(&executable(2, 0)).unwrap().alignment, 0x200);
        assert_eq!(timestamp(&executable(2, 0)), Ok(0x48));
    }

    #[test]
    fn other_files_are_refused() {
        let good = executable(2, 0x1000);
        for file in [&b""[..], b"MZ", &good[..100], &executable(0, 0x1000), &[0xff; 200]] {
            assert_eq!(Layout::read(file), Err(NotExecutable));
        }
        for length in 0..0x44 + FILE_HEADER + 64 + 4 {
            assert_eq!(checksum(&good[..length]), Err(NotExecutable), "cut off at {length}");
            assert_eq!(timestamp(&good[..length]).is_ok(), length >= 0x44 + 8, "cut off at {length}");
        }
    }
}
