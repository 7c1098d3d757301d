//! The store: fetched items, committed results, and what is in progress. Knows files, locks and layers; no manifest, no
//! schedule, no sandbox.
//!
//! ```text
//! <store>/format                               the number of this layout; below it the ids of who made it, without root
//! <store>/CACHEDIR.TAG                         makes backups leave it out
//! <store>/lock                                 between those who lease and those who evict
//! <store>/sources/<content type>/<checksum>    fetched items, in osbuild's layout (and place, if it is osbuild's store)
//! <store>/stamps/<content type>:<checksum>     the stamp of an item when it was found sound, and its last use ([`check::stamps`])
//! <store>/objects/<id>/meta.json               a committed result: what it is, and what it lies on
//! <store>/objects/<id>/tree-<instance>/          its whole tree, or what it changes in the tree of those below it
//!                                                (overlayfs)
//! <store>/objects/<id>/durable                   all of it has reached the disk
//! <store>/objects/<id>/digest                    the digest of its tree, where that was needed
//! <store>/objects/<id>/stamp                     a stamp of its tree, newer than that in its description
//! <store>/objects/<id>/alias.json              no tree of its own: another object that it is equal to
//! <store>/work/<uuid>/                         one lease: its list of what it uses, and what it is making
//! <store>/downloads/<content type>:<checksum>/ the part of an item that was fetched so far
//! <store>/prepared/<id>-<runner>-<revision>     what a runner makes in a build tree ([`objects::prepared`])
//! <store>/logs/<build>/                        a build's record and its stages' output
//! <store>/damaged/<name>.<uuid>                what was found damaged and set aside, until the next `osbc store gc`
//! <store>/usage                                how many bytes objects and items take
//! <store>/history.jsonl                        how long stages took
//! <store>/contents                             what results came of which content (early cutoff)
//! ```
//!
//! **Objects.** An object appears by one rename, complete, and never changes after it; there is no other way into
//! `objects/`. It can be trusted as long as the system runs that made it, since the kernel serves what was written
//! whether or not it has reached the disk. Once it has, the object gets its mark `durable`, and can be trusted for
//! good. So a process that dies loses no committed result; a system that dies loses those of its last seconds, never
//! more than that, and never silently: without the mark and from another boot an object counts as absent. This keeps
//! the price of a commit at one rename; the disk is synced behind it, many results at a time, and a build waits for
//! that, and for the marks themselves, only at its end. A damaged object, a directory that is no object, or one whose
//! lower layers are missing or not those that it was made on counts as absent too, and is set aside when its result is
//! committed again. What an object holds has a digest in its description, which is checked when it is exported and by
//! `verify`. Before stages read it, only its stamp is ([`check::quick_check`]).
//!
//! **Aliases.** A result that was not built because an earlier one is known to be equal is an object with nothing but
//! the name of that one ([`objects::alias`]). Reading it gives the other; when that is gone or was built again, it is
//! absent.
//!
//! **Locks.** All are `flock`s, gone with the process that holds them.
//! - Who uses a store holds a [`Lease`]: a directory below `work/`, locked for as long as it lives, with the list of
//!   the
//!   objects and items that nobody may take away. One lock, however many objects.
//! - Making that list is done under the shared side of `lock`, so that nothing disappears between the look and the
//!   list. Who evicts takes the exclusive side, reads the lists of all locked leases, and renames what is in none of
//!   them (nor below one that is) out of `objects/` before letting go.
//! - A new object is put on its maker's list before it appears, and both under the shared side of `lock`.
//! - Who fetches an item holds a lock on its directory in `downloads/`; whose lock is free is only a part, and may go.
//! - What lies in an unlocked directory of `work/` belongs to nobody and is swept when a store is opened.
//! - Two processes may make the same object: the second rename finds the place taken and drops its own.

mod check;
mod digest;
mod disk;
mod error;
pub mod export;
pub mod fs;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod history;
mod items;
mod lease;
mod objects;
mod open;
pub mod osbuild;
mod reclaim;
mod store;
#[cfg(any(test, feature = "fake"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod transaction;
pub mod tree_diff;
mod tree_stack;
pub mod user_namespace;

pub use check::verify::{CheckItem, Damage, DamageAction, Verified};
pub use error::StoreError;
pub use items::{Download, Slot};
pub use lease::{Lease, is_owned};
pub use objects::abilities::Way;
pub use objects::commit::CommitInfo;
pub use objects::object::{InCommon, ObjectMeta, ObjectRef, StepRecord};
pub use objects::work::Work;
pub use reclaim::evict::Evicted;
pub use reclaim::inventory::{Inventory, Item, Kept, Part};
pub use store::{Layers, Limit, Store, StoreSettings};
pub use transaction::Transaction;
pub use tree_stack::{TreeStack, Upper};
