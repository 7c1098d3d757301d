//! Changes the permission bits of files and directories in the tree.
//!
//! `mode` is octal (`0755`) or symbolic (`u+rwX,go-w`), with the meaning that the tool `chmod` gives it: a mode without
//! `u`, `g`, `o` or `a` heeds the umask, and octal modes of less than five digits leave the setuid and setgid bits of
//! directories. With `recursive` all below is changed too, symlinks excepted. Links on the way to a path are followed
//! inside the tree.
//!
//! ```json
//! {
//!   "type": "org.osbuild.chmod",
//!   "options": { "items": { "/etc/hosts": { "mode": "0600" }, "/home": { "mode": "u+rwX,go-rwx", "recursive": true } } }
//! }
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use osbc_module_api::*;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.chmod",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().version_2_alone(),
    rejects: &[
        r#"{"options": {"items": {"/a": {}}}}"#,
        r#"{"options": {"items": {"/a": {"mode": 420}}}}"#,
        r#"{"options": {"items": {"/a": {"mode": "0644", "recursive": "yes"}}}}"#,
        r#"{"options": {"items": {"a": {"mode": "0644"}}}}"#,
        r#"{"options": {"items": {"/../a": {"mode": "0644"}}}}"#,
        r#"{"options": {"items": {"/a/../b": {"mode": "0644"}}}}"#,
        r#"{"options": {"paths": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// What to change, by absolute path.
    #[serde(default)]
    items: BTreeMap<ItemPath, Item>,
}

/// An absolute path without `..`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
struct ItemPath(#[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))] String);

#[derive(Debug, Deserialize, JsonSchema)]
struct Item {
    /// An octal or symbolic mode.
    mode: String,
    /// Whether to change all below too.
    #[serde(default)]
    recursive: bool,
}

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options { items } = cx.options()?;
    for (ItemPath(path), Item { mode, recursive }) in &items {
        let changes = Change::read(mode).ok_or_else(|| Error::failed(format!("`{mode}` is no mode")))?;
        // The first path is where links lead, as for the tool.
        change(&cx.tree, path, &changes, STAGE_UMASK, mode.starts_with('-'))?;
        if *recursive && cx.tree.is_dir(path)? {
            let directory = cx.tree.subtree(path)?;
            directory.walk("/", |path, metadata| {
                if metadata.is_symlink() || path.parent().is_none() {
                    return Ok(());
                }
                change(&directory, path, &changes, STAGE_UMASK, mode.starts_with('-'))
            })?;
        }
    }
    Ok(())
}

/// Changes one file. A mode that looks like an option, such as `-w`, must do all it says whatever the umask.
fn change(
    tree: &Tree,
    path: impl AsRef<std::path::Path>,
    changes: &[Change],
    umask: u32,
    strict: bool,
) -> Result<(), Error> {
    let metadata = tree.metadata(&path)?;
    let new = |umask| changes.iter().fold(metadata.mode() & ALL, |mode, one| one.apply(mode, metadata.is_dir(), umask));
    tree.chmod(&path, new(umask))?;
    if strict && new(umask) != new(0) {
        let path = path.as_ref().display();
        return Err(Error::failed(format!(
            "the umask keeps bits of {path} that were to be taken; name them as in `a-w`"
        )));
    }
    Ok(())
}

const ALL: u32 = 0o7777;
const SETID: u32 = 0o6000;

/// One step of a mode, e.g. `go-w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    operator: Operator,
    /// Who it is for, as a mask; none for all that the umask allows.
    who: Option<u32>,
    bits: Bits,
    /// The setuid and setgid bits that it may change on a directory.
    explicit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Take,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    /// These.
    These(u32),
    /// These, and the execute bits if it is a directory or anybody may execute it.
    AndSearch(u32),
    /// What the user (0o700), the group (0o070) or others (0o007) have.
    Of(u32),
}

impl Change {
    /// The steps of a mode, or none if it is malformed.
    fn read(mode: &str) -> Option<Vec<Self>> {
        if mode.starts_with(|c: char| c.is_digit(8)) {
            let bits = octal(mode)?;
            let explicit = if mode.len() < 5 { bits & SETID } else { SETID };
            return Some(vec![Self { operator: Operator::Set, who: Some(ALL), bits: Bits::These(bits), explicit }]);
        }
        let mut changes = Vec::new();
        for clause in mode.split(',') {
            let start = clause.find(['+', '-', '='])?;
            let who = clause[..start].chars().try_fold(0, |mask, who| Some(mask | who_mask(who)?))?;
            let mut rest = &clause[start..];
            while !rest.is_empty() {
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |next| next + 1);
                changes.push(Self::step(&rest[..end], who, rest.len() == end)?);
                rest = &rest[end..];
            }
        }
        Some(changes)
    }

    /// An operator and what follows it, up to the next one.
    fn step(step: &str, who: u32, last: bool) -> Option<Self> {
        let (operator, bits) = step.split_at(1);
        let operator = match operator {
            "+" => Operator::Add,
            "-" => Operator::Take,
            _ => Operator::Set,
        };
        if bits.starts_with(|c: char| c.is_digit(8)) {
            let all = Self { operator, who: Some(ALL), bits: Bits::These(octal(bits)?), explicit: SETID };
            return if who == 0 && last { Some(all) } else { None };
        }
        let bits = match bits {
            "u" => Bits::Of(0o700),
            "g" => Bits::Of(0o070),
            "o" => Bits::Of(0o007),
            letters => {
                let mask = letters.chars().try_fold(0, |mask, letter| Some(mask | bit_mask(letter)?))?;
                if letters.contains('X') { Bits::AndSearch(mask) } else { Bits::These(mask) }
            }
        };
        let (Bits::These(mask) | Bits::AndSearch(mask) | Bits::Of(mask)) = bits;
        let explicit = if who == 0 { mask } else { who & mask } & SETID;
        Some(Self { operator, who: Some(who).filter(|who| *who != 0), bits, explicit })
    }

    /// The mode of a file after this step.
    fn apply(&self, old: u32, directory: bool, umask: u32) -> u32 {
        let kept = if directory { SETID & !self.explicit } else { 0 };
        let bits = match self.bits {
            Bits::These(bits) => bits,
            Bits::AndSearch(bits) if directory || old & 0o111 != 0 => bits | 0o111,
            Bits::AndSearch(bits) => bits,
            Bits::Of(class) => [0o444, 0o222, 0o111].iter().filter(|all| old & class & *all != 0).sum(),
        };
        let bits = bits & self.who.unwrap_or(!umask) & !kept;
        match self.operator {
            Operator::Add => old | bits,
            Operator::Take => old & !bits,
            Operator::Set => (old & (self.who.map_or(0, |who| !who) | kept)) | bits,
        }
    }
}

fn octal(digits: &str) -> Option<u32> {
    let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(digits, 8).ok().filter(|mode| digits_only && *mode <= ALL)
}

fn who_mask(who: char) -> Option<u32> {
    match who {
        'u' => Some(0o4700),
        'g' => Some(0o2070),
        'o' => Some(0o1007),
        'a' => Some(ALL),
        _ => None,
    }
}

fn bit_mask(letter: char) -> Option<u32> {
    match letter {
        'r' => Some(0o444),
        'w' => Some(0o222),
        'x' => Some(0o111),
        'X' => Some(0),
        's' => Some(0o6000),
        't' => Some(0o1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use osbc_module_api::testing::{Case, Done};

    use super::*;

    fn chmod(case: Case, path: &str, mode: &str, recursive: bool) -> Done {
        case.run(json!({"items": {path: {"mode": mode, "recursive": recursive}}}))
    }

    #[test]
    fn octal_and_symbolic_modes_are_set() {
        for (mode, result) in [("0600", 0o600), ("4755", 0o4755), ("u+x,g=u,o=", 0o770), ("a=r", 0o444)] {
            let done = chmod(Case::new(&MODULE).file("a", ""), "/a", mode, false).ok();
            assert_eq!(done.mode("a"), result, "{mode}");
        }
    }

    #[test]
    fn all_below_is_changed_but_for_what_links_lead_to() {
        let case = || {
            let case = Case::new(&MODULE).file("a/b/file", "").file("other", "").link("a/link", "/other");
            case.link("entry", "a").mode("a/b/file", 0o644).mode("other", 0o644)
        };
        for path in ["/a", "/entry"] {
            let done = chmod(case(), path, "go-rX,u=rwX", true).ok();
            let modes = ["a", "a/b", "a/b/file", "other"].map(|path| done.mode(path));
            assert_eq!(modes, [0o700, 0o700, 0o600, 0o644], "{path}");
        }
    }

    #[test]
    fn what_is_missing_or_no_mode_is_refused() {
        let done = chmod(Case::new(&MODULE), "/a", "0600", false);
        assert_eq!(done.err(), "cannot inspect /a: No such file or directory (os error 2)");
        let done = chmod(Case::new(&MODULE).file("a", ""), "/a", "9", false);
        assert_eq!(done.err(), "`9` is no mode");
    }

    /// Compares with the tool: every mode on files and directories of several modes.
    #[test]
    fn modes_mean_what_the_tool_takes_them_for() {
        let modes = [
            "0",
            "7",
            "644",
            "0644",
            "00644",
            "4755",
            "04755",
            "7777",
            "00000",
            "10000",
            "u",
            "+",
            "u+",
            "+x",
            "+w",
            "-x",
            "-w",
            "-r",
            "=",
            "=r",
            "a+x",
            "u+s",
            "g+s",
            "+s",
            "u-s",
            "ug+s",
            "o+t",
            "+t",
            "u+t",
            "a=",
            "u=g",
            "g=u",
            "o=ug",
            "g=o+w-x",
            "u=rwx,g=rx,o=",
            "go-rwxst",
            "u+X",
            "+X",
            "a-X",
            "a+rX",
            "u=X",
            "ug=rwXst",
            "+644",
            "-0111",
            "=0755",
            "=00755",
            "u+4",
            "u+x,",
            ",u+x",
            "u+y",
            "8",
            "0o7",
            "ug+o",
            "g-u",
            "=u",
            "+g",
            "u+rw-x",
            "+7x",
            "a=rx,u+w",
            "u=s",
            "g=s",
            "=s",
            "a+g,o-x",
            "u=+x",
            "u+r+w,=",
        ];
        let starts = [0o644, 0o755, 0o600, 0o4751, 0o2750, 0o1777, 0o6711, 0o000];
        for directory in [false, true] {
            for start in starts {
                for mode in modes {
                    let case = if directory { Case::new(&MODULE).dir("a") } else { Case::new(&MODULE).file("a", "") };
                    let case = case.mode("a", start);
                    let tool = Command::new("chmod").arg(mode).arg("--").arg(case.path().join("a")).output().unwrap();
                    let theirs = case.tree().metadata("a").unwrap().mode() & ALL;
                    let done = chmod(case.mode("a", start), "/a", mode, false);
                    let place = format!("{mode} on {start:o}, directory: {directory}");
                    assert_eq!(done.result.is_ok(), tool.status.success(), "{place}");
                    assert_eq!(format!("{:o}", done.mode("a")), format!("{theirs:o}"), "{place}");
                }
            }
        }
    }
}
