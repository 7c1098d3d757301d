//! The users and groups of a tree by name, for what packages and overrides say of owners.

use std::collections::HashMap;

use osbc_module_api::{Error, Tree};

use super::database::read_text;

/// The numbers of a tree's users and groups.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Owners {
    /// Reads what the tree has; a file that is not there knows nobody.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(tree: &Tree) -> Result<Self, Error> {
        let table = |path: &str| -> Result<HashMap<String, u32>, Error> {
            if !tree.exists(path)? {
                return Ok(HashMap::new());
            }
            let text = read_text(tree, path)?;
            let line = |line: &str| {
                let mut fields = line.split(':');
                Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
            };
            Ok(text.lines().rev().filter_map(line).collect())
        };
        Ok(Self { users: table("etc/passwd")?, groups: table("etc/group")? })
    }

    /// A user's number, by name or by `#` and number.
    pub(crate) fn user(&self, name: &str) -> Option<u32> {
        number(&self.users, name)
    }

    /// A group's number, by name or by `#` and number.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        number(&self.groups, name)
    }
}

fn number(table: &HashMap<String, u32>, name: &str) -> Option<u32> {
    match name.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => table.get(name).copied(),
    }
}
