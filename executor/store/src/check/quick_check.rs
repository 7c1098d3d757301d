//! A look at what a build is about to read of earlier ones, before it begins.
//!
//! It reads no contents: a result whose stamp ([`crate::digest::stamp`]) is that of when it was committed is as it was,
//! and so is an item whose stamp is that of when it was last found sound. Where that does not hold, the contents are
//! read and decide. So what was cut off, removed, replaced or written to is found, whatever times it was given; a disk
//! that gives other bytes than it was given is found by `verify` and at an export only, which read everything.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Plan, StageId};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use crate::check::verify::{CheckItem, Damage, DamageAction, damage_of_item};
use crate::digest;
use crate::error::StoreError;
use crate::fs::regular;
use crate::items::TIME;
use crate::lease::Lease;
use crate::objects::layout::STAMP;
use crate::objects::object::ObjectMeta;
use crate::reclaim::inventory::Item;
use crate::store::Store;

impl Lease {
    /// Looks at the results and items of earlier builds that the stages of a plan read, and with `exports` at those
    /// that it is to export.
    ///
    /// What is damaged is set aside, so that who takes a new lease finds it absent.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn quick_check(
        &self,
        plan: &Plan,
        exports: bool,
        check_item: &CheckItem<'_>,
    ) -> Result<Vec<Damage>, StoreError> {
        let graph = &plan.graph;
        let steps = plan.segments.iter().flat_map(|segment| &segment.steps);
        let read = steps.flat_map(|step| graph.needs(*step)).map(|(node, _)| node);
        let exported = plan.exports.iter().filter(|_| exports).filter_map(|export| export.node);
        let read: BTreeSet<NodeIndex> =
            read.chain(exported).filter(|node| plan.decision(*node).action == Action::Cached).collect();
        let stages = read.iter().filter_map(|node| graph.stage_node(*node));
        let objects: BTreeSet<StageId> =
            stages.filter_map(|stage| self.object(stage.id)).flat_map(with_lowers).collect();
        let objects: Vec<StageId> =
            objects.into_iter().filter(|id| !self.made(*id) && !self.is_elsewhere(*id)).collect();
        let items: Vec<Item> = read
            .iter()
            .filter_map(|node| Some(graph.item(graph.item_node(*node)?).1))
            .filter(|item| !self.store().item_is_known(&item.key))
            .filter_map(|item| Item::of(self.store().layout(), &item.key))
            .collect();
        let objects = objects.into_par_iter().map(|id| self.store().look_at_object(id));
        let items = items.into_par_iter().map(|item| self.store().look_at_item(&item, check_item));
        let found = objects.chain(items).collect::<Result<Vec<_>, _>>()?;
        found.into_iter().flatten().map(|damage| self.store().quarantine(damage)).collect()
    }
}

fn has_another_time(item: &Path) -> bool {
    let metadata = item.symlink_metadata().ok().filter(std::fs::Metadata::is_file);
    metadata.is_some_and(|metadata| (metadata.mtime(), metadata.mtime_nsec()) != (TIME, 0))
}

fn with_lowers(object: Arc<ObjectMeta>) -> Vec<StageId> {
    object.lowers.iter().map(|lower| lower.id).chain([object.id]).collect()
}

impl Store {
    fn look_at_object(&self, id: StageId) -> Result<Option<Damage>, StoreError> {
        let path = self.layout().object(id);
        let reason = match self.reader().read_alone(id) {
            None => self.why_useless(id),
            Some(object) => {
                let newer = path.join(STAMP);
                let known = regular::read_to_string(&newer).ok().or_else(|| object.stamp.clone());
                let stamp = digest::stamp(&object.content(self.layout())).ok();
                if known.is_some() && stamp == known {
                    return Ok(None);
                }
                let (reason, stamp) = (self.difference(&object), stamp.unwrap_or_default());
                let Some(reason) = reason else {
                    self.change("write", &newer, || regular::write(&newer, &stamp))?;
                    return Ok(None);
                };
                reason
            }
        };
        Ok(Some(Damage { path, reason, fate: DamageAction::Left }))
    }

    fn look_at_item(&self, item: &Item, check: &CheckItem<'_>) -> Result<Option<Damage>, StoreError> {
        let Item { key, path, .. } = item;
        // What lies in osbuild's store has the times that osbuild gave it.
        if self.layout().own_sources().is_some() && has_another_time(path) {
            let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec: TIME, tv_nsec: 0 } };
            // Stages would see it.
            let set = || Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?);
            self.change("set the time of", path, set)?;
        }
        // Taken before it is read: who writes to it from now on changes it.
        let stamp = self.item_stamp(key);
        let damage = damage_of_item(item, check);
        if let (None, Some(stamp)) = (&damage, stamp) {
            self.know_item(key, &stamp);
        }
        Ok(damage)
    }

    fn quarantine(&self, damage: Damage) -> Result<Damage, StoreError> {
        let path: &PathBuf = &damage.path;
        self.move_aside(path)?;
        Ok(Damage { fate: DamageAction::SetAside, ..damage })
    }
}
