//! Arguments about the store.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use osbc_store::{Layers, Limit, StoreSettings, osbuild};

use crate::size;

/// How the store keeps results.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct KeepArgs {
    /// The limit of the store's size: a number of bytes, a number with a unit (`20GB`, `512MiB`), or `unlimited`.
    /// Default: a tenth of its file system
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) store_size: Option<osbuild::Limit>,

    /// How a result shares data with the one that it is based on. Default: the best way that the file system supports
    #[arg(long, value_enum, value_name = "WAY")]
    pub(crate) store_layers: Option<LayersArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayersArg {
    /// An overlayfs layer with the differences
    Overlay,
    /// A whole tree that shares its data by reflinks (xfs, btrfs)
    Reflink,
    /// A whole copy of the tree
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

/// A store, and what to do with it.
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
    /// Show how results are kept, and the store's size and limit
    Info {
        #[command(flatten)]
        store: StoreArgs,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read everything and compare it with its digests; exit code 1 if something is damaged
    Verify {
        #[command(flatten)]
        store: StoreArgs,
        /// Move damaged results out of the way, so that the next build makes them again
        #[arg(long)]
        repair: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Evict unused results, least valuable first, until the store is within its limit
    Gc {
        #[command(flatten)]
        store: StoreArgs,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove results, and those that are based on them
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
        /// The directory; entries of the same names in it are replaced
        #[arg(value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
}
