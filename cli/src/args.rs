//! The command line, as typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod store;

pub(crate) use store::{KeepArgs, StoreArgs, StoreCommand};

/// A build-graph compiler and parallel executor for operating-system images.
///
/// Manifests in osbuild's formats become a graph of stages. Stages whose results are in the store are skipped; the
/// others run in parallel, each in its own sandbox.
#[derive(Debug, Parser)]
#[command(name = "osbc", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the build failed; 2 bad manifest or arguments; 3 the environment \
                          lacks something; 130 interrupted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a build would do, and why, without changing anything
    Plan(PlanArgs),
    /// Explain why stages run, are cached or are not needed, compared with the last build
    Explain(ExplainArgs),
    /// Compare two manifests by meaning; exit code 1 if they differ
    Diff(DiffArgs),
    /// Build pipelines and export their trees
    Build(BuildArgs),
    /// Write a manifest from a short description of a system
    #[command(subcommand)]
    Resolve(ResolveCommand),
    /// Boot an image in a virtual machine and watch its serial console
    Boot(BootArgs),
    /// Open a shell where a stage would run: in its sandbox, on the tree that it would change
    Shell(ShellArgs),
    /// Show the recorded builds, the stages of one, or the log of a stage
    Log(LogArgs),
    /// Write an HTML page about a build: its graph, its timeline, the cost of each stage
    Report(ReportArgs),
    /// Check what this machine can do for builds, and how to get what is missing; remove what dead builds left
    Doctor(DoctorArgs),
    /// Draw the build graph
    Graph(GraphArgs),
    /// Print the manifest with the ids of its stages
    Inspect(InspectArgs),
    /// List the modules, or show one
    Modules(ModulesArgs),
    /// Compare osbuild's and osbc's reading of a manifest, ids included
    Compat(CompatArgs),
    #[command(disable_version_flag = true)]
    Osbuild(crate::dropin::arguments::Arguments),
    /// Inspect the store, verify it, or make room in it
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write a page for each command
    Man {
        /// Write `osbc.1`, `osbc-build.1`, … here instead of printing
        directory: Option<PathBuf>,
    },
}

impl Command {
    /// Whether it makes, reads or removes trees, whose files have many owners.
    pub(crate) fn works_on_trees(&self) -> bool {
        matches!(self, Self::Build(_) | Self::Shell(_) | Self::Store(_) | Self::Doctor(_) | Self::Osbuild(_))
    }

    /// Whether it reads manifests or a store, which uses all processors.
    pub(crate) fn works_in_parallel(&self) -> bool {
        let is_plain = matches!(
            self,
            Self::Boot(_)
                | Self::Compat(_)
                | Self::Completions { .. }
                | Self::Doctor(_)
                | Self::Log(_)
                | Self::Man { .. }
                | Self::Modules(_)
                | Self::Report(_)
                | Self::Resolve(_)
        );
        !is_plain
    }
}

/// A manifest, and where its modules are.
#[derive(Debug, ClapArgs)]
pub(crate) struct ManifestArgs {
    /// The manifest, a JSON file of format 1 or 2; `-` reads standard input
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: PathBuf,

    #[command(flatten)]
    pub(crate) library: LibraryArgs,
}

/// Where modules come from.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LibraryArgs {
    /// A directory of modules, like osbuild's `/usr/lib/osbuild`, for those that are not built in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) libdir: Option<PathBuf>,

    /// Where modules come from, most preferred first: `builtin`, `libdir` (the directory of --libdir) and directories,
    /// separated by commas; others are not used
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "builtin,libdir")]
    pub(crate) modules: Vec<Modules>,
}

/// Where modules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Modules {
    /// osbc itself.
    BuiltIn,
    /// The directory of `--libdir`, if there is one.
    Libdir,
    /// This directory.
    Directory(PathBuf),
}

impl FromStr for Modules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a name between commas is missing".to_owned()),
            "builtin" => Ok(Modules::BuiltIn),
            "libdir" => Ok(Modules::Libdir),
            directory => Ok(Modules::Directory(directory.into())),
        }
    }
}

/// Which pipelines, and where results are kept.
#[derive(Debug, ClapArgs)]
pub(crate) struct TargetArgs {
    /// A pipeline to build, by name or id; may be repeated. Default: the manifest's `metadata.exports`, or else every
    /// pipeline that no other pipeline uses
    #[arg(short, long = "export", value_name = "PIPELINE")]
    pub(crate) exports: Vec<String>,

    /// The store. Default: /var/cache/osbc as root, $XDG_CACHE_HOME/osbc otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// What to explain: PIPELINE, PIPELINE:TYPE (`tree:hostname`), PIPELINE:INDEX (from 0) or the beginning of an id.
    /// Default: a summary of first causes and what follows from them
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DiffArgs {
    /// The old manifest; `-` reads standard input
    #[arg(value_name = "A")]
    pub(crate) old: PathBuf,
    /// The new manifest
    #[arg(value_name = "B")]
    pub(crate) new: PathBuf,
    #[command(flatten)]
    pub(crate) library: LibraryArgs,
    /// The store in which results are looked up. Default: as for a build
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    /// Export each built pipeline to DIR/PIPELINE/
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// How many stages may run at the same time; one starts beside others only with memory and disk for it and, under
    /// `make -j`, one of make's tokens. Default: the number of processors
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// How long a stage may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stage_timeout: Option<u64>,
    /// After a failure, continue with all that does not depend on it
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// When a stage fails, open a shell in its sandbox, on its tree as it is then; stages have no time limit then
    #[arg(long)]
    pub(crate) shell_on_failure: bool,
    /// Build twice, in new stores and different environments, and show the files that differ; exit code 1 if any do
    #[arg(long, conflicts_with_all = ["output", "events", "trace"])]
    pub(crate) check: bool,
    /// Write DIR/PIPELINE.spdx.json beside each export: the packages in it
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output")]
    pub(crate) sbom: Option<SbomFormat>,
    /// Write DIR/PIPELINE.intoto.json beside each export: what it was made from, and how
    #[arg(long, requires = "output")]
    pub(crate) provenance: bool,
    /// Write the events of the build as JSON lines, as they happen
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Write a trace of the build in Chrome's format, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// The stage: the beginning of its id, PIPELINE, MODULE or PIPELINE/MODULE
    pub(crate) stage: String,
    /// The store. Default: /var/cache/osbc as root, $XDG_CACHE_HOME/osbc otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// How many stages before it may run at the same time. Default: the number of processors
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogArgs {
    /// The build: `last` (the default), or the beginning of its name or of the part behind the dash
    pub(crate) build: Option<String>,
    /// The stage whose log to print: the beginning of its id, PIPELINE, MODULE, PIPELINE/MODULE, or its log's number.
    /// One name alone may also be that of a stage of the last build
    pub(crate) stage: Option<String>,
    /// List the recorded builds, the newest first
    #[arg(short, long, conflicts_with_all = ["build", "stage"])]
    pub(crate) list: bool,
    /// The store. Default: /var/cache/osbc as root, $XDG_CACHE_HOME/osbc otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReportArgs {
    /// The build: `last` (the default), or the beginning of its name or of the part behind the dash
    pub(crate) build: Option<String>,
    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
    /// The store. Default: /var/cache/osbc as root, $XDG_CACHE_HOME/osbc otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Look at what this manifest needs rather than at all tools
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) library: LibraryArgs,
    /// A pipeline of the manifest, by name or id; may be repeated. Default: those that `osbc build` builds
    #[arg(short, long = "export", value_name = "PIPELINE", requires = "manifest")]
    pub(crate) exports: Vec<String>,
    /// Remove loop and device-mapper devices that dead builds of the store left
    #[arg(long)]
    pub(crate) clean: bool,
    /// The store. Default: /var/cache/osbc as root, $XDG_CACHE_HOME/osbc otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// The format
    #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
    pub(crate) format: GraphFormat,
    /// What a node is
    #[arg(long, value_enum, default_value_t = GraphLevel::Stage)]
    pub(crate) level: GraphLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Graphviz, for `dot -Tsvg`
    Dot,
    /// Mermaid, for Markdown
    Mermaid,
    /// Nodes and edges as data
    Json,
    /// A picture; needs no tool
    Svg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphLevel {
    /// One node for each pipeline
    Pipeline,
    /// One node for each stage
    Stage,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// Which ids: osbc shares and caches by BLAKE3 ids; osbuild names its checkpoints by its own
    #[arg(long, value_enum, default_value_t = IdScheme::Blake3)]
    pub(crate) ids: IdScheme,
    /// Print problems of the manifest as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IdScheme {
    /// osbc's own
    Blake3,
    /// osbuild's (SHA-256)
    Osbuild,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompatArgs {
    /// The manifest; `-` reads standard input
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: PathBuf,
    /// The directory of modules for both. Default: /usr/lib/osbuild or, with a checkout, the checkout
    #[arg(short, long, value_name = "DIR")]
    pub(crate) libdir: Option<PathBuf>,
    /// The osbuild to compare with: a command, or a checkout of its sources. Default: the installed one
    #[arg(long, value_name = "CMD|CHECKOUT")]
    pub(crate) osbuild: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ModulesArgs {
    /// The module to show: its full name, or the part after `org.osbuild.`
    pub(crate) name: Option<String>,
    /// A directory of more modules, like osbuild's `/usr/lib/osbuild`
    #[arg(short, long, value_name = "DIR")]
    pub(crate) libdir: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a bill of materials is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SbomFormat {
    /// SPDX 2.3, as JSON
    Spdx,
}

/// `osbc resolve`.
#[derive(Debug, Subcommand)]
pub(crate) enum ResolveCommand {
    /// Write the manifest of a Debian system, with the packages that apt selects
    Debian(ResolveDebianArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ResolveDebianArgs {
    /// The description of the system, a TOML file such as `fixtures/debian/minimal.toml`
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,

    /// The manifest to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// The lock file: the packages' versions and checksums. An existing one is used as it is
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,

    /// Resolve again, ignoring the lock, and show what changed
    #[arg(long, requires = "lock")]
    pub(crate) update: bool,

    /// Fetch the packages of the repository LABEL from URL; may be repeated
    #[arg(long = "mirror", value_name = "LABEL=URL", value_parser = mirror)]
    pub(crate) mirrors: Vec<(String, String)>,
}

fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((label, url)) if !label.is_empty() && url.contains("://") => Ok((label.to_owned(), url.to_owned())),
        _ => Err("a label, `=` and a URL are needed, as in `debian=http://localhost:8000`".to_owned()),
    }
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit codes: 0 the text came, or the guest ended by itself where none was wanted; 1 it ended without \
                        the text; 124 the time was over; 2, 3 and 130 as for all commands."
)]
pub(crate) struct BootArgs {
    /// The image, raw or qcow2; it is not changed
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// The firmware
    #[arg(long, value_enum, value_name = "KIND", default_value = "bios")]
    pub(crate) firmware: FirmwareArg,

    /// End when this text appears on the serial console
    #[arg(long, value_name = "TEXT")]
    pub(crate) until: Option<String>,

    /// End after this many seconds in any case
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirmwareArg {
    /// PC BIOS
    Bios,
    /// UEFI
    Uefi,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
