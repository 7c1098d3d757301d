//! What a stage without a build tree finds on the machine is in its id: the same manifest on machines that differ.

use std::fs;
use std::process::{Command, Output};

use osbc_fixtures::{has_root, manifest};
use serde_json::Value;

use crate::harness::{Place, leftovers};

/// The file that decides where the quickstart's stage `org.osbuild.locale` writes.
const FIRSTBOOT: &str = "bin/systemd-firstboot";

/// Runs osbc where `/usr` has that `systemd-firstboot`, or none.
fn osbc_with(place: &Place, firstboot: Option<&str>, command: &str, arguments: &[&str]) -> Output {
    let [upper, work] = ["upper", "work"].map(|name| place.path(name));
    for directory in [&upper, &work] {
        fs::remove_dir_all(directory).ok();
        fs::create_dir_all(directory.join("bin")).expect("the place is writable");
    }
    let file = upper.join(FIRSTBOOT);
    match firstboot {
        Some(content) => fs::write(&file, content).expect("the place is writable"),
        // What an overlay takes for removed.
        None => nix::sys::stat::mknod(&file, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0)
            .expect("root makes device nodes"),
    }
    let script = "mount -t overlay overlay -o \"lowerdir=/usr,upperdir=$1,workdir=$2\" /usr && shift 2 && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh"])
        .args([&upper, &work])
        .arg(assert_cmd::cargo::cargo_bin("osbc"))
        .args([command, "--store"])
        .arg(place.store())
        .args(["-e", "tree"])
        .arg(manifest("quickstart.json"))
        .args(arguments)
        .output()
        .expect("unshare starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn stages(plan: &Output) -> Vec<Value> {
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("JSON");
    plan["pipelines"][0]["stages"].as_array().expect("it has stages").clone()
}

#[test]
fn root_what_is_installed_on_the_machine_gives_another_id_and_another_result() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let debian = "\0/etc/default/locale\0";
    let output = place.output();
    let to = output.to_str().expect("test paths are UTF-8");
    let mut ids: Vec<Vec<Value>> = Vec::new();
    for (firstboot, file, reason) in [
        (None, "etc/locale.conf", "never built"),
        (Some(debian), "etc/default/locale", "the file /usr/bin/systemd-firstboot of this machine was installed"),
        (Some("no Debian's"), "etc/locale.conf", "the file /usr/bin/systemd-firstboot of this machine changed"),
    ] {
        let explained = osbc_with(&place, firstboot, "explain", &["tree:locale"]);
        let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert!(explained.contains(reason), "{explained}");
        let stages = stages(&osbc_with(&place, firstboot, "plan", &["--json"]));
        let locale = stages.iter().position(|stage| stage["module"] == "org.osbuild.locale").expect("it is there");
        let ids_of = |stages: &[Value]| stages.iter().map(|stage| stage["id"].clone()).collect::<Vec<_>>();
        if let Some(before) = ids.last() {
            let now = ids_of(&stages);
            assert_eq!(now[..locale], before[..locale]);
            assert!(now[locale..].iter().zip(&before[locale..]).all(|(now, before)| now != before));
        }
        assert!(stages[locale..].iter().all(|stage| stage["action"] == "run"), "{stages:?}");
        ids.push(ids_of(&stages));
        osbc_with(&place, firstboot, "build", &["-o", to]);
        let there = ["etc/locale.conf", "etc/default/locale"].map(|path| output.join("tree").join(path).exists());
        assert_eq!(there, [file == "etc/locale.conf", file == "etc/default/locale"], "{firstboot:?}");
        fs::remove_dir_all(&output).expect("the output is the test's");
    }
    assert_ne!(ids[0], ids[2]);
    let again = stages(&osbc_with(&place, None, "plan", &["--json"]));
    assert!(again.iter().all(|stage| stage["action"] != "run"), "each machine's results are kept: {again:?}");
    let removed = osbc_with(&place, None, "explain", &["tree:locale"]);
    assert!(String::from_utf8_lossy(&removed.stdout).contains("cached"));
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}
