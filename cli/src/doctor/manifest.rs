//! What one manifest needs of this machine.

use osbc_engine::Needed;

use super::Finding;
use crate::exit::Failure;
use crate::wiring::Prepared;

/// Looks for all that a build of a manifest into an empty store needs, other than the tools of its own build roots.
///
/// # Errors
/// A module cannot be described.
pub(crate) fn look(prepared: &Prepared) -> Result<Vec<Finding>, Failure> {
    let find = |needed: Needed| match needed.remedy {
        None => Finding::ok(needed.name, ""),
        Some(remedy) => Finding::missing(needed.name, "not here", remedy).needed(),
    };
    Ok(prepared.session.needs(&prepared.graph, &prepared.request())?.into_iter().map(find).collect())
}
