//! Finding results by what people call them, and removing them by hand.

use std::collections::HashSet;

use osbc_ir::StageId;

use crate::error::StoreError;
use crate::fs::delete::remove_tree;
use crate::lease::own_new_directory;
use crate::reclaim::inventory::holds_object;
use crate::reclaim::size;
use crate::store::Store;

/// How many ids are shown that begin alike.
const SHOWN: usize = 5;

impl Store {
    /// The id of a result by its first digits.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(&self, beginning: &str) -> Result<StageId, StoreError> {
        let none = || StoreError::NoSuchObject { id: beginning.to_owned(), path: self.path().to_owned() };
        let mut found = Vec::new();
        for entry in crate::reclaim::inventory::entries(&self.layout().objects())? {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(beginning)) else { continue };
            found.extend(name.parse::<StageId>());
        }
        match found.as_slice() {
            [] => Err(none()),
            [only] => Ok(*only),
            several => {
                let matching = several.iter().take(SHOWN).map(StageId::short).collect();
                Err(StoreError::Ambiguous { id: beginning.to_owned(), matching })
            }
        }
    }

    /// Removes results and all that lie on them, or nothing. Returns how many went and what they took.
    ///
    /// # Errors
    /// One of them is in use, or the store cannot be written to.
    pub fn remove(&self, ids: &[StageId]) -> Result<(usize, u64), StoreError> {
        let (directory, _owner) = own_new_directory(self)?;
        let (mut count, mut bytes) = (0, 0);
        let mut inventory = self.inventory()?;
        {
            let _alone = self.alone()?;
            inventory.renew(self)?;
            let (held, _) = self.held()?;
            let wanted: HashSet<StageId> = ids.iter().copied().collect();
            let lies_on_one = |id: &StageId| {
                let kept = &inventory.objects[id];
                wanted.contains(id) || kept.meta.lowers.iter().any(|lower| wanted.contains(&lower.id))
            };
            let all: Vec<StageId> = inventory.objects.keys().copied().filter(lies_on_one).collect();
            if let Some(used) = all.iter().find(|id| holds_object(&held, **id)) {
                return Err(StoreError::InUse(*used));
            }
            // One that cannot be used is in nobody's inventory.
            let useless = ids.iter().copied().filter(|id| !inventory.objects.contains_key(id));
            // Without what they stand for they are nothing.
            let aliases = all.iter().flat_map(|id| inventory.aliases_of(*id)).filter(|id| !wanted.contains(id));
            for id in all.iter().copied().chain(useless).chain(aliases) {
                let path = self.layout().object(id);
                self.change("remove", &path, || Ok(rustix::fs::rename(&path, directory.join(id.to_string()))?))?;
                count += 1;
                bytes += inventory.objects.get(&id).map_or(0, |kept| kept.bytes);
            }
            let path = self.layout().usage();
            self.change("write", &path, || size::set(&path, inventory.bytes().saturating_sub(bytes)))?;
        }
        remove_tree(&directory).map_err(StoreError::io("remove", &directory))?;
        Ok((count, bytes))
    }
}
