//! A finished build: its outcome, its results, and the documents about them.

use std::path::Path;
use std::sync::Arc;

use osbc_ir::{Outcome, Plan, Value};
use osbc_store::export::ExportError;
use osbc_store::fs::copy::Ownership;
use osbc_store::{Lease, Transaction};

#[cfg(doc)]
use crate::BuildOptions;
use crate::export::{self, Exported};
use crate::{Error, provenance, sbom};

/// A finished build.
#[derive(Debug)]
pub struct Built {
    pub(crate) plan: Arc<Plan>,
    pub(crate) transaction: Transaction,
    /// Its outcome.
    pub outcome: Outcome,
    /// The results that were copied to [`BuildOptions::output`], in the order of the plan's exports.
    pub exported: Vec<Exported>,
    /// Why the other results could not be copied there.
    pub not_exported: Vec<ExportError>,
}

impl Built {
    /// The plan that was run.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The lease that keeps the results in the store.
    pub fn lease(&self) -> &Lease {
        &self.transaction
    }

    /// What it made in the store.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Exports every result to `<output>/<name>/`. Entries of the same names are replaced there; others are kept.
    ///
    /// # Errors
    /// A name is not that of a directory, `output` cannot be written to, or the build did not make a result.
    pub fn export(&self, output: &Path) -> Result<Vec<Exported>, Error> {
        export::check_output(&self.plan.exports, output)?;
        Ok(self.export_as(output, Ownership::Keep)?)
    }

    /// Exports every result, with file owners as `ownership` says. Names may be paths.
    ///
    /// # Errors
    /// `output` cannot be written to, or the build did not make a result.
    pub fn export_as(&self, output: &Path, ownership: Ownership) -> Result<Vec<Exported>, ExportError> {
        export::export_all(&self.plan, &self.transaction, output, ownership)
    }

    /// Returns the software bill of materials of an exported result, in SPDX 2.3.
    ///
    /// # Errors
    /// The artifact cannot be read.
    pub fn spdx(&self, exported: &Exported) -> Result<Value, Error> {
        sbom::spdx(&self.plan.graph, &self.transaction, &exported.export, &exported.artifact)
    }

    /// Returns the provenance of an exported result: an in-toto statement with SLSA's predicate. `manifest` is the text
    /// that it was made from.
    ///
    /// # Errors
    /// The artifact cannot be read.
    pub fn slsa(&self, exported: &Exported, manifest: &str) -> Result<Value, Error> {
        provenance::slsa(&self.plan.graph, &exported.export, &exported.artifact, manifest)
    }
}
