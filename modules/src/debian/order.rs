//! In which order packages are treated: what one needs comes before it.

use std::collections::{BTreeMap, BTreeSet};

use super::control::Control;

/// What a package needs before it can be configured.
const ALL: [&str; 2] = ["Pre-Depends", "Depends"];

/// What packages of a set need of each other.
#[derive(Debug)]
pub(crate) struct Needs<'a> {
    packages: &'a [&'a Control],
    /// The packages by their names and by what they provide, those of the name first.
    providers: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Needs<'a> {
    /// Looks at a set of packages.
    pub(crate) fn new(packages: &'a [&'a Control]) -> Self {
        let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, control) in packages.iter().enumerate() {
            providers.entry(control.value("Package")).or_default().push(index);
        }
        for (index, control) in packages.iter().enumerate() {
            for name in control.relations("Provides").concat() {
                providers.entry(name).or_default().push(index);
            }
        }
        Self { packages, providers }
    }

    /// The packages of the set that a package needs by these fields.
    fn direct(&self, index: usize, fields: &[&str]) -> Vec<usize> {
        let relations = fields.iter().flat_map(|field| self.packages[index].relations(field));
        // Of several alternatives the first that is there does.
        relations.filter_map(|names| names.iter().find_map(|name| self.providers.get(name)?.first().copied())).collect()
    }

    /// These packages and all that they need.
    pub(crate) fn with_needs(&self, of: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let (mut found, mut rest) = (BTreeSet::new(), of.into_iter().collect::<Vec<_>>());
        while let Some(index) = rest.pop() {
            if found.insert(index) {
                rest.extend(self.direct(index, &ALL));
            }
        }
        found
    }

    /// All that must be configured before a package is unpacked.
    pub(crate) fn before_unpacking(&self, index: usize) -> BTreeSet<usize> {
        let mut needs = self.with_needs(self.direct(index, &["Pre-Depends"]));
        needs.remove(&index);
        needs
    }

    /// All packages, each behind what it needs as far as that does not go in a circle.
    pub(crate) fn ordered(&self) -> Vec<usize> {
        fn visit(needs: &Needs<'_>, index: usize, seen: &mut [bool], order: &mut Vec<usize>) {
            if !std::mem::replace(&mut seen[index], true) {
                needs.direct(index, &ALL).into_iter().for_each(|needed| visit(needs, needed, seen, order));
                order.push(index);
            }
        }
        let (mut seen, mut order) = (vec![false; self.packages.len()], Vec::new());
        (0..self.packages.len()).for_each(|index| visit(self, index, &mut seen, &mut order));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(name: &str, more: &str) -> Control {
        Control::new(&format!("Package: {name}\n{more}"))
    }

    #[test]
    fn what_is_needed_comes_first_even_in_circles() {
        let all = [
            control("a", "Depends: b, missing | virtual"),
            control("b", "Depends: c"),
            control("c", "Pre-Depends: d\nDepends: b"),
            control("d", ""),
            control("e", "Provides: virtual (= 1)"),
        ];
        let all: Vec<&Control> = all.iter().collect();
        let needs = Needs::new(&all);
        assert_eq!(needs.ordered(), [3, 2, 1, 4, 0]);
        assert_eq!(needs.with_needs([1]), BTreeSet::from([1, 2, 3]));
        assert_eq!(needs.before_unpacking(2), BTreeSet::from([3]));
        assert!(needs.before_unpacking(0).is_empty());
    }
}
