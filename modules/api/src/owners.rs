//! The owners that files can have in this process's user namespace: all ids of a machine for its root, and for a user
//! who is root in a namespace of their own those that it maps.

use std::{fs, io};

/// The ids that a user namespace maps: where each range begins, and how many ids it has.
#[derive(Debug, PartialEq, Eq)]
struct Mapped(Vec<(u64, u64)>);

impl Mapped {
    /// Parses a map of user_namespaces(7).
    fn parse(text: &str) -> Self {
        let row = |line: &str| {
            let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
            Some((numbers.next()?, numbers.nth(1)?))
        };
        Self(text.lines().filter_map(row).collect())
    }

    /// Returns how many ids there are, and how many more it takes to have `id`; `None` if it is there.
    fn lacks(&self, id: u32) -> Option<(u64, u64)> {
        let id = u64::from(id);
        let count = self.0.iter().map(|(_, count)| count).sum();
        let is_there = self.0.iter().any(|(start, count)| (*start..start + count).contains(&id));
        (!is_there).then(|| (count, (id + 1).saturating_sub(count)))
    }
}

/// Returns why no file here can belong to this user or group, and the way out; `None` if one can.
pub fn unmapped(user: Option<u32>, group: Option<u32>) -> Option<String> {
    let lacks = |kind, file, id: Option<u32>| {
        // Without the file, or with an unreadable one, nothing is known against the id.
        let mapped = Mapped::parse(&fs::read_to_string(file).ok()?);
        let id = id.filter(|_| !mapped.0.is_empty())?;
        mapped.lacks(id).map(|(count, more)| explain(kind, id, count, more))
    };
    lacks("user", "/proc/self/uid_map", user).or_else(|| lacks("group", "/proc/self/gid_map", group))
}

/// Returns the error that the system gave for an owner, with the reason where that has no place in the user namespace.
pub fn refused(error: impl Into<io::Error>, user: Option<u32>, group: Option<u32>) -> io::Error {
    let error = error.into();
    match unmapped(user, group).filter(|_| error.kind() == io::ErrorKind::InvalidInput) {
        Some(reason) => io::Error::new(error.kind(), reason),
        None => error,
    }
}

fn explain(kind: &str, id: u32, count: u64, more: u64) -> String {
    format!(
        "the {kind} id {id} lies beyond the {count} ids that builds without root have here, which are your subordinate ids; \
         add a free range of at least {more} more with `usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER`, as \
         root, or run osbc as root"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_beyond_the_ranges_are_named_with_how_many_are_missing() {
        let mapped = Mapped::parse("         0       1001          1\n         1     100000      65536\n");
        assert_eq!(mapped, Mapped(vec![(0, 1), (1, 65_536)]));
        for id in [0, 1, 65_536] {
            assert_eq!(mapped.lacks(id), None, "{id}");
        }
        assert_eq!(mapped.lacks(65_537), Some((65_537, 1)));
        assert_eq!(mapped.lacks(1_000_710_000), Some((65_537, 1_000_644_464)));
        let said = explain("user", 70_000, 65_537, 4464);
        assert!(said.contains("user id 70000") && said.contains("at least 4464 more"), "{said}");
    }

    #[test]
    fn the_machine_s_own_namespace_has_all_ids() {
        assert_eq!(Mapped::parse("         0          0 4294967295\n").lacks(u32::MAX - 1), None);
        assert_eq!(unmapped(None, None), None);
    }
}
