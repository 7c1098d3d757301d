//! Finds all problems of a manifest at once: with the schema of its format, the schemas of its modules, and checks that
//! no schema can express.
//!
//! A valid manifest can be lowered without errors.

use osbc_ir::{FormatVersion, Kind, Runner};
use osbc_module_api::Catalog;

use crate::description::Description;
use crate::format::{Document, v1, v2};
use crate::place::Place;
use crate::problem::{Code, Phase, Problem, Problems};
use modules::Modules;

pub(crate) mod devices;
mod message;
mod module_configs;
pub(crate) mod modules;
mod names;
mod schema;
mod shape;
mod suggest;

/// A manifest without problems: every module is there, every name leads somewhere.
#[derive(Debug)]
pub struct Validated<'a> {
    pub(crate) description: Description,
    pub(crate) modules: Modules<'a>,
    /// The names of all runners.
    pub(crate) runners: Vec<String>,
    /// The runner of the host.
    pub(crate) host: Runner,
}

/// Checks a manifest.
///
/// # Errors
/// All problems, in no order.
pub fn validate<'a>(document: Document, catalog: &'a Catalog, host: &Runner) -> Result<Validated<'a>, Problems> {
    let Document { version, value } = document;
    let mut modules = Modules::new(catalog, version);
    let (mut problems, of_modules) =
        rayon::join(|| shape::check(&value, version), || modules.check(&module_configs::all(&value, version)));
    problems.extend(of_modules);
    if problems.is_full() {
        return Err(problems);
    }
    let description = match version {
        FormatVersion::V1 => v1::read(value),
        FormatVersion::V2 => v2::read(value),
    };
    let runners = catalog.names(Kind::Runner).unwrap_or_else(|error| {
        problems.push(Problem::new(Code::BrokenModule, Phase::Load, Place::root(), format!("the runners: {error}")));
        Vec::new()
    });
    names::check(&description, &mut modules, &runners, &mut problems);
    if problems.is_empty() {
        Ok(Validated { description, modules, runners, host: host.clone() })
    } else {
        Err(problems)
    }
}
