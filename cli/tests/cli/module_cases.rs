//! That the cases of modules, which `tools/compare-osbuild` compares with osbuild, build on a machine without it: in real
//! sandboxes, with real tools, with what rights these have there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use osbc_fixtures::{has_root, module_cases};

use crate::harness::{Place, osbc};

/// What a case may say that does not build, for what no machine of the tests has: tools that Debian does not have or that
/// the tests do not install, a newer ostree, device-mapper; and passwords that are no hashes, which osbuild takes.
const REFUSALS: [(&str, &str); 11] = [
    ("org.osbuild.bootc.install-to-filesystem", "the tool `bootc`"),
    ("org.osbuild.dnf4.mark", "the tool `dnf-3` is not in the build root"),
    ("org.osbuild.lvm2.create", "device-mapper"),
    ("org.osbuild.ostree.commit", "the tool `rpm-ostree`"),
    ("org.osbuild.ostree.deploy.container", "ostree container image deploy"),
    ("org.osbuild.ostree.encapsulate", "the tool `rpm-ostree`"),
    ("org.osbuild.ostree.post-copy", "org.osbuild.ostree.post-copy FAILED"),
    ("org.osbuild.ostree.preptree", "the tool `rpm-ostree`"),
    ("org.osbuild.ostree.sign", "--keys-file"),
    ("org.osbuild.rpm-ostree", "the tool `rpm-ostree`"),
    ("org.osbuild.users", "is no hash of a password"),
];

/// The cases that are to build, as `MODULE/CASE.json`.
fn cases() -> Vec<PathBuf> {
    let entries =
        |path: &Path| fs::read_dir(path).expect("fixtures can be listed").map(|entry| entry.expect("listed").path());
    let modules = entries(&module_cases("")).filter(|path| path.is_dir());
    let is_case = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("fixtures have plain names");
        name.ends_with(".json") && !name.starts_with("error")
    };
    let mut cases: Vec<PathBuf> =
        modules.flat_map(|module| entries(&module).filter(is_case).collect::<Vec<_>>()).collect();
    cases.sort();
    cases
}

/// Builds a case. Returns what is wrong with what it did.
fn fault(case: &Path) -> Option<String> {
    let place = Place::new();
    let output = osbc().arg("build").arg(case).arg("--store").arg(place.store()).output().expect("osbc starts");
    // Deployments of ostree cannot be deleted otherwise.
    process::Command::new("chattr").args(["-R", "-f", "-i"]).arg(place.path("")).output().expect("chattr starts");
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let module = case.parent()?.file_name()?.to_str()?;
    let may = REFUSALS.iter().any(|(name, text)| *name == module && said.contains(text));
    (!may).then(|| format!("{}: {}\n{said}", case.display(), output.status))
}

#[test]
fn every_case_builds_or_says_what_this_machine_does_not_have() {
    if !has_root() {
        return;
    }
    let cases = cases();
    let next = AtomicUsize::new(0);
    let work = || {
        let claimed = std::iter::from_fn(|| cases.get(next.fetch_add(1, Ordering::Relaxed)));
        claimed.filter_map(|case| fault(case)).collect::<Vec<_>>()
    };
    let faults: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    });
    assert!(cases.len() > 350, "{} cases", cases.len());
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
