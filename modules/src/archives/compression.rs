//! Compressing and decompressing streams in the formats that osbc reads and writes itself.
//!
//! Owns the settings that make the output repeatable (no names, no times, no dependence on the number of cores); knows
//! nothing of files.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread::available_parallelism;

use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Check, LzmaOptions, MtStreamBuilder, Stream};
use liblzma::write::XzEncoder;

/// The operating system `Unix` in the header of a gzip file, as gzip(1) writes it.
const GZIP_UNIX: u8 = 3;

/// How much memory a decoder of xz or lzma may take, in bytes; `xz -9` makes what takes a sixteenth of it.
const MAX_MEMORY: u64 = 1 << 30;

/// A format of compressed data that osbc writes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// RFC 1952, without name and time; levels 1 to 9.
    Gzip,
    /// bzip2; levels 1 to 9.
    Bzip2,
    /// The legacy `.lzma` container; presets 0 to 9.
    Lzma,
    /// xz with CRC64, in blocks of the preset's default size as `xz --threads 0` makes them; presets 0 to 9.
    Xz,
    /// Zstandard with a checksum; levels 1 to 22.
    Zstd,
}

impl Format {
    /// The level that the format's own command-line tool uses by default.
    pub(crate) fn default_level(self) -> u32 {
        match self {
            Format::Gzip | Format::Lzma | Format::Xz => 6,
            Format::Bzip2 => 9,
            Format::Zstd => 3,
        }
    }

    /// An encoder that writes to `out`; `size` is the number of bytes that will come, where known (only zstd records
    /// it).
    ///
    /// The result is complete after [`Encoder::finish`].
    ///
    /// # Errors
    /// The encoder cannot be set up, mostly because memory is short.
    pub(crate) fn encoder<W: Write>(self, level: u32, size: Option<u64>, out: W) -> io::Result<Encoder<W>> {
        Ok(match self {
            Format::Gzip => Encoder::Gzip(
                flate2::GzBuilder::new()
                    .operating_system(GZIP_UNIX)
                    .mtime(0)
                    .write(out, flate2::Compression::new(level)),
            ),
            Format::Bzip2 => Encoder::Bzip2(BzEncoder::new(out, bzip2::Compression::new(level))),
            Format::Lzma => {
                let stream = Stream::new_lzma_encoder(&LzmaOptions::new_preset(level)?)?;
                Encoder::Lzma(XzEncoder::new_stream(out, stream))
            }
            Format::Xz => Encoder::Lzma(XzEncoder::new_stream(out, xz_stream(level)?)),
            Format::Zstd => {
                let level = i32::try_from(level).map_err(io::Error::other)?;
                let mut encoder = zstd::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(size)?;
                encoder.multithread(threads())?;
                Encoder::Zstd(encoder)
            }
        })
    }
}

fn threads() -> u32 {
    available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()).unwrap_or(1)
}

/// An xz encoder with as many threads as there are cores, fewer where they would take more than a quarter of the
/// memory.
///
/// Their number does not show in the output.
fn xz_stream(preset: u32) -> io::Result<Stream> {
    let info = rustix::system::sysinfo();
    let memory = info.totalram.saturating_mul(info.mem_unit.into());
    let mut builder = MtStreamBuilder::new();
    builder.preset(preset).check(Check::Crc64);
    let mut count = threads();
    builder.threads(count);
    while count > 1 && builder.memusage() > memory / 4 {
        count -= 1;
        builder.threads(count);
    }
    Ok(builder.encoder()?)
}

/// Compresses what is written to it.
pub(crate) enum Encoder<W: Write> {
    /// gzip.
    Gzip(GzEncoder<W>),
    /// bzip2.
    Bzip2(BzEncoder<W>),
    /// xz and lzma.
    Lzma(XzEncoder<W>),
    /// Zstandard.
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Writes the end of the stream and gives back where it went.
    ///
    /// # Errors
    /// Writing fails.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Bzip2(encoder) => encoder.finish(),
            Encoder::Lzma(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Gzip(encoder) => encoder.write(data),
            Encoder::Bzip2(encoder) => encoder.write(data),
            Encoder::Lzma(encoder) => encoder.write(data),
            Encoder::Zstd(encoder) => encoder.write(data),
        }
    }

    /// Does nothing: flushing would show in the data, and some formats cannot.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the compressed data that `input` holds, decompressed: gzip, bzip2, lzip, lzma, xz and zstd are known by their
/// first bytes, several members in a row count as one stream.
///
/// None for anything else.
///
/// # Errors
/// Reading fails, or a decoder cannot be set up. Later, decoding data that takes too much memory fails.
pub(crate) fn decoder<'a, R: Read + 'a>(input: R) -> io::Result<Option<Box<dyn Read + 'a>>> {
    decoder_within(input, MAX_MEMORY)
}

/// Does the same with a decoder that takes at most so many bytes of memory; zstd's takes at most 128 MiB by itself.
///
/// # Errors
/// As for [`decoder`]; reading fails where the decoder would need more.
pub(crate) fn decoder_within<'a, R: Read + 'a>(input: R, memory: u64) -> io::Result<Option<Box<dyn Read + 'a>>> {
    let mut input = BufReader::with_capacity(1 << 17, input);
    let Some(magic) = Magic::of(input.fill_buf()?) else { return Ok(None) };
    Ok(Some(match magic {
        Magic::Gzip => Box::new(MultiGzDecoder::new(input)),
        Magic::Bzip2 => Box::new(MultiBzDecoder::new(input)),
        Magic::Lzip => Box::new(XzDecoder::new_stream(input, Stream::new_lzip_decoder(memory, CONCATENATED)?)),
        Magic::Lzma => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(memory)?)),
        Magic::Xz => Box::new(XzDecoder::new_stream(input, Stream::new_stream_decoder(memory, CONCATENATED)?)),
        Magic::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
    }))
}

/// Reads the gzip data that `input` holds, decompressed; several members in a row count as one stream.
///
/// # Errors
/// Reading fails, or it is no gzip data.
pub(crate) fn gunzip(input: impl Read) -> io::Result<impl Read> {
    let mut input = BufReader::with_capacity(1 << 17, input);
    match Magic::of(input.fill_buf()?) {
        Some(Magic::Gzip) => Ok(MultiGzDecoder::new(input)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no gzip data")),
    }
}

/// What the first bytes of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magic {
    Gzip,
    Bzip2,
    Lzip,
    Lzma,
    Xz,
    Zstd,
}

impl Magic {
    /// Where a tar archive says that it is one; its first bytes are a file's name, which may look like anything.
    const TAR: std::ops::Range<usize> = 257..262;

    fn of(head: &[u8]) -> Option<Self> {
        const KNOWN: [(&[u8], Magic); 6] = [
            (b"\x1f\x8b", Magic::Gzip),
            (b"BZh", Magic::Bzip2),
            (b"LZIP", Magic::Lzip),
            (b"\x5d\0\0", Magic::Lzma),
            (b"\xfd7zXZ\0", Magic::Xz),
            (b"\x28\xb5\x2f\xfd", Magic::Zstd),
        ];
        if head.get(Self::TAR) == Some(b"ustar") {
            return None;
        }
        KNOWN.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| *format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Format; 5] = [Format::Gzip, Format::Bzip2, Format::Lzma, Format::Xz, Format::Zstd];

    /// Some megabytes that compress, so that several blocks arise.
    fn sample() -> Vec<u8> {
        (0..700_000u32).flat_map(|number| (number / 3).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    fn compress(format: Format, level: u32, data: &[u8]) -> Vec<u8> {
        let mut encoder = format.encoder(level, None, Vec::new()).expect("an encoder");
        encoder.write_all(data).expect("memory takes it");
        encoder.flush().expect("nothing to be done");
        encoder.finish().expect("memory takes it")
    }

    fn decompress(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decoder(data)?.expect("it is recognized").read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_format_gives_back_what_it_was_given_and_is_recognized_by_content() {
        let data = sample();
        for format in ALL {
            for level in [1, format.default_level()] {
                let packed = compress(format, level, &data);
                assert!(packed.len() < data.len(), "{format:?} at {level} does not compress");
                assert_eq!(decompress(&packed).expect("it decodes"), data, "{format:?} at {level}");
            }
        }
    }

    #[test]
    fn empty_data_survives_every_format() {
        for format in ALL {
            assert_eq!(decompress(&compress(format, 1, b"")).expect("it decodes"), b"", "{format:?}");
        }
    }

    #[test]
    fn what_is_not_compressed_is_not_decompressed() {
        let mut archive = [0; 512];
        archive[0] = b']';
        archive[257..262].copy_from_slice(b"ustar");
        for data in [&b""[..], b"x", b"plain text", &archive] {
            assert!(decoder(data).expect("it is read").is_none());
        }
    }

    #[test]
    fn a_decoder_that_needs_more_memory_than_it_may_take_fails() {
        for format in [Format::Lzma, Format::Xz] {
            let packed = compress(format, 9, &sample());
            let read = |memory| {
                io::copy(&mut decoder_within(&packed[..], memory)?.expect("it is recognized"), &mut io::sink())
            };
            assert!(read(128 << 20).is_ok());
            assert!(read(32 << 20).unwrap_err().to_string().contains("memory limit"), "{format:?}");
        }
    }

    #[test]
    fn members_in_a_row_are_one_stream() {
        for format in [Format::Gzip, Format::Bzip2, Format::Xz, Format::Zstd] {
            let twice = [compress(format, 1, b"one "), compress(format, 1, b"two")].concat();
            assert_eq!(decompress(&twice).expect("it decodes"), b"one two", "{format:?}");
        }
    }

    #[test]
    fn truncated_data_is_an_error() {
        for format in [Format::Gzip, Format::Bzip2, Format::Xz, Format::Zstd] {
            let packed = compress(format, 1, &sample()[..100_000]);
            assert!(decompress(&packed[..packed.len() / 2]).is_err(), "{format:?}");
        }
    }

    #[test]
    fn data_that_take_too_much_memory_are_not_decoded() {
        let options = |dictionary: u32| {
            let mut options = LzmaOptions::new_preset(1).expect("options");
            options.dict_size(dictionary);
            options
        };
        let header = |dictionary: u32| {
            let stream = Stream::new_lzma_encoder(&options(dictionary)).expect("an encoder");
            let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(b"x").expect("memory takes it");
            encoder.finish().expect("memory takes it")
        };
        assert_eq!(decompress(&header(64 << 20)).expect("as much as xz -9 takes"), b"x");
        let mut large = header(1 << 20);
        large[1..5].copy_from_slice(&(3_u32 << 30).to_le_bytes());
        let error = decompress(&large).expect_err("a dictionary of 3 GiB").to_string();
        assert!(error.contains("memory"), "{error}");
    }

    #[test]
    fn a_gzip_header_holds_neither_name_nor_time() {
        let packed = compress(Format::Gzip, 6, b"x");
        assert_eq!(packed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    }
}
