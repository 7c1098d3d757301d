//! Which way of keeping a tree that goes on from another one a store takes.

use std::io;
use std::path::Path;

use crate::error::StoreError;
use crate::lease::Lease;
use crate::objects::abilities::{Abilities, Way};
use crate::store::{Layers, Store};

impl Store {
    /// How trees are kept here that go on from others; found out in `directory`, once.
    pub(crate) fn way(&self, directory: &Path) -> Result<Way, StoreError> {
        let path = || self.path().to_owned();
        let of = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        let abilities = || self.abilities(directory);
        match self.shared.settings.layers {
            Layers::Auto => Ok(abilities()?.best()),
            Layers::Overlay => match &abilities()?.overlay {
                None => Ok(Way::Overlay),
                Some(error) => Err(StoreError::NoLayers { path: path(), source: of(error) }),
            },
            Layers::Reflink => match &abilities()?.reflink {
                None => Ok(Way::Reflink),
                Some(error) => Err(StoreError::NoReflinks { path: path(), source: of(error) }),
            },
            Layers::Copy => Ok(Way::Copy),
            Layers::Shuffled if abilities()?.overlay.is_none() => Ok(Way::Overlay),
            Layers::Shuffled => Ok(Way::Copy),
        }
    }

    /// Whether files were found to share bytes here; not, as long as nobody had to know.
    pub(crate) fn has_reflinks(&self) -> bool {
        self.shared.abilities.get().is_some_and(|abilities| abilities.reflink.is_none())
    }

    fn abilities(&self, directory: &Path) -> Result<&Abilities, StoreError> {
        if let Some(known) = self.shared.abilities.get() {
            return Ok(known);
        }
        let found = Abilities::find_out(directory)?;
        Ok(self.shared.abilities.get_or_init(|| found))
    }

    /// How trees are kept here that go on from others, and why in that way.
    ///
    /// # Errors
    /// The store cannot be written to, or cannot do what it is set to.
    pub fn keeping(&self) -> Result<(Way, String), StoreError> {
        let lease = Lease::new(self.clone())?;
        let way = self.way(lease.directory())?;
        let why = match self.shared.settings.layers {
            Layers::Auto => self.abilities(lease.directory())?.why(),
            _ => "it was asked for".to_owned(),
        };
        Ok((way, why))
    }
}
