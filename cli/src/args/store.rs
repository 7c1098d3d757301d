//! Arguments about the store.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use osbc_store::{Layers, Limit, StoreSettings, osbuild};

use crate::size;

/// How the store keeps results.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct KeepArgs {
    /// How much the store may take: a number of bytes, a number with a unit (`20GB`, `512MiB`), or `unlimited`.
    /// Default: a tenth of its file system
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) store_size: Option<osbuild::Limit>,

    /// How a result is kept that goes on from another one. Default: in the best way that the file system can do
    #[arg(long, value_enum, value_name = "WAY")]
    pub(crate) store_layers: Option<LayersArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayersArg {
    /// As an overlayfs layer that holds what differs
    Overlay,
    /// As a whole tree that shares its bytes with the other (xfs, btrfs)
    Reflink,
    /// As a whole tree with bytes of its own
    Copy,
}

impl KeepArgs {
    pub(crate) fn settings(&self) -> StoreSettings {
        let layers = match self.store_layers {
            None => Layers::Auto,
            Some(LayersArg::Overlay) => Layers::Overlay,
            Some(LayersArg::Reflink) => Layers::Reflink,
            Some(LayersArg::Copy) => Layers::Copy,
        };
        let limit = match self.store_size {
            None => Limit::Share,
            Some(osbuild::Limit::Bytes(bytes)) => Limit::Bytes(bytes),
            Some(osbuild::Limit::Unlimited) => Limit::Unlimited,
        };
        StoreSettings { layers, limit }
    }
}

/// Which store, and how it is used.
#[derive(Debug, ClapArgs)]
pub(crate) struct StoreArgs {
    /// The store. Default: /var/cache/osbc as root, $XDG_CACHE_HOME/osbc otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// List the results, the last used first
    Ls {
        #[command(flatten)]
        store: StoreArgs,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say how results are kept, and what the store takes and may take
    Info {
        #[command(flatten)]
        store: StoreArgs,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read everything and compare it with what was written; exit code 1 if something is damaged
    Verify {
        #[command(flatten)]
        store: StoreArgs,
        /// Set aside what is damaged, so that the next build makes it again
        #[arg(long)]
        repair: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Evict what nobody uses, least valuable first, until the store is within its size
    Gc {
        #[command(flatten)]
        store: StoreArgs,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove results and what lies on them
    Rm {
        /// Their ids, or the beginnings of them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write the tree of a result to a directory
    Export {
        /// Its id, or the beginning of it
        id: String,
        /// The directory; entries of the same names are replaced there
        #[arg(value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
}
