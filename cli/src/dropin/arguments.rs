//! osbuild's command line, as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{ArgPredicate, OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args as ClapArgs, CommandFactory, FromArgMatches, Parser};
use osbc_store::osbuild::Limit;

use crate::size;

/// The release of osbuild whose command line, formats and store this is. Callers read it as a number.
pub(crate) const RELEASE: &str = "190";

const ABOUT: &str = "Build as osbuild does: its command line, its output, its store";

const LONG_ABOUT: &str = "\
Build as osbuild does: its command line, its output, its store

Also what osbc does when it is called by the name `osbuild`. Settings of osbc's own come from the environment: OSBC_JOBS \
(how many stages run at the same time), OSBC_AUTO_CACHE=1 (keep every stage's result, not only checkpoints), \
OSBC_NATIVE=1 (built-in modules before those of the module directory), OSBC_TRACE (a file for a trace of the build).";

/// What is asked of osbuild.
#[derive(Debug, ClapArgs)]
#[command(about = ABOUT, long_about = LONG_ABOUT)]
pub(crate) struct Arguments {
    /// The manifest, a JSON file; `-` reads standard input
    #[arg(value_name = "MANIFEST", default_value_if("inspect", ArgPredicate::IsPresent, "-"))]
    #[arg(required_unless_present = "inspect")]
    pub(crate) manifest: Option<PathBuf>,

    /// Where sources and checkpoints are kept
    #[arg(long = "cache", alias = "store", value_name = "DIRECTORY", default_value = ".osbuild")]
    #[arg(value_parser = directory())]
    pub(crate) store: PathBuf,

    /// Where modules are
    #[arg(short, long, value_name = "DIRECTORY", default_value = "/usr/lib/osbuild", value_parser = directory())]
    pub(crate) libdir: PathBuf,

    /// The most that all checkpoints may take: bytes, a number with one of the units kB, MB, GB, TB, KiB, MiB, GiB,
    /// TiB, or `unlimited`
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) cache_max_size: Option<Limit>,

    /// Keep the result of these stages: a pattern for the name of a pipeline or stage, or a stage's id; may be repeated
    #[arg(long = "checkpoint", value_name = "ID")]
    pub(crate) checkpoints: Vec<String>,

    /// Copy the tree of this pipeline, by name or id, to the output directory; may be repeated
    #[arg(long = "export", value_name = "ID")]
    pub(crate) exports: Vec<String>,

    /// Run the stages of this pipeline, by name, each in a virtual machine with the kernel of its build tree, or of the
    /// host where it has none; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) in_vm: Vec<String>,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Where exports go
    #[arg(long, value_name = "DIRECTORY", value_parser = directory())]
    pub(crate) output_directory: Option<PathBuf>,

    /// Print the manifest with all ids as JSON, and build nothing
    #[arg(long)]
    pub(crate) inspect: bool,

    /// How the build is shown: NullMonitor, LogMonitor or JSONSeqMonitor. Default: LogMonitor, NullMonitor with
    /// `--json` or `--quiet`
    #[arg(long, value_name = "NAME")]
    pub(crate) monitor: Option<String>,

    /// The file descriptor that the monitor writes to
    #[arg(long, value_name = "FD", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) monitor_fd: i32,

    /// How long each stage may take, in seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stage_timeout: Option<i64>,

    /// Open a shell in the build root before this stage runs, by name or id, or before every one; stages then run one
    /// at a time
    #[arg(long = "break", value_name = "STAGE", num_args = 0..=1, default_missing_value = "*")]
    pub(crate) break_at: Option<String>,

    /// Where osbuild would put runtime data; osbc has none
    #[arg(long, value_name = "DIRECTORY", value_parser = directory())]
    pub(crate) rundir: Option<PathBuf>,

    /// Print nothing but failures
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print the release of osbuild that this stands in for
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The command line when the program is osbuild.
#[derive(Debug, Parser)]
#[command(name = "osbuild", version = RELEASE, disable_version_flag = true)]
#[command(about = ABOUT, long_about = LONG_ABOUT, infer_long_args = true, args_override_self = true)]
struct Program {
    #[command(flatten)]
    arguments: Arguments,
}

impl Arguments {
    /// Reads the arguments that follow the program's name.
    ///
    /// # Errors
    /// They are not osbuild's; or help or the version was asked for.
    pub(crate) fn parse(arguments: &[std::ffi::OsString]) -> Result<Self, clap::Error> {
        let name = std::ffi::OsString::from("osbuild");
        let matches = Program::command().try_get_matches_from(std::iter::once(&name).chain(arguments))?;
        Ok(Program::from_arg_matches(&matches)?.arguments)
    }

    /// How long each stage may take; of a time in the past, none at all.
    pub(crate) fn stage_timeout(&self) -> Option<Duration> {
        self.stage_timeout.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// Returns the manifest's name for messages; `-` for standard input.
    pub(crate) fn manifest(&self) -> &std::path::Path {
        self.manifest.as_deref().unwrap_or(std::path::Path::new("-"))
    }
}

/// Reads the path of a directory. An empty one means the current directory: callers that export nothing give such a
/// one.
fn directory() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|path| if path.is_empty() { PathBuf::from(".") } else { PathBuf::from(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::parse(&line.iter().map(Into::into).collect::<Vec<_>>())
    }

    fn parsed(line: &[&str]) -> Arguments {
        parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    #[test]
    fn the_manifest_may_stand_anywhere() {
        for line in [
            &["m.json", "--export", "a", "--json"][..],
            &["--export", "a", "m.json", "--json"],
            &["--json", "--export=a", "--", "m.json"],
            &["--expo", "a", "--js", "m.json"],
        ] {
            let arguments = parsed(line);
            assert_eq!(arguments.manifest(), "m.json", "{line:?}");
            assert_eq!(arguments.exports, ["a"], "{line:?}");
            assert!(arguments.json, "{line:?}");
        }
        assert_eq!(parsed(&["-"]).manifest(), "-");
        assert_eq!(parsed(&["--inspect"]).manifest(), "-");
        assert_eq!(parsed(&["--inspect", "m.json"]).manifest(), "m.json");
    }

    #[test]
    fn long_options_may_be_cut_short_as_long_as_they_mean_one() {
        assert_eq!(parsed(&["--out", "o", "m"]).output_directory, Some("o".into()));
        assert_eq!(parsed(&["--output-dir=o", "m"]).output_directory, Some("o".into()));
        assert_eq!(parsed(&["--cache", "s", "m"]).store, PathBuf::from("s"), "not --cache-max-size");
        assert_eq!(parsed(&["--sto=s", "m"]).store, PathBuf::from("s"));
        assert_eq!(parsed(&["--monitor", "N", "m"]).monitor.as_deref(), Some("N"), "not --monitor-fd");
        for ambiguous in ["--c=1", "--s=1", "--mon=1", "--i"] {
            assert!(parse(&[ambiguous, "m"]).is_err(), "{ambiguous}");
        }
    }

    #[test]
    fn values_may_be_empty_and_the_last_one_counts() {
        assert_eq!(parsed(&["--output-directory", "", "m"]).output_directory, Some(".".into()));
        assert_eq!(parsed(&["--store", "a", "--cache", "b", "m"]).store, PathBuf::from("b"));
        assert_eq!(parsed(&["--checkpoint", "a", "--checkpoint", "b*", "m"]).checkpoints, ["a", "b*"]);
        assert!(parsed(&["-q", "--quiet", "--json", "--json", "m"]).quiet);
    }

    #[test]
    fn break_takes_a_stage_or_means_all() {
        assert_eq!(parsed(&["m", "--break"]).break_at.as_deref(), Some("*"));
        assert_eq!(parsed(&["--break=org.osbuild.rpm", "m"]).break_at.as_deref(), Some("org.osbuild.rpm"));
        assert_eq!(parsed(&["m", "--break", "x", "--json"]).break_at.as_deref(), Some("x"));
        assert!(parse(&["--break", "m"]).is_err(), "the manifest is taken for the stage, as by osbuild");
    }

    #[test]
    fn short_options_take_their_value_in_every_way() {
        for line in [&["-l", "d", "m"][..], &["-ld", "m"], &["-l=d", "m"], &["-ql", "d", "m"], &["-qld", "m"]] {
            assert_eq!(parsed(line).libdir, PathBuf::from("d"), "{line:?}");
        }
    }

    #[test]
    fn numbers_are_numbers() {
        assert_eq!(parsed(&["--monitor-fd", "3", "m"]).monitor_fd, 3);
        assert_eq!(parsed(&["--stage-timeout=10", "m"]).stage_timeout(), Some(Duration::from_secs(10)));
        assert_eq!(parsed(&["--stage-timeout", "-1", "m"]).stage_timeout(), Some(Duration::ZERO));
        for line in [["--monitor-fd=x", "m"], ["--stage-timeout=1.5", "m"], ["--cache-max-size=20G", "m"]] {
            let error = parse(&line).expect_err("is refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused_with_2() {
        for line in
            [&[][..], &["m", "n"], &["--colour", "m"], &["--export"], &["--json=yes", "m"], &["--export", "--json"]]
        {
            let error = parse(line).expect_err("is refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.use_stderr(), "{line:?}");
        }
    }

    #[test]
    fn the_help_lists_the_environment() {
        let shown = parse(&["--help"]).expect_err("shows and ends");
        assert!(shown.to_string().contains("OSBC_JOBS"), "{shown}");
        assert_eq!(shown.exit_code(), 0);
    }

    #[test]
    fn the_version_is_a_plain_number() {
        let shown = parse(&["--version"]).expect_err("shows and ends");
        assert_eq!(shown.to_string(), "osbuild 190\n");
        assert_eq!(shown.exit_code(), 0);
        assert!(parse(&["--vers"]).expect_err("shows and ends").to_string().starts_with("osbuild "));
    }
}
