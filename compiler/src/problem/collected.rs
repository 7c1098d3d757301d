//! Collects problems, up to a limit. A manifest with more has one fault many times, or is no manifest.

use super::Problem;

/// How many problems are kept.
const MAX: usize = 10_000;

/// The problems found so far.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    pub(super) kept: Vec<Problem>,
    pub(super) incomplete: bool,
}

impl Problems {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, while there is room.
    pub fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.kept.push(problem);
        }
    }

    /// Whether there is no room for more; whoever asks has more to say.
    pub(crate) fn is_full(&mut self) -> bool {
        self.incomplete = self.kept.len() >= MAX;
        self.incomplete
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { kept: vec![problem], incomplete: false }
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}
