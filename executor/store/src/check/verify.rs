//! Verification: reads all that a store holds, and sets aside what is not as it was written.
//!
//! A result that was set aside is absent, so that the next build that needs it makes it again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use osbc_ir::StageId;
use rayon::prelude::*;

use crate::digest;
use crate::error::StoreError;
use crate::fs::regular;
use crate::lease::Lease;
use crate::objects::layout::META;
use crate::objects::object;
use crate::objects::object::ObjectMeta;
use crate::reclaim::inventory::{Inventory, Item, bytes_of, entries, holds_item, holds_object};
use crate::store::Store;

/// What is wrong with something in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
    /// What was done about it.
    pub fate: DamageAction,
}

/// What was done about a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageAction {
    /// Nothing, as nothing was to be done.
    Left,
    /// It was moved out of the way.
    SetAside,
    /// Nothing: a running process uses it.
    InUse,
}

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// How many results were read.
    pub objects: usize,
    /// How many items were read.
    pub items: usize,
    /// What was read takes so many bytes.
    pub bytes: u64,
    /// What was wrong.
    pub damages: Vec<Damage>,
}

/// Checks whether an item is what its name says; the error says what it is.
pub type CheckItem<'a> = dyn Fn(&Item) -> Result<(), String> + Sync + 'a;

impl Store {
    /// Reads everything and compares it with what it was when it was written; with `repair` what is damaged, and what
    /// lies on it, is set aside.
    ///
    /// # Errors
    /// The store cannot be read, or not be repaired.
    pub fn verify(&self, repair: bool, check_item: &CheckItem<'_>) -> Result<Verified, StoreError> {
        let inventory = self.inventory()?;
        let objects = entries(&self.layout().objects())?;
        let objects = objects.par_iter().map(|entry| entry.path());
        let mut damages: Vec<Damage> = objects.filter_map(|path| self.damage_of_object(path)).collect();
        let items = inventory.items.par_iter().filter_map(|item| damage_of_item(item, check_item));
        damages.extend(items.collect::<Vec<_>>());
        damages.sort_by(|one, other| one.path.cmp(&other.path));
        // What went in the meantime is not damaged but evicted.
        damages.retain(|damage| damage.path.symlink_metadata().is_ok());
        if repair && !damages.is_empty() {
            self.repair(&inventory, &mut damages)?;
        }
        Ok(Verified {
            objects: inventory.objects.len(),
            items: inventory.items.len(),
            bytes: inventory.bytes(),
            damages,
        })
    }

    fn damage_of_object(&self, path: PathBuf) -> Option<Damage> {
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<StageId>().ok());
        let reason = match id {
            None => "it is no result".to_owned(),
            Some(id) => match self.reader().read(id) {
                // An alias, which the other one is read for.
                Some(meta) if meta.id != id => return None,
                Some(meta) => self.difference(&meta)?,
                None => self.why_useless(id),
            },
        };
        Some(Damage { path, reason, fate: DamageAction::Left })
    }

    /// What differs between an object and its description.
    pub(crate) fn difference(&self, meta: &ObjectMeta) -> Option<String> {
        match digest::written(&meta.content(self.layout()), !meta.lowers.is_empty(), meta.naming()) {
            Ok(written) if Some(written.digest) == meta.digest => None,
            Ok(_) => Some("its content is not what was committed".to_owned()),
            Err(error) => Some(format!("it cannot be read: {error}")),
        }
    }

    /// Why an object cannot be used.
    pub(crate) fn why_useless(&self, id: StageId) -> String {
        if self.reader().alias(id).is_some() {
            return "the result that it stands for is missing or damaged".to_owned();
        }
        let text = regular::read(&self.layout().object(id).join(META));
        let meta = match text.map(|text| object::decode(&text)) {
            Err(error) => return format!("its description cannot be read: {error}"),
            Ok(None) => return "its description is not what was written".to_owned(),
            Ok(Some(meta)) => meta,
        };
        if meta.id != id {
            return format!("its description is that of {}", meta.id.short());
        }
        if !object::is_directory(&meta.content(self.layout())) {
            return "its tree is missing".to_owned();
        }
        if self.reader().read_alone(id).is_none() {
            return "the system went down before it had reached the disk".to_owned();
        }
        "a result that it lies on is missing or damaged".to_owned()
    }

    /// Sets aside what is damaged and those that lie on it, but nothing that is in use.
    fn repair(&self, inventory: &Inventory, damages: &mut Vec<Damage>) -> Result<(), StoreError> {
        let _alone = self.alone()?;
        let (held, _) = self.held()?;
        let bad: HashSet<PathBuf> = damages.iter().map(|damage| damage.path.clone()).collect();
        let path_of = |id: StageId| self.layout().object(id);
        for kept in inventory.objects.values() {
            let path = path_of(kept.meta.id);
            if let Some(lower) = kept.meta.lowers.iter().find(|lower| bad.contains(&path_of(lower.id)))
                && !bad.contains(&path)
            {
                let reason = format!("it lies on {}, which is damaged", lower.id.short());
                damages.push(Damage { path, reason, fate: DamageAction::Left });
            }
        }
        let gone: HashSet<PathBuf> = damages.iter().map(|damage| damage.path.clone()).collect();
        for (alias, target) in &inventory.aliases {
            let path = path_of(*alias);
            if gone.contains(&path_of(*target)) && !gone.contains(&path) {
                let reason = format!("it stands for {}, which is damaged", target.short());
                damages.push(Damage { path, reason, fate: DamageAction::Left });
            }
        }
        let in_use: HashSet<PathBuf> = inventory
            .objects
            .values()
            .filter(|kept| holds_object(&held, kept.meta.id))
            .flat_map(|kept| kept.meta.lowers.iter().map(|lower| path_of(lower.id)).chain([path_of(kept.meta.id)]))
            .chain(inventory.aliases.keys().filter(|alias| holds_object(&held, **alias)).map(|alias| path_of(*alias)))
            .chain(inventory.items.iter().filter(|item| holds_item(&held, item)).map(|item| item.path.clone()))
            .collect();
        for damage in damages.iter_mut() {
            damage.fate = if in_use.contains(&damage.path) {
                DamageAction::InUse
            } else {
                self.move_aside(&damage.path)?;
                DamageAction::SetAside
            };
        }
        // Whoever next wants to know counts.
        let path = self.layout().usage();
        self.change("remove", &path, || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Makes an object absent, and keeps what there is of it where nobody looks for results.
    pub(crate) fn set_aside(&self, id: StageId) -> Result<(), StoreError> {
        self.move_aside(&self.layout().object(id))
    }

    pub(crate) fn move_aside(&self, path: &Path) -> Result<(), StoreError> {
        let damaged = self.layout().damaged();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = damaged.join(format!("{name}.{}", uuid::Uuid::new_v4().simple()));
        self.change("set aside", path, || {
            std::fs::create_dir_all(&damaged)?;
            match rustix::fs::rename(path, &aside) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// What lies aside because it was damaged: how many things, and what they take.
    pub fn damaged(&self) -> (usize, u64) {
        let entries = entries(&self.layout().damaged()).unwrap_or_default();
        let bytes = entries.iter().filter_map(|entry| Some(bytes_of(&entry.path(), &entry.metadata().ok()?)));
        (entries.len(), bytes.sum())
    }
}

impl Lease {
    /// Reads a leased result, and those that it lies on, as [`Store::verify`] does; what is damaged is set aside.
    ///
    /// What was made under this lease was read when it was committed.
    ///
    /// # Errors
    /// It is damaged.
    ///
    /// # Panics
    /// It is not under this lease.
    pub fn check(&self, id: StageId) -> Result<(), StoreError> {
        let meta = self.object(id).expect("only what is leased is checked");
        let store = self.store();
        for id in meta.lowers.iter().map(|lower| lower.id).chain([meta.id]) {
            if self.made(id) || self.is_elsewhere(id) {
                continue;
            }
            let reason = match store.reader().read(id) {
                Some(object) => store.difference(&object),
                None => Some(store.why_useless(id)),
            };
            if let Some(reason) = reason {
                store.set_aside(id)?;
                return Err(StoreError::Damaged { id, reason });
            }
        }
        Ok(())
    }
}

pub(crate) fn damage_of_item(item: &Item, check: &CheckItem<'_>) -> Option<Damage> {
    let is_item = item.path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() || metadata.is_dir());
    let reason = if is_item { check(item).err()? } else { "it is neither a file nor a directory".to_owned() };
    Some(Damage { path: item.path.clone(), reason, fate: DamageAction::Left })
}
