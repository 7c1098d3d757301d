//! The compiler: from the text of a manifest to the graph, and from there to a plan.
//!
//! ```text
//! SourceText ─ format::parse ─► Document ─ validate ─► Validated ─ lower ─► ir::Manifest
//! ```
//!
//! Every arrow consumes its input; only the text stays, because problems point into it. Nothing here touches a tree, a
//! store or the network, and nothing prints.

use osbc_ir::{Manifest, Runner};
use osbc_module_api::Catalog;
use osbc_module_api::host::{EmptyHost, HostTree};

pub mod compare;
pub mod describe;
pub mod description;
pub mod draw;
pub mod format;
pub mod lower;
pub mod passes;
pub mod place;
pub mod problem;
mod spans;
pub mod text;
pub mod validate;

pub use describe::{IdScheme, describe};
pub use problem::{Code, Phase, Problem, Report};
pub use text::{ReadError, SourceText};

/// What a manifest is compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// The runner of pipelines that name none.
    pub runner: &'a Runner,
    /// The tree of stages that have no build tree.
    pub tree: &'a dyn HostTree,
}

impl<'a> Host<'a> {
    /// Returns a host with nothing in its tree.
    pub fn bare(runner: &'a Runner) -> Self {
        Self { runner, tree: &EmptyHost }
    }
}

/// Compiles a manifest up to where every name is resolved.
///
/// # Errors
/// All problems of the manifest, with their places.
pub fn compile(text: &SourceText, catalog: &Catalog, host: Host<'_>) -> Result<Manifest, Report> {
    let document = format::parse(text).map_err(|problem| Report::new(text, (*problem).into()))?;
    let validated =
        validate::validate(document, catalog, host.runner).map_err(|problems| Report::new(text, problems))?;
    Ok(lower::lower(validated, host.tree))
}
