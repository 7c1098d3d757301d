//! Early cutoff: a segment whose trees hold what those of an earlier run held does not run; the result of that run is
//! its result too.
//!
//! So when a rebuilt stage gives what it gave before, what depends on it is not built again.
//!
//! `<store>/contents` notes of every committed result its own key, its content key ([`osbc_ir::content`]) and the very
//! object, a line each. Digests are needed only where the own key is known, as it is when the same stage was built on
//! other trees before; and to note new results, which a thread of its own does behind the build.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use osbc_ir::graph::NodeIndex;
use osbc_ir::{ContentKey, Graph, Plan, Segment, StageId, StageKey, content};
use osbc_store::fs::regular;
use osbc_store::fs::rotating_file;
use osbc_store::{ObjectMeta, ObjectRef, Store, Transaction};

use osbc_sandbox::interrupt::Interrupt;

/// From this size on the older half of the notes is forgotten: about 150,000 results.
const LIMIT: u64 = 32 << 20;

/// Which results came of which content.
#[derive(Debug, Default)]
pub(crate) struct Contents(HashMap<StageKey, Vec<(ContentKey, ObjectRef)>>);

impl Contents {
    /// The notes of a store; what cannot be read of them is passed over.
    pub(crate) fn read(store: &Store) -> Self {
        let text = regular::read(&store.contents()).unwrap_or_default();
        let mut contents = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            if let Some((own, key, lower)) = std::str::from_utf8(line).ok().and_then(parse) {
                contents.add(own, key, lower);
            }
        }
        contents
    }

    /// Whether the same stages were built before, on whatever trees.
    fn knows(&self, own: StageKey) -> bool {
        self.0.contains_key(&own)
    }

    /// The results of these stages and this content, the newest first.
    fn of(&self, own: StageKey, key: ContentKey) -> Vec<ObjectRef> {
        let all = self.0.get(&own).into_iter().flatten().rev();
        all.filter(|(known, _)| *known == key).map(|(_, lower)| lower.clone()).collect()
    }

    fn add(&mut self, own: StageKey, key: ContentKey, lower: ObjectRef) {
        self.0.entry(own).or_default().push((key, lower));
    }
}

pub(crate) fn parse(line: &str) -> Option<(StageKey, ContentKey, ObjectRef)> {
    let mut words = line.split(' ');
    let (own, key, id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((own, key, ObjectRef { id, instance: words.next()?.to_owned() }))
}

/// Returns the stages that a build would cut off at once.
///
/// `stages` come after all that they need. A stage is cut off if the store has all trees that it uses, knows their
/// digests, and has an equal result. Computes no digest.
pub fn foreseen(store: &Store, graph: &Graph, stages: &[NodeIndex]) -> Vec<NodeIndex> {
    let contents = Contents::read(store);
    let mut equal: HashMap<NodeIndex, Arc<ObjectMeta>> = HashMap::new();
    for &node in stages {
        let own = content::stage_key(graph, &[node]);
        if !contents.knows(own) {
            continue;
        }
        let digest = |node: NodeIndex| match equal.get(&node) {
            Some(object) => store.kept_digest(object),
            None => store.kept_digest(&*store.object(graph.stage_node(node)?.id)?),
        };
        let Some(key) = content::content_key(graph, &[node], digest) else { continue };
        let found = contents
            .of(own, key)
            .into_iter()
            .find_map(|lower| store.object(lower.id).filter(|object| object.instance == lower.instance));
        if let Some(object) = found {
            equal.insert(node, object);
        }
    }
    stages.iter().copied().filter(|node| equal.contains_key(node)).collect()
}

/// Early cutoff within one build.
#[derive(Debug)]
pub(crate) struct Cutoff<'a> {
    plan: &'a Plan,
    transaction: &'a Transaction,
    /// Read when the first segment is about to run. Not used in a store that keeps nothing.
    contents: OnceLock<Mutex<Contents>>,
    /// To the thread that notes what was committed; `None` if no more comes.
    committed: Mutex<Option<Sender<usize>>>,
}

impl<'a> Cutoff<'a> {
    /// The cutoff of a build, and what [`Cutoff::note_all`] waits for.
    pub(crate) fn new(plan: &'a Plan, transaction: &'a Transaction) -> (Self, Receiver<usize>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self { plan, transaction, contents: OnceLock::new(), committed: Mutex::new(Some(sender)) }, receiver)
    }

    /// The earlier result that a segment, which is about to run, would only give again. It is kept as this segment's
    /// result, too.
    pub(crate) fn find(&self, segment: &Segment) -> Option<Arc<ObjectMeta>> {
        let own = content::stage_key(&self.plan.graph, &segment.steps);
        if !self.transaction.store().keeps() || !self.contents().knows(own) {
            return None;
        }
        let key = self.key(&segment.steps)?;
        let known = self.contents().of(own, key);
        let id = self.id(*segment.steps.last()?)?;
        // What the store gets in the way of is built.
        known.iter().find_map(|earlier| self.transaction.adopt(id, earlier).ok().flatten())
    }

    /// Has the committed result of a segment noted, soon.
    pub(crate) fn committed(&self, segment: usize) {
        if let Some(sender) = &*self.committed.lock().unwrap_or_else(PoisonError::into_inner) {
            // The other end lives until this one is gone.
            sender.send(segment).ok();
        }
    }

    /// Says that nothing more will be committed.
    pub(crate) fn close(&self) {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Notes what is committed until the end, or until the user ends the build: that is for later builds to do less.
    pub(crate) fn note_all(&self, committed: &Receiver<usize>, interrupt: &Interrupt) {
        let path = self.transaction.store().contents();
        let keeps = self.transaction.store().keeps();
        for segment in committed.iter().take_while(|_| keeps && !interrupt.is_raised()) {
            // A note that cannot be made is one cutoff less.
            self.note(&self.plan.segments[segment], &path).ok();
        }
    }

    fn note(&self, segment: &Segment, path: &Path) -> io::Result<()> {
        let Some(key) = self.key(&segment.steps) else { return Ok(()) };
        let object = segment.steps.last().and_then(|last| self.transaction.object(self.id(*last)?));
        let Some(lower) = object.map(|object| object.reference()) else { return Ok(()) };
        let own = content::stage_key(&self.plan.graph, &segment.steps);
        let line = format!("{own} {key} {} {}\n", lower.id, lower.instance);
        self.contents().add(own, key, lower);
        rotating_file::append(path, line.as_bytes(), LIMIT)
    }

    fn key(&self, steps: &[NodeIndex]) -> Option<ContentKey> {
        content::content_key(&self.plan.graph, steps, |node| self.transaction.digest(self.id(node)?).ok())
    }

    fn id(&self, node: NodeIndex) -> Option<StageId> {
        self.plan.graph.stage_node(node).map(|stage| stage.id)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        let contents = self.contents.get_or_init(|| Mutex::new(Contents::read(self.transaction.store())));
        contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
