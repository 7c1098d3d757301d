//! Writing disk images in QEMU's format qcow2, on all cores and always alike: clusters are compressed side by side and
//! stand in the file in the order in which the disk has them.
//!
//! Knows nothing of stages.
//!
//! The format is described in `docs/interop/qcow2.rst` of QEMU. An image made here has clusters of 64 KiB, reference
//! counts of 16 bits, no snapshots and no backing file; the tables, whose sizes are known last, follow the data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flate2::{Compress, FlushCompress, Status};
use osbc_module_api::data_extents::data_blocks;
use osbc_module_api::*;
use rayon::prelude::*;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_LENGTH: usize = 1 << CLUSTER_BITS;
/// What the lengths of compressed clusters, and sizes of disks, are counted in.
const SECTOR: u64 = 512;
/// Entries of a table of the second level, and of the table of reference blocks.
const ENTRIES: u64 = CLUSTER / 8;
/// Reference counts of a block.
const COUNTS: u64 = CLUSTER / 2;
/// Clusters that are read and compressed before they are written.
const BATCH: usize = 256;
/// Clusters of a batch that one thread takes at a time.
const PART: usize = 16;

/// An entry leads to a cluster that nothing else refers to.
const COPIED: u64 = 1 << 63;
/// An entry leads to compressed data.
const COMPRESSED: u64 = 1 << 62;
/// Where the number of further sectors stands in an entry that leads to compressed data.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// The incompatible feature that the header says how clusters are compressed.
const COMPRESSION_TYPE: u64 = 1 << 3;
/// The length of a header of version 3 that says how clusters are compressed.
const V3_HEADER: u32 = 112;
/// The logarithm of the bits of a reference count.
const COUNT_ORDER: u32 = 4;

/// QEMU inflates with a window of that many bits.
const ZLIB_WINDOW_BITS: u8 = 12;
const ZSTD_LEVEL: i32 = 3;

/// The version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// What QEMU calls `0.10`.
    V2,
    /// What QEMU calls `1.1`.
    V3,
}

impl Version {
    /// The version that QEMU takes `compat` for; the newer one where nothing is said.
    ///
    /// # Errors
    /// There is no such version.
    pub(crate) fn of(compat: Option<&str>) -> Result<Self, Error> {
        match compat {
            Some("0.10" | "v2") => Ok(Version::V2),
            None | Some("" | "1.1" | "v3") => Ok(Version::V3),
            Some(other) => Err(Error::failed(format!("qcow2 has no version {other}; there are 0.10 and 1.1"))),
        }
    }
}

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Deflate without a header; any QEMU reads it.
    Zlib,
    /// Zstandard, in version 3 alone; QEMU 5.1 and newer read it.
    Zstd,
}

/// Writes the raw disk `source` to the empty file `target` as qcow2.
///
/// Clusters of zeros are left out, and those that do not get smaller are stored as they are. A last sector that is not
/// whole is filled with zeros.
///
/// # Errors
/// Reading or writing fails; zstd is wanted in version 2.
pub(crate) fn write(
    source: &File,
    target: &File,
    version: Version,
    compression: Option<Compression>,
) -> io::Result<()> {
    if version == Version::V2 && compression == Some(Compression::Zstd) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "zstd needs version 1.1 of the format, not 0.10"));
    }
    let length = source.metadata()?.len();
    threads::start_pool().map_err(io::Error::other)?;
    let mut image = Image { target, end: CLUSTER, tables: BTreeMap::new(), counts: Vec::new() };
    image.count(0, CLUSTER);
    for batch in data_blocks(source, length, CLUSTER)?.chunks(BATCH) {
        // One packer for several clusters, since it takes as long to make one.
        let parts = batch.par_chunks(PART).map(|part| {
            let mut packer = Packer::new(compression)?;
            part.iter().map(|number| packer.pack(source, *number)).collect::<io::Result<Vec<_>>>()
        });
        let packed = parts.collect::<io::Result<Vec<_>>>()?;
        for (number, cluster) in batch.iter().zip(packed.into_iter().flatten()) {
            if let Some(cluster) = cluster {
                image.add(*number, &cluster)?;
            }
        }
    }
    image.finish(length.next_multiple_of(SECTOR), version, compression)
}

/// What a cluster is stored as.
enum Cluster {
    Plain(Vec<u8>),
    Compressed(Vec<u8>),
}

/// Reads and compresses clusters, one after another.
enum Packer {
    Store,
    Zlib(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Packer {
    fn new(compression: Option<Compression>) -> io::Result<Self> {
        Ok(match compression {
            None => Packer::Store,
            Some(Compression::Zlib) => {
                Packer::Zlib(Compress::new_with_window_bits(flate2::Compression::default(), false, ZLIB_WINDOW_BITS))
            }
            Some(Compression::Zstd) => Packer::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        })
    }

    /// The cluster `number` of the disk; none if it is all zeros.
    fn pack(&mut self, source: &File, number: u64) -> io::Result<Option<Cluster>> {
        let plain = read(source, number * CLUSTER)?;
        if plain.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // What is not smaller does not fit.
        let mut packed = vec![0; CLUSTER_LENGTH - 1];
        let length = match self {
            Packer::Store => None,
            Packer::Zlib(compress) => {
                compress.reset();
                let status = compress.compress(&plain, &mut packed, FlushCompress::Finish)?;
                (status == Status::StreamEnd).then(|| index(compress.total_out()))
            }
            // It fails only without room.
            Packer::Zstd(compressor) => compressor.compress_to_buffer(&plain, &mut packed).ok(),
        };
        Ok(Some(match length {
            Some(length) => {
                packed.truncate(length);
                Cluster::Compressed(packed)
            }
            None => Cluster::Plain(plain),
        }))
    }
}

/// The cluster at `start`, filled with zeros where the file ends.
fn read(source: &File, start: u64) -> io::Result<Vec<u8>> {
    let mut cluster = vec![0; CLUSTER_LENGTH];
    let mut filled = 0;
    while filled < CLUSTER_LENGTH {
        match source.read_at(&mut cluster[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cluster)
}

/// An image as far as it is written.
struct Image<'a> {
    target: &'a File,
    /// Where the next data goes.
    end: u64,
    /// The tables of the second level that lead anywhere, by their index.
    tables: BTreeMap<u64, Vec<u64>>,
    /// How much refers to each cluster of the file.
    counts: Vec<u16>,
}

impl Image<'_> {
    /// Writes the cluster `number` of the disk.
    fn add(&mut self, number: u64, cluster: &Cluster) -> io::Result<()> {
        let entry = match cluster {
            Cluster::Plain(data) => self.append(data)? | COPIED,
            Cluster::Compressed(data) => {
                let (start, length) = (self.end, data.len() as u64);
                self.target.write_all_at(data, start)?;
                self.end += length;
                self.count(start, length);
                let further = (self.end - 1) / SECTOR - start / SECTOR;
                start | further << SECTORS_SHIFT | COMPRESSED
            }
        };
        let table = self.tables.entry(number / ENTRIES).or_insert_with(|| vec![0; index(ENTRIES)]);
        table[index(number % ENTRIES)] = entry;
        Ok(())
    }

    /// Writes data to clusters of its own, and returns where they begin.
    fn append(&mut self, data: &[u8]) -> io::Result<u64> {
        let start = self.end.next_multiple_of(CLUSTER);
        self.target.write_all_at(data, start)?;
        let length = (data.len() as u64).next_multiple_of(CLUSTER);
        self.end = start + length;
        self.count(start, length);
        Ok(start)
    }

    /// Counts one more reference to each cluster that has a part of these bytes.
    fn count(&mut self, start: u64, length: u64) {
        let clusters = start / CLUSTER..(start + length).div_ceil(CLUSTER);
        let clusters = index(clusters.start)..index(clusters.end);
        if self.counts.len() < clusters.end {
            self.counts.resize(clusters.end, 0);
        }
        self.counts[clusters].iter_mut().for_each(|count| *count += 1);
    }

    /// Writes the tables and the header of a disk of `size` bytes.
    fn finish(mut self, size: u64, version: Version, compression: Option<Compression>) -> io::Result<()> {
        let mut first_level = vec![0; index(size.div_ceil(CLUSTER * ENTRIES))];
        for (number, table) in std::mem::take(&mut self.tables) {
            first_level[index(number)] = self.append(&big_endian(&table))? | COPIED;
        }
        let first_level_offset = self.append(&big_endian(&first_level))?;

        let table_offset = self.end.next_multiple_of(CLUSTER);
        let (table_clusters, blocks) = references(table_offset / CLUSTER);
        let blocks_offset = table_offset + table_clusters * CLUSTER;
        let end = blocks_offset + blocks * CLUSTER;
        self.count(table_offset, end - table_offset);
        let table: Vec<u64> = (0..blocks).map(|number| blocks_offset + number * CLUSTER).collect();
        self.target.write_all_at(&big_endian(&table), table_offset)?;
        let counts: Vec<u8> = self.counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        self.target.write_all_at(&counts, blocks_offset)?;
        self.target.set_len(end)?;

        let mut header = Vec::new();
        header.extend(b"QFI\xfb");
        header.extend(if version == Version::V2 { 2u32 } else { 3 }.to_be_bytes());
        // No backing file.
        header.extend([0; 12]);
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(size.to_be_bytes());
        // No encryption.
        header.extend(0u32.to_be_bytes());
        header.extend(short(first_level.len() as u64)?.to_be_bytes());
        header.extend(first_level_offset.to_be_bytes());
        header.extend(table_offset.to_be_bytes());
        header.extend(short(table_clusters)?.to_be_bytes());
        // No snapshots.
        header.extend([0; 12]);
        if version == Version::V3 {
            let zstd = compression == Some(Compression::Zstd);
            header.extend(if zstd { COMPRESSION_TYPE } else { 0 }.to_be_bytes());
            // No compatible feature and none that clears itself.
            header.extend([0; 16]);
            header.extend(COUNT_ORDER.to_be_bytes());
            header.extend(V3_HEADER.to_be_bytes());
            header.extend([u8::from(zstd), 0, 0, 0, 0, 0, 0, 0]);
        }
        self.target.write_all_at(&header, 0)
    }
}

/// How many clusters the table of reference blocks takes, and how many blocks count them and the `used` ones.
fn references(used: u64) -> (u64, u64) {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let needed = (used + table + blocks).div_ceil(COUNTS);
        let next = (needed.div_ceil(ENTRIES), needed);
        if next == (table, blocks) {
            return next;
        }
        (table, blocks) = next;
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

/// A number of things in memory.
fn index(number: u64) -> usize {
    number.try_into().expect("what is counted fits into memory")
}

fn short(number: u64) -> io::Result<u32> {
    number.try_into().map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the disk is too large for the format"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use proptest::prelude::*;
    use tempfile::{NamedTempFile, tempfile};

    use super::*;

    const ALL: [(Version, Option<Compression>); 5] = [
        (Version::V2, None),
        (Version::V2, Some(Compression::Zlib)),
        (Version::V3, None),
        (Version::V3, Some(Compression::Zlib)),
        (Version::V3, Some(Compression::Zstd)),
    ];

    /// Bytes that get no smaller.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..length).map(next).collect()
    }

    fn disk(length: u64, pieces: &[(u64, Vec<u8>)]) -> NamedTempFile {
        let disk = NamedTempFile::new().unwrap();
        disk.as_file().set_len(length).unwrap();
        for (start, data) in pieces {
            disk.as_file().write_all_at(data, *start).unwrap();
        }
        disk
    }

    fn image(disk: &NamedTempFile, version: Version, compression: Option<Compression>) -> NamedTempFile {
        let image = NamedTempFile::new().unwrap();
        write(disk.as_file(), image.as_file(), version, compression).unwrap();
        image
    }

    fn qemu_img(arguments: &[&str], paths: &[&Path]) -> String {
        let output = Command::new("qemu-img").args(arguments).args(paths).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// QEMU finds the image sound, and the disk in it.
    fn check(disk: &NamedTempFile, version: Version, compression: Option<Compression>) -> Value {
        let image = image(disk, version, compression);
        let found = qemu_img(&["check", "-f", "qcow2", "--output=json"], &[image.path()]);
        qemu_img(&["compare", "-f", "raw", "-F", "qcow2"], &[disk.path(), image.path()]);
        serde_json::from_str(&found).unwrap()
    }

    #[test]
    fn qemu_reads_what_is_written() {
        if !has_tool("qemu-img") {
            return;
        }
        let text = b"some text that repeats; ".repeat(20_000);
        let disk = disk(
            // More than one table of the second level.
            600 << 20,
            &[(0, text.clone()), (512 << 20, noise(200_000)), ((600 << 20) - 100_000, text[..100_000].to_vec())],
        );
        for (version, compression) in ALL {
            let found = check(&disk, version, compression);
            assert_eq!((&found["corruptions"], &found["leaks"]), (&Value::Null, &Value::Null), "{found}");
            // The text takes 8 clusters, the noise 4, the end 2.
            assert_eq!(found["allocated-clusters"], 14);
            let compressed = compression.map_or(Value::Null, |_| json!(11));
            assert_eq!(found["compressed-clusters"], compressed, "{found}");
            let image = image(&disk, version, compression);
            let facts: Value = serde_json::from_str(&qemu_img(&["info", "--output=json"], &[image.path()])).unwrap();
            assert_eq!(facts["virtual-size"], 600 << 20);
            let data = &facts["format-specific"]["data"];
            assert_eq!(data["compat"], if version == Version::V2 { "0.10" } else { "1.1" });
            let kind = if compression == Some(Compression::Zstd) { "zstd" } else { "zlib" };
            assert!(version == Version::V2 || data["compression-type"] == kind, "{data}");
        }
    }

    #[test]
    fn disks_without_data_and_those_that_end_within_a_cluster_are_kept() {
        if !has_tool("qemu-img") {
            return;
        }
        for length in [0, 512, 70_000, 1 << 31] {
            for (version, compression) in ALL {
                check(&disk(length, &[]), version, compression);
            }
        }
        let disk = disk(70_000, &[(65_000, vec![7; 5_000])]);
        check(&disk, Version::V3, Some(Compression::Zlib));
        // 70,000 bytes are 136 sectors and a part of one.
        let image = image(&disk, Version::V3, None);
        assert!(qemu_img(&["info", "--output=json"], &[image.path()]).contains("\"virtual-size\": 70144"));
    }

    #[test]
    fn many_clusters_that_share_one_are_counted() {
        if !has_tool("qemu-img") {
            return;
        }
        // Each cluster becomes a few bytes: hundreds of them lie in one of the file.
        let disk = disk(256 << 20, &[(0, vec![1; 256 << 20])]);
        for compression in [Compression::Zlib, Compression::Zstd] {
            assert_eq!(check(&disk, Version::V3, Some(compression))["compressed-clusters"], 4096);
        }
    }

    #[test]
    fn version_2_knows_no_zstd() {
        let error = write(&tempfile().unwrap(), &tempfile().unwrap(), Version::V2, Some(Compression::Zstd));
        assert_eq!(error.unwrap_err().to_string(), "zstd needs version 1.1 of the format, not 0.10");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn images_hold_their_disks_and_do_not_depend_on_the_number_of_threads(
            length in 0_u64..40 << 20,
            pieces in prop::collection::vec((0_u64..1000, 0_usize..300_000, any::<u8>(), any::<bool>()), 0..12),
            which in 0..ALL.len(),
        ) {
            prop_assume!(has_tool("qemu-img"));
            let pieces: Vec<(u64, Vec<u8>)> = pieces
                .into_iter()
                .map(|(place, size, byte, noisy)| {
                    let start = length * place / 1000;
                    let size = size.min(index(length - start));
                    (start, if noisy { noise(size) } else { vec![byte; size] })
                })
                .collect();
            let disk = disk(length, &pieces);
            let (version, compression) = ALL[which];
            check(&disk, version, compression);
            let bytes = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                std::fs::read(pool.install(|| image(&disk, version, compression)).path()).unwrap()
            };
            prop_assert_eq!(bytes(1), bytes(3));
        }
    }
}
