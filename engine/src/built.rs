//! A build that is over: its outcome, its results, and what can be said about them.

use std::path::Path;
use std::sync::Arc;

use osbc_ir::{Outcome, Plan, Value};
use osbc_store::Lease;
use osbc_store::export::ExportError;
use osbc_store::fs::copy::Ownership;

#[cfg(doc)]
use crate::BuildOptions;
use crate::export::{self, Exported};
use crate::{Error, provenance, sbom};

/// A build that is over.
#[derive(Debug)]
pub struct Built {
    pub(crate) plan: Arc<Plan>,
    pub(crate) lease: Lease,
    /// What came of it.
    pub outcome: Outcome,
    /// The results that were copied to [`BuildOptions::output`], in the order of the plan's exports.
    pub exported: Vec<Exported>,
    /// Why other results could not be copied there.
    pub not_exported: Vec<ExportError>,
}

impl Built {
    /// The plan that was run.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The lease that keeps the results in the store.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Brings every result to `<output>/<name>/`; entries of the same names are replaced there, and others left alone.
    ///
    /// # Errors
    /// A name is not that of a directory, `output` cannot be written to, or the build did not make a result.
    pub fn export(&self, output: &Path) -> Result<Vec<Exported>, Error> {
        export::check_output(&self.plan.exports, output)?;
        Ok(self.export_as(output, Ownership::Keep)?)
    }

    /// The same with the files of whom `ownership` says, and for names that may be paths.
    ///
    /// # Errors
    /// `output` cannot be written to, or the build did not make a result.
    pub fn export_as(&self, output: &Path, ownership: Ownership) -> Result<Vec<Exported>, ExportError> {
        export::export_all(&self.plan, &self.lease, output, ownership)
    }

    /// Returns the software bill of materials of an exported result, in SPDX 2.3.
    ///
    /// # Errors
    /// The artifact cannot be read.
    pub fn spdx(&self, exported: &Exported) -> Result<Value, Error> {
        sbom::spdx(&self.plan.graph, &self.lease, &exported.export, &exported.artifact)
    }

    /// Returns how an exported result came to be: an in-toto statement with the predicate of SLSA. `manifest` is what it
    /// was made from.
    ///
    /// # Errors
    /// The artifact cannot be read.
    pub fn slsa(&self, exported: &Exported, manifest: &str) -> Result<Value, Error> {
        provenance::slsa(&self.plan.graph, &exported.export, &exported.artifact, manifest)
    }
}
