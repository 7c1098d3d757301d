//! Takes users and groups from an OSTree commit, so that a tree built from scratch gives them the same numbers.
//!
//! Writes `/etc/passwd` and `/etc/group` of what `/usr/etc` and `/usr/lib` of the commit have, of a name the former,
//! and `/etc/subuid` and `/etc/subgid` where the commit has ranges in `/usr/etc`. The input `commits` must be one
//! commit.
//!
//! A file whose last line has no end does not glue it to the next file's first, as it does in osbuild.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.passwd",
//!   "inputs": {
//!     "commits": {
//!       "type": "org.osbuild.ostree.checkout",
//!       "origin": "org.osbuild.source",
//!       "references": ["439911411ce7868f7058c2a660e421991eb2df10e2bdce1fa559bd4390be6b5f"]
//!     }
//!   }
//! }
//! ```

use osbc_module_api::*;

use crate::texts::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.passwd",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().inputs(&["commits"]).version_2_alone(),
    rejects: &[
        r#"{"inputs": {}}"#,
        r#"{"inputs": {"commits": {}, "other": {}}}"#,
        r#"{"inputs": {"commits": {}}, "options": {"other": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options {} = cx.options()?;
    let input = cx.input("commits")?;
    let commits = input.data.get("refs").and_then(Value::as_object);
    let (commit, data) = match commits.into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [(commit, data)] => (*commit, *data),
        commits => {
            let count = commits.len();
            return Err(Error::failed(format!("the input `commits` must be one commit, but is {count}")));
        }
    };
    let directory = data.get("path").and_then(Value::as_str).unwrap_or(commit);
    let checkout = Tree::open(&input.path)?.subtree(directory.trim_start_matches('/'))?;
    cx.tree.create_dir_all("etc", 0o777)?;
    for name in ["passwd", "group"] {
        let own = format!("usr/etc/{name}");
        let mut table = Table::default();
        if checkout.is_file(&own)? {
            table.add(&text::read(&checkout, &own)?);
        }
        let mut rest = Table::default();
        rest.add(&text::read(&checkout, &format!("usr/lib/{name}"))?);
        table.add_missing(rest);
        cx.tree.write(format!("etc/{name}"), table.lines())?;
    }
    for name in ["subuid", "subgid"] {
        if let Some(ranges) = text::read_if_there(&checkout, &format!("usr/etc/{name}"))? {
            let ranges = ranges_of(&ranges);
            if !ranges.is_empty() {
                cx.tree.write(format!("etc/{name}"), ranges)?;
            }
        }
    }
    Ok(())
}

/// Lines by what stands before their first `:`, in the order in which the names came.
#[derive(Debug, Default)]
struct Table(Vec<(String, String)>);

impl Table {
    /// Adds lines; of a name the last one counts.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let name = line.split(':').next().unwrap_or_default();
            match self.0.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = line.to_owned(),
                None => self.0.push((name.to_owned(), line.to_owned())),
            }
        }
    }

    /// Adds the lines of names that are not there.
    fn add_missing(&mut self, other: Table) {
        for (name, line) in other.0 {
            if !self.0.iter().any(|(own, _)| *own == name) {
                self.0.push((name, line));
            }
        }
    }

    fn lines(&self) -> String {
        self.0.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

/// A file of subordinate ids as osbuild writes it: of a name the last range, with empty lines between; comments and
/// what has not three fields are left out.
fn ranges_of(text: &str) -> String {
    let mut table = Table::default();
    for line in text.lines().map(str::trim) {
        if !line.starts_with('#') && line.split(':').count() == 3 {
            table.add(line);
        }
    }
    table.0.iter().map(|(_, line)| format!("{line}\n")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case(fill: impl FnOnce(&Tree)) -> Case {
        Case::new(&MODULE).input("commits", json!({"refs": {"abc": {"path": "/ref"}}}), |tree| {
            tree.create_dir_all("ref/usr/etc", 0o755).unwrap();
            tree.create_dir_all("ref/usr/lib", 0o755).unwrap();
            tree.write("ref/usr/lib/passwd", "bin:x:1:\nroot:x:0:lib\n").unwrap();
            tree.write("ref/usr/lib/group", "root:x:0:\n").unwrap();
            fill(tree);
        })
    }

    #[test]
    fn those_of_etc_come_first_and_win() {
        let done = case(|tree| tree.write("ref/usr/etc/passwd", "root:x:0:old\nroot:x:0:etc\nown:x:9:").unwrap());
        let done = done.file("etc/passwd", "old").run(json!({})).ok();
        assert_eq!(done.text("etc/passwd"), "root:x:0:etc\nown:x:9:\nbin:x:1:\n");
        assert_eq!(done.text("etc/group"), "root:x:0:\n");
        assert_eq!(done.tree.read_dir("etc").unwrap(), ["group", "passwd"]);
    }

    #[test]
    fn ranges_are_taken_where_there_are_any() {
        let done = case(|tree| {
            tree.write("ref/usr/etc/subuid", "# own\na:1:2\nbroken\nb:3:4\na:5:6\n").unwrap();
            tree.write("ref/usr/etc/subgid", "# none\n").unwrap();
        });
        let done = done.run(json!({})).ok();
        assert_eq!(done.text("etc/subuid"), "a:5:6\n\nb:3:4\n");
        assert!(!done.tree.exists("etc/subgid").unwrap());
    }

    #[test]
    fn one_commit_with_tables_is_wanted() {
        let none = Case::new(&MODULE).input("commits", json!({"refs": {}}), |_| ());
        assert!(none.run(json!({})).err().contains("but is 0"));
        let done = case(|tree| tree.remove_file("ref/usr/lib/group").unwrap()).run(json!({}));
        assert!(done.err().contains("usr/lib/group"));
    }
}
