//! Installs pacman packages.
//!
//! Calls `pacman` of the build root on the files of the input `packages`. Scripts and hooks run in the tree, with
//! `/dev`, `/proc` and `/sys` there, and find a machine id; afterwards that is empty unless there was one before. The
//! metadata lists the packages that the tree has.
//!
//! ```json
//! {
//!   "type": "org.osbuild.pacman",
//!   "inputs": {
//!     "packages": {
//!       "type": "org.osbuild.files",
//!       "origin": "org.osbuild.source",
//!       "references": ["sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]
//!     }
//!   },
//!   "options": {}
//! }
//! ```

use std::os::unix::fs::symlink;
use std::path::Path;

use osbc_module_api::*;

use crate::trees::bind::Access;
use crate::trees::bound::Bound;
use crate::trees::pacman_database;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.pacman",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::Tool("pacman")],
    schema: || Schema::stage::<Options>().inputs(&["packages"]).version_2_alone(),
    rejects: &[
        r#"{"options": {"dbpath": "/var/lib/pacman"}, "inputs": {"packages": {}}}"#,
        r#"{"options": {}, "inputs": {}}"#,
        r#"{"options": {}, "inputs": {"packages": {}, "more": {}}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Options {}

const MACHINE_ID: &str = "etc/machine-id";
const RANDOM_SEED: &str = "var/lib/systemd/random-seed";
const DATABASE: &str = "var/lib/pacman";
/// Where the packages are while they are installed: pacman looks for them once the tree is its root. Always the same
/// place, as its log names it.
const PACKAGES: &str = ".osbc-packages";
/// What hooks read from, where the build root's `/dev` does not have it.
const STDIN: (&str, &str) = ("/proc/self/fd/0", "/dev/stdin");

fn run(cx: &StageContext) -> Result<(), Error> {
    let Options {} = cx.options()?;
    let (tree, tool) = (&cx.tree, cx.tool("pacman")?);
    let packages = cx.input("packages")?;
    let names = packages.data.get("files").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let mut bound = Bound::default();
    bound.show_kernel(tree)?;
    if !Path::new(STDIN.1).exists() {
        symlink(STDIN.0, STDIN.1).map_err(Error::io("create the link", STDIN.1))?;
    }
    let has_machine_id = tree.exists(MACHINE_ID)?;
    if !has_machine_id {
        tree.create_dir_all("etc", 0o777)?;
        // Always the same one, for what scripts make of it.
        tree.replace(MACHINE_ID, format!("{}\n", "f".repeat(32)), 0o444)?;
    }
    tree.create_dir_all(DATABASE, 0o777)?;
    tree.create_dir(PACKAGES, 0o755)?;
    bound.show(&Tree::open(&packages.path)?, "/", tree, PACKAGES, Access::ReadOnly)?;
    let paths = names.map(|name| format!("{PACKAGES}/{name}"));
    let root = tree.path_for_tools("/")?;
    tool.args(["-U", "--noconfirm", "--verbose", "--sysroot"]).arg(root).args(paths).run()?;
    drop(bound);
    tree.remove_dir_all(PACKAGES)?;
    if !has_machine_id {
        tree.replace(MACHINE_ID, "", 0o644)?;
    }
    if tree.exists(RANDOM_SEED)? {
        tree.remove_file(RANDOM_SEED)?;
    }
    cx.set_metadata(installed(tree)?);
    Ok(())
}

/// The packages that the tree has now, by name.
fn installed(tree: &Tree) -> Result<Value, Error> {
    let local = format!("{DATABASE}/local");
    let mut packages = Vec::new();
    if tree.is_dir(&local)? {
        for directory in tree.read_dir(&local)? {
            let path = Path::new(&local).join(directory).join("desc");
            if tree.is_file(&path)? {
                packages.push(pacman_database::package(&tree.read_to_string(&path)?).map_err(|error| {
                    Error::failed(format!("/{} is no description of a package: {error}", path.display()))
                })?);
            }
        }
    }
    packages.sort_by(|one, other| one.name.cmp(&other.name));
    let facts = |package: &pacman_database::Package| {
        json!({
            "name": package.name,
            "version": package.version,
            "release": package.release,
            "epoch": package.epoch.as_deref().map_or(json!(0), |epoch| json!(epoch)),
            "arch": package.architecture,
            "sigmd5": "",
            "sigpgp": "",
            "siggpg": "",
        })
    };
    Ok(json!({ "packages": packages.iter().map(facts).collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::testing::{Case, Done};

    use super::*;

    const SYSTEM: &str = "[options]\nArchitecture = auto\nSigLevel = Never\n";

    /// Installs a package with such a script, made by hand, in a tree with a shell.
    fn installed_with(script: &str) -> Option<Done> {
        if !has_root() || !has_tool("pacman") || !has_tool("busybox") || !has_tool("tar") {
            return None;
        }
        let files = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = files.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write(
            ".PKGINFO",
            "pkgname = greeter\npkgbase = greeter\npkgver = 2:1.5-3\npkgdesc = x\narch = any\nsize = 3\n",
        );
        write(".INSTALL", &format!("post_install() {{\n{script}\n}}\n"));
        write("usr/share/greeter/words", "hi\n");
        let tar = "tar -cf - .PKGINFO .INSTALL usr";
        let archive = Command::new("sh").args(["-ec", tar]).current_dir(files.path()).output().unwrap().stdout;
        let name = "sha256:0123";
        let busybox = fs::read("/bin/busybox").unwrap();
        let case = Case::new(&MODULE)
            .input("packages", json!({"files": {name: {}}}), |tree| tree.write(name, &archive).unwrap())
            .file("usr/bin/busybox", busybox)
            .mode("usr/bin/busybox", 0o755)
            .link("usr/bin/sh", "busybox")
            .link("usr/bin/bash", "busybox")
            .link("bin", "usr/bin")
            .file("etc/pacman.conf", SYSTEM)
            .file("var/lib/systemd/random-seed", "x")
            .dir("var/log")
            .dir("var/cache/pacman/pkg");
        Some(case.run(json!({})))
    }

    #[test]
    fn a_package_is_installed_and_recorded() {
        let script = "busybox cat /etc/machine-id >/etc/seen; busybox ls /proc/self/fd/0 /dev/null >>/etc/seen";
        let Some(done) = installed_with(script) else { return };
        let done = done.ok();
        assert_eq!(done.text("usr/share/greeter/words"), "hi\n");
        assert_eq!(done.text("etc/seen"), format!("{}\n/dev/null\n/proc/self/fd/0\n", "f".repeat(32)));
        assert_eq!((done.text("etc/machine-id").as_str(), done.mode("etc/machine-id")), ("", 0o644));
        for gone in [PACKAGES, RANDOM_SEED] {
            assert!(!done.tree.exists(gone).unwrap(), "{gone}");
        }
        let package = json!({
            "name": "greeter", "version": "1.5", "release": "3", "epoch": "2", "arch": "any", "sigmd5": "", "sigpgp": "",
            "siggpg": "",
        });
        assert_eq!(done.metadata, json!({"packages": [package]}));
        for directory in ["dev", "proc", "sys"] {
            assert!(done.tree.read_dir(directory).unwrap().is_empty(), "{directory}");
        }
    }

    #[test]
    fn what_is_no_package_fails() {
        if !has_root() || !has_tool("pacman") {
            return;
        }
        let case = Case::new(&MODULE).file("etc/pacman.conf", SYSTEM).dir("var/log");
        let case = case.input("packages", json!({"files": {"a": {}}}), |tree| tree.write("a", "text").unwrap());
        assert!(case.run(json!({})).err().contains("pacman -U"));
    }
}
