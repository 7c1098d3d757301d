//! Works through a tree: alone as long as it is small, with all of rayon's threads when it turns out to be large. Knows
//! neither what the things are nor what is done with them.

use rayon::Scope;

/// From this much work on, what is left is shared. One is about an entry of a folder.
pub(crate) const SHARE: usize = 128;

/// Visits `first` and whatever the visits put to the list, each once; the last put is the next visited, so that what
/// waits stays short. A visit tells how much work it was.
pub(crate) fn walk<T: Send>(first: T, visit: impl Fn(T, &mut Vec<T>) -> usize + Sync) {
    rayon::in_place_scope(|scope| go(scope, first, &visit));
}

fn go<'scope, T: Send + 'scope, V: Fn(T, &mut Vec<T>) -> usize + Sync>(
    scope: &Scope<'scope>,
    first: T,
    visit: &'scope V,
) {
    let (mut waiting, mut work) = (vec![first], 0);
    while let Some(next) = waiting.pop() {
        work += visit(next, &mut waiting);
        if work >= SHARE {
            work = 0;
            for next in waiting.drain(..) {
                scope.spawn(move |scope| go(scope, next, visit));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everything_is_visited_once() {
        let (visits, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // The numbers below 10,000, as a tree: the children of n are 3n + 1, 3n + 2 and 3n + 3.
        walk(0usize, |number, waiting| {
            visits.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(number, Ordering::Relaxed);
            waiting.extend((1..=3).map(|child| 3 * number + child).filter(|child| *child < 10_000));
            10
        });
        assert_eq!((visits.into_inner(), sum.into_inner()), (10_000, 9_999 * 5_000));
    }
}
