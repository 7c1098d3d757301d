//! A look at what a build is about to read of earlier ones, before it begins. It reads no contents: a result whose stamp
//! ([`crate::digest::stamp`]) is that of when it was sealed is as it was, an item whose time is the one that all items have
//! was not written to. Where that does not hold, the contents are read and decide. So what was cut off, removed, replaced
//! or written to is found; a disk that gives other bytes than it was given is found by `verify` and at an export only,
//! which read everything.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use osbc_ir::graph::NodeIndex;
use osbc_ir::{Action, Plan, StageId};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::census::bytes_of;
use super::error::StoreError;
use super::items::TIME;
use super::layout::STAMP;
use super::lease::Lease;
use super::object::ObjectMeta;
use super::verify::{CheckItem, Damage, Fate, damage_of_item};
use super::{Item, Store, used};
use crate::digest;

impl Lease {
    /// Looks at the results and items of earlier builds that the stages of a plan read, and with `exports` at those that
    /// it is to export. What is damaged is set aside, so that who takes a new lease finds it absent.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn look_over(&self, plan: &Plan, exports: bool, check_item: &CheckItem<'_>) -> Result<Vec<Damage>, StoreError> {
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
            .filter_map(|node| Some(graph.item(graph.item_node(*node)?)))
            .filter_map(|(source, item)| self.store().suspicious(&source.content_type, &item.checksum))
            .collect();
        let objects = objects.into_par_iter().map(|id| self.store().look_at_object(id));
        let items = items.into_par_iter().map(|item| self.store().look_at_item(&item, check_item));
        let found = objects.chain(items).collect::<Result<Vec<_>, _>>()?;
        found.into_iter().flatten().map(|damage| self.store().put_aside(damage)).collect()
    }
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
                let known = std::fs::read_to_string(&newer).ok().or_else(|| object.stamp.clone());
                let stamp = digest::stamp(&object.content(self.layout())).ok();
                if known.is_some() && stamp == known {
                    return Ok(None);
                }
                let (reason, stamp) = (self.difference(&object), stamp.unwrap_or_default());
                let Some(reason) = reason else {
                    self.change("write", &newer, || std::fs::write(&newer, &stamp))?;
                    return Ok(None);
                };
                reason
            }
        };
        Ok(Some(Damage { path, reason, fate: Fate::Left }))
    }

    /// An item that was written to after it had come in. One of osbuild's store is osbuild's, and a folder is nothing
    /// that its time tells about.
    fn suspicious(&self, content_type: &str, checksum: &str) -> Option<Item> {
        self.layout().own_sources()?;
        let path = self.layout().item(content_type, checksum)?;
        let metadata = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        let is_as_it_came = (metadata.mtime(), metadata.mtime_nsec()) == (TIME, 0);
        (!is_as_it_came).then(|| Item {
            content_type: content_type.to_owned(),
            checksum: checksum.to_owned(),
            bytes: bytes_of(&path, &metadata),
            used: used::when_item(&metadata),
            path,
        })
    }

    fn look_at_item(&self, item: &Item, check: &CheckItem<'_>) -> Result<Option<Damage>, StoreError> {
        let damage = damage_of_item(item, check);
        if damage.is_none() {
            // Stages would see its time.
            let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec: TIME, tv_nsec: 0 } };
            let set = || Ok(rustix::fs::utimensat(CWD, &item.path, &times, AtFlags::SYMLINK_NOFOLLOW)?);
            self.change("set the time of", &item.path, set)?;
        }
        Ok(damage)
    }

    fn put_aside(&self, damage: Damage) -> Result<Damage, StoreError> {
        let path: &PathBuf = &damage.path;
        self.move_aside(path)?;
        Ok(Damage { fate: Fate::SetAside, ..damage })
    }
}
