//! Which results the rest of a build still needs: what nothing needs any more may be evicted before it is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use osbc_ir::{Plan, StageId};

/// Counts who still needs what.
pub(crate) struct Needs {
    /// How many segments and exports need a result.
    users: Mutex<HashMap<StageId, usize>>,
    /// What each segment needs, and makes.
    of: Vec<BTreeSet<StageId>>,
}

impl Needs {
    /// Returns what a plan's segments and exports need.
    pub(crate) fn new(plan: &Plan) -> Self {
        let id = |node| plan.graph.stage_node(node).map(|stage| stage.id);
        let of: Vec<BTreeSet<StageId>> = (plan.segments.iter())
            .map(|segment| {
                let needed = segment.steps.iter().flat_map(|step| plan.graph.needs(*step)).map(|(node, _)| node);
                needed.chain(segment.steps.last().copied()).filter_map(id).collect()
            })
            .collect();
        let mut users: HashMap<StageId, usize> = HashMap::new();
        let exported = plan.exports.iter().filter_map(|export| export.node).filter_map(id);
        for needed in of.iter().flatten().copied().chain(exported) {
            *users.entry(needed).or_default() += 1;
        }
        Self { users: Mutex::new(users), of }
    }

    /// Notes that a segment needs nothing any more, and returns the results that nothing does.
    pub(crate) fn over(&self, segment: usize) -> Vec<StageId> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = self.of[segment].iter().filter(|id| {
            let count = users.entry(**id).or_insert(1);
            *count -= 1;
            *count == 0
        });
        gone.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use osbc_ir::CachedSet;
    use osbc_store::testing::Sketch;

    use super::*;

    #[test]
    fn a_result_is_needed_until_the_last_who_reads_it_is_over() {
        let sketch = Sketch::new().pipeline("one", None).stage("a", &[]).stage("b", &[]);
        let sketch = sketch.pipeline("two", None).stage("c", &["one"]).stage("d", &[]).finalize();
        let plan = sketch.plan(&CachedSet::default());
        let needs = Needs::new(&plan);
        let over = |index| needs.over(index);
        assert_eq!(plan.segments.len(), 4);
        assert_eq!(over(0), [], "b continues a");
        assert_eq!(over(1), [sketch.id("a")], "c reads b");
        assert_eq!(over(2), [], "d continues c, and b is exported");
        assert_eq!(over(3), [sketch.id("c")], "d is exported");
    }
}
