//! GUID partition tables (UEFI 2.10, chapter 5), to the byte what sfdisk(8) makes of the same partitions. Knows nothing
//! of what is in the partitions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flate2::Crc;
use uuid::Uuid;

use crate::disks::partition_table::SECTOR;

/// How many partitions a table has room for.
pub(crate) const MOST_PARTITIONS: usize = 128;
/// How many UTF-16 units a partition's name has room for.
pub(crate) const LONGEST_NAME: usize = 36;

/// Bytes of a header that count.
const HEADER: usize = 92;
/// Bytes of a partition's entry.
const ENTRY: usize = 128;
/// Sectors of all entries.
const ENTRIES: u64 = (MOST_PARTITIONS * ENTRY) as u64 / SECTOR;
/// The first sector that partitions may use, as sfdisk chooses it.
const FIRST_USABLE: u64 = 2048;

/// A partition.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    /// Its type.
    pub(crate) kind: Uuid,
    /// Its identifier.
    pub(crate) id: Uuid,
    /// Its first sector.
    pub(crate) start: u64,
    /// Its size in sectors.
    pub(crate) size: u64,
    /// Its name, of at most [`LONGEST_NAME`] units.
    pub(crate) name: String,
}

/// Writes the table `id` with at most [`MOST_PARTITIONS`] partitions to an image of `sectors` sectors.
///
/// # Errors
/// The image cannot be written, or is too small for the table.
pub(crate) fn write(image: &File, sectors: u64, id: Uuid, partitions: &[Partition]) -> io::Result<()> {
    let last = sectors.checked_sub(1).filter(|last| *last > FIRST_USABLE + ENTRIES);
    let last = last.ok_or_else(|| io::Error::other("the image has no room for a partition table"))?;
    let mut entries = vec![0; MOST_PARTITIONS * ENTRY];
    for (entry, partition) in entries.chunks_exact_mut(ENTRY).zip(partitions) {
        entry[..16].copy_from_slice(&partition.kind.to_bytes_le());
        entry[16..32].copy_from_slice(&partition.id.to_bytes_le());
        entry[32..40].copy_from_slice(&partition.start.to_le_bytes());
        entry[40..48].copy_from_slice(&(partition.start + partition.size - 1).to_le_bytes());
        for (place, unit) in entry[56..].chunks_exact_mut(2).zip(partition.name.encode_utf16()) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let header = |own: u64, other: u64, first_entry: u64| {
        let mut header = b"EFI PART\0\0\x01\0".to_vec();
        header.extend((HEADER as u32).to_le_bytes());
        // The checksum of the header, then what is reserved.
        header.extend([0; 8]);
        for sector in [own, other, FIRST_USABLE, last - ENTRIES - 1] {
            header.extend(sector.to_le_bytes());
        }
        header.extend(id.to_bytes_le());
        header.extend(first_entry.to_le_bytes());
        for number in [MOST_PARTITIONS as u32, ENTRY as u32, checksum(&entries)] {
            header.extend(number.to_le_bytes());
        }
        let sum = checksum(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    };
    image.write_all_at(&protective(last), 446)?;
    image.write_all_at(&header(1, last, 2), SECTOR)?;
    image.write_all_at(&entries, 2 * SECTOR)?;
    image.write_all_at(&entries, (last - ENTRIES) * SECTOR)?;
    image.write_all_at(&header(last, 1, last - ENTRIES), last * SECTOR)
}

/// The end of the first sector: a DOS table that says that all of the disk is taken.
fn protective(last: u64) -> Vec<u8> {
    let mut table = vec![0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    table.extend(u32::try_from(last).unwrap_or(u32::MAX).to_le_bytes());
    table.resize(64, 0);
    table.extend([0x55, 0xaa]);
    table
}

fn checksum(data: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(data);
    sum.sum()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::process::{Command, Stdio};

    use osbc_fixtures::has_tool;

    use super::*;

    const ID: Uuid = Uuid::from_u128(0xd209_c89e_ea5e_4fbd_b161_b461_cce2_97e0);
    const ROOT: Uuid = Uuid::from_u128(0x4f68_bce3_e8cd_4db1_96e7_fbca_f984_b709);

    fn partitions() -> Vec<Partition> {
        ["boot", "", "the röot"]
            .into_iter()
            .zip([(2048, 2048), (4096, 2048), (8192, 1)])
            .map(|(name, (start, size))| Partition {
                kind: ROOT,
                id: Uuid::new_v5(&ID, name.as_bytes()),
                start,
                size,
                name: name.to_owned(),
            })
            .collect()
    }

    #[test]
    fn tables_are_those_of_sfdisk_to_the_byte() {
        if !has_tool("sfdisk") {
            return;
        }
        for size in [8 << 20, (8 << 20) + 3 * 512 + 7, 3 << 40] {
            let (mut ours, mut theirs) = (tempfile::tempfile().unwrap(), tempfile::NamedTempFile::new().unwrap());
            ours.set_len(size).unwrap();
            write(&ours, size / SECTOR, ID, &partitions()).unwrap();
            theirs.as_file().set_len(size).unwrap();
            let mut script = format!("label: gpt\nlabel-id: {ID}\n");
            for Partition { kind, id, start, size, name } in partitions() {
                script += &format!("start={start}, size={size}, type={kind}, uuid={id}, name=\"{name}\"\n");
            }
            let mut sfdisk = Command::new("/usr/sbin/sfdisk");
            let sfdisk = sfdisk.args(["-q", "--no-tell-kernel"]).arg(theirs.path()).env("LC_ALL", "C.UTF-8");
            let mut sfdisk = sfdisk.stdin(Stdio::piped()).spawn().unwrap();
            sfdisk.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(sfdisk.wait().unwrap().success());
            for (place, length) in [(0, 1 << 20), (size / SECTOR * SECTOR - (1 << 15), 1 << 15)] {
                let read = |file: &mut File| {
                    let mut bytes = vec![0; length];
                    file.seek(io::SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut bytes)).unwrap();
                    bytes
                };
                assert!(read(&mut ours) == read(theirs.as_file_mut()), "{size} from {place}");
            }
        }
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused() {
        let file = tempfile::tempfile().unwrap();
        for sectors in [0, 1, 2048, 2081] {
            assert!(write(&file, sectors, ID, &[]).is_err(), "{sectors}");
        }
        write(&file, 2082, ID, &[]).unwrap();
    }
}
