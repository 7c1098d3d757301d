//! Turns a tree into one that OSTree can deploy.
//!
//! Configuration moves to `/usr/etc`; of the rest, `/usr`, `/boot` and `/var` stay, and `/home` moves to `/var` unless
//! it is empty. What else was at the top is dropped for the directories and links of OSTree's layout. Then `rpm-ostree`
//! of the build root does its part. Without `tmp-is-dir`, `/tmp` becomes a link to `/sysroot/tmp`, where osbuild makes
//! a link to `tmp` there.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree.preptree",
//!   "options": { "etc_group_members": ["wheel", "docker"], "initramfs-args": ["--no-hostonly"] }
//! }
//! ```

use std::path::Path;

use osbc_module_api::*;

use crate::ostrees::ostree_layout::{MERGED, make_top};
use crate::ostrees::treefile::{CAPABILITIES, Postprocess};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.ostree.preptree",
    revision: 1,
    capabilities: CAPABILITIES,
    requires: &[Requirement::Tool("rpm-ostree")],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {"etc_group_members": "wheel"}}"#,
        r#"{"options": {"initramfs-args": [1]}}"#,
        r#"{"options": {"tmp-is-dir": "yes"}}"#,
        r#"{"options": {"extra": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| {
        let Options { etc_group_members, initramfs_args, tmp_is_dir } = cx.options()?;
        let machine_id = cx.tree.exists("etc/machine-id")?;
        rearrange(&cx.tree, tmp_is_dir)?;
        Postprocess { etc_group_members, initramfs_args, machine_id }.run(cx)
    }),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The groups that stay in `/etc/group`
    #[serde(default)]
    etc_group_members: Vec<String>,
    /// The arguments of dracut
    #[serde(rename = "initramfs-args", default)]
    initramfs_args: Vec<String>,
    /// Whether `/tmp` is a directory
    #[serde(rename = "tmp-is-dir", default = "yes")]
    tmp_is_dir: bool,
}

fn yes() -> bool {
    true
}

/// Where the old top of the tree goes meanwhile.
const OLD_TOP: &str = ".osbc-preptree";

fn rearrange(tree: &Tree, tmp_is_directory: bool) -> Result<(), Error> {
    tree.rename("etc", "usr/etc")?;
    let names = tree.read_dir("/")?;
    tree.create_dir(OLD_TOP, 0o700)?;
    let old = Path::new(OLD_TOP);
    for name in &names {
        tree.rename(name, old.join(name))?;
    }
    make_top(tree, tmp_is_directory)?;
    // The new one is empty.
    tree.remove_dir_all("var")?;
    for name in ["usr", "boot", "var"] {
        tree.rename(old.join(name), name)?;
    }
    if !tree.read_dir(old.join("home"))?.is_empty() {
        tree.rename(old.join("home"), "var/home")?;
    }
    for name in MERGED {
        if names.iter().any(|there| there == name) {
            tree.rename(old.join(name), name)?;
        }
    }
    tree.remove_dir_all(OLD_TOP)
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    fn case() -> Case {
        let case = Case::new(&MODULE).file("etc/hosts", "").file("usr/bin/sh", "").file("boot/vmlinuz", "");
        case.dir("var/lib").link("bin", "usr/bin").dir("opt/vendor").dir("root").link("srv", "data")
    }

    #[test]
    fn the_top_gets_the_layout_and_the_rest_is_dropped() {
        let case = case().file("home/user/file", "");
        rearrange(case.tree(), true).unwrap();
        let names: Vec<_> = case.tree().read_dir("/").unwrap();
        let expected = [
            "bin", "boot", "dev", "home", "media", "mnt", "opt", "ostree", "proc", "root", "run", "srv", "sys",
            "sysroot", "tmp", "usr", "var",
        ];
        assert_eq!(names, expected);
        for path in ["usr/etc/hosts", "usr/bin/sh", "boot/vmlinuz", "var/home/user/file", "var/lib"] {
            assert!(case.tree().exists(path).unwrap(), "{path}");
        }
        assert_eq!(case.tree().read_link("srv").unwrap().to_str(), Some("var/srv"));
        assert!(!case.tree().exists("var/opt").unwrap());
    }

    #[test]
    fn an_empty_home_does_not_move() {
        let case = case().dir("home");
        rearrange(case.tree(), false).unwrap();
        assert!(!case.tree().exists("var/home").unwrap());
        assert_eq!(case.tree().read_link("tmp").unwrap().to_str(), Some("sysroot/tmp"));
    }

    #[test]
    fn a_tree_without_configuration_is_refused() {
        let case = Case::new(&MODULE).dir("usr");
        assert!(case.run(json!({})).err().starts_with("cannot rename"));
    }
}
