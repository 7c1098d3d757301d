//! Tar archives as files of the tree, packed as a name or an option says.
//!
//! Knows which packers osbc has itself and which ones it takes from the build root; nothing of what is in the archive.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use osbc_module_api::*;

use crate::archives::archive::{self, Settings};
use crate::archives::compression::{self, Format};
use crate::archives::single_file;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// By osbc, at the level that the format's own tool uses by default.
    Own(Format),
    /// By this tool of the build root, which packs its standard input to its standard output.
    Tool(&'static str),
}

impl Packing {
    /// The packing that GNU tar's `--auto-compress` chooses for a file of that name.
    pub(crate) fn of_name(name: &str) -> Self {
        let base = name.rsplit('/').next().unwrap_or(name);
        let Some((stem, suffix)) = base.rsplit_once('.') else { return Packing::Plain };
        match suffix {
            _ if stem.is_empty() => Packing::Plain,
            "gz" | "tgz" | "taz" => Packing::Own(Format::Gzip),
            "bz2" | "tbz" | "tbz2" | "tz2" => Packing::Own(Format::Bzip2),
            "lzma" | "tlz" => Packing::Own(Format::Lzma),
            "xz" | "txz" => Packing::Own(Format::Xz),
            "zst" | "tzst" => Packing::Own(Format::Zstd),
            "Z" | "taZ" => Packing::Tool("compress"),
            "lz" => Packing::Tool("lzip"),
            "lzo" => Packing::Tool("lzop"),
            _ => Packing::Plain,
        }
    }
}

/// Returns the tool of the build root that packs the archive of a stage with these options; `None` if none does.
pub(crate) fn packer(options: &Value) -> Option<&'static str> {
    let by_name = options["compression"].as_str().is_none_or(|compression| compression == "auto");
    match options["filename"].as_str().filter(|_| by_name).map(Packing::of_name) {
        Some(Packing::Tool(name)) => Some(name),
        _ => None,
    }
}

/// Archives `members` of the directory `root` to the file `target` of the stage's tree.
///
/// # Errors
/// A member cannot be archived, the file cannot be written, or a tool is missing or fails.
pub(crate) fn write(
    cx: &StageContext,
    root: &Path,
    members: &[OsString],
    settings: &Settings,
    packing: Packing,
    target: &str,
) -> Result<(), Error> {
    let file = single_file::create(&cx.tree, target)?;
    match packing {
        Packing::Plain => archive::write(root, members, settings, buffered(file)).map(drop),
        Packing::Own(format) => {
            let encoder = format.encoder(format.default_level(), None, buffered(file));
            let encoder = archive::write(root, members, settings, encoder.map_err(Error::io("compress to", target))?)?;
            encoder.finish().and_then(|mut file| file.flush()).map_err(Error::io("compress to", target))
        }
        Packing::Tool(name) => {
            let mut command = cx.tool(name)?.into_command();
            let start = Error::io("start", name);
            let mut packer = command.stdin(Stdio::piped()).stdout(file).spawn().map_err(start)?;
            let written = match packer.stdin.take() {
                Some(pipe) => archive::write(root, members, settings, pipe).map(drop),
                None => Err(Error::io("write to", name)(io::Error::from(io::ErrorKind::BrokenPipe))),
            };
            let status = packer.wait().map_err(Error::io("wait for", name))?;
            // A packer that fails takes the pipe away: its own word says more than the broken pipe.
            if status.success() { written } else { Err(Error::ToolFailed { command: name.to_owned(), status }) }
        }
    }
}

fn buffered(file: File) -> BufWriter<File> {
    BufWriter::with_capacity(1 << 18, file)
}

/// Extracts the archive in the file `source` to the directory `target`, with `tar` of the build root and these options
/// of its.
///
/// What is compressed in a way that osbc knows is decompressed without further tools.
///
/// # Errors
/// The archive cannot be read, or `tar` is missing or fails.
pub(crate) fn extract(cx: &StageContext, source: &Path, options: &[&str], target: &Path) -> Result<(), Error> {
    unpack(cx, source, options, target).map_err(|error| match error {
        Error::ToolFailed { .. } => unmapped_owner(source).unwrap_or(error),
        error => error,
    })
}

/// Returns the failure that `tar` had if a member has an owner that no file here can have.
fn unmapped_owner(source: &Path) -> Option<Error> {
    let open = || File::open(source).ok();
    let mut archive = tar::Archive::new(match compression::decoder(open()?).ok()? {
        Some(decoder) => decoder,
        None => Box::new(open()?),
    });
    archive.entries().ok()?.map_while(Result::ok).find_map(|member| {
        let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
        let reason = owners::unmapped(id(member.header().uid()), id(member.header().gid()))?;
        let name = member.path().ok()?;
        Some(Error::failed(format!("cannot extract {}: {reason}", name.display())))
    })
}

fn unpack(cx: &StageContext, source: &Path, options: &[&str], target: &Path) -> Result<(), Error> {
    let archive = File::open(source).map_err(Error::io("open", source))?;
    let decoder = compression::decoder(archive).map_err(Error::io("read", source))?;
    let tar = cx.tool("tar")?.args(options);
    match decoder {
        // Not compressed, or in a way that tar knows a tool for.
        None => tar.args(["--auto-compress", "-x", "-f"]).arg(source).arg("-C").arg(target).run(),
        Some(decoder) => {
            let tar = tar.args(["-x", "-f", "-", "-C"]).arg(target).into_command();
            feed(decoder, tar).map_err(|failure| match failure {
                Failure::Archive(error) => Error::io("decompress", source)(error),
                Failure::Tar(error) => error,
            })
        }
    }
}

enum Failure {
    /// The data cannot be read.
    Archive(io::Error),
    /// tar fails.
    Tar(Error),
}

/// Runs `tar` with the data as its standard input.
fn feed(mut data: impl Read, mut tar: Command) -> Result<(), Failure> {
    let wait = |error| Failure::Tar(Error::io("run", "tar")(error));
    let mut child = tar.stdin(Stdio::piped()).spawn().map_err(wait)?;
    let fed = match child.stdin.take() {
        Some(mut pipe) => copy(&mut data, &mut pipe),
        None => Ok(()),
    };
    let status = child.wait().map_err(wait)?;
    fed.map_err(Failure::Archive)?;
    let failed = || Failure::Tar(Error::ToolFailed { command: "tar -x".to_owned(), status });
    status.success().then_some(()).ok_or_else(failed)
}

/// Copies all data as long as somebody reads it: tar may be done, or give up, before the end.
fn copy(data: &mut impl Read, pipe: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match data.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match pipe.write_all(&buffer[..count]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_names_suffix_chooses_the_packing() {
        for (name, packing) in [
            ("a.tar", Packing::Plain),
            ("a", Packing::Plain),
            (".gz", Packing::Plain),
            ("x.gz/a", Packing::Plain),
            ("x/.gz", Packing::Plain),
            ("a.GZ", Packing::Plain),
            ("a.tar.gz", Packing::Own(Format::Gzip)),
            ("x/a.tbz2", Packing::Own(Format::Bzip2)),
            ("a.tar.xz", Packing::Own(Format::Xz)),
            ("a.tar.zst", Packing::Own(Format::Zstd)),
            ("a.tar.lzma", Packing::Own(Format::Lzma)),
            ("a.tar.Z", Packing::Tool("compress")),
        ] {
            assert_eq!(Packing::of_name(name), packing, "{name}");
        }
    }
}
