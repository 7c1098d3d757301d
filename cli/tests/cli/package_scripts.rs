//! What the scripts of a package can do to the machine that builds: no more than in a container.

use std::fs;
use std::path::Path;

use osbc_fixtures::deb::{Deb, PROBE, base, can_install, perl};
use osbc_fixtures::{has_tester, has_tool};
use serde_json::{Map, Value, json};

use crate::harness::{Place, checksum, leftovers};
use crate::rootless::{build_as_tester, place_of_tester};

/// A manifest that installs packages, which it takes from the directory `packages` of a place.
fn installing(place: &Place, debs: &[&Deb], options: Value) -> std::path::PathBuf {
    let directory = place.path("packages");
    fs::create_dir_all(&directory).expect("the place is writable");
    let item = |deb: &&Deb| {
        let path = deb.write(&directory);
        (checksum(&fs::read(&path).expect("it was made")), json!(format!("file://{}", path.display())))
    };
    let items: Map<String, Value> = debs.iter().map(item).collect();
    let references: Vec<&String> = items.keys().collect();
    place.manifest(&json!({
        "version": "2",
        "sources": {"org.osbuild.curl": {"items": items}},
        "pipelines": [{"name": "tree", "stages": [{
            "type": "org.osbc.deb",
            "inputs": {"packages": {
                "type": "org.osbuild.files", "origin": "org.osbuild.source", "references": references
            }},
            "options": options
        }]}]
    }))
}

/// A package whose scripts try all that the probe does.
fn hostile() -> Deb {
    let deb = Deb::new("hostile").field("Pre-Depends", "perl").file("usr/lib/probe", PROBE);
    let run = |script: &str| format!("perl - >/var/log/{script} 2>&1 <<'END'\n{PROBE}\nEND");
    deb.script("preinst", &run("preinst")).script("postinst", &run("postinst"))
}

/// What podman allows too: calls that do nothing to anybody else.
const ALLOWED: [&str; 2] = ["user namespace: yes", "open /dev/tty: yes"];

/// What a script found of the machine, as the probe printed it.
fn check(tree: &Path, script: &str, as_root: bool) {
    let said = fs::read_to_string(tree.join("var/log").join(script)).expect("the script ran");
    assert!(said.ends_with("done\n"), "{said}");
    let done: Vec<&str> = said.lines().filter(|line| line.ends_with(": yes") && !ALLOWED.contains(line)).collect();
    assert!(done.is_empty(), "{script}: {done:?}\n{said}");
    // Chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap.
    let capabilities = "00000000800405fb";
    for line in [
        &format!("status CapPrm:\t{capabilities}"),
        &format!("status CapEff:\t{capabilities}"),
        &format!("status CapBnd:\t{capabilities}"),
        "status CapAmb:\t0000000000000000",
        "status NoNewPrivs:\t1",
        "status Seccomp:\t2",
        "dev fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "interfaces lo",
        "io_uring: no 38",
        "add a key: no 38",
        "bpf: no 1",
        "set the time: no 1",
        "load a kernel: no 1",
        "open by handle: no 1",
        "userfaultfd: no 1",
        "audit: no 22",
        "raw socket: no 1",
        "write core_pattern: no 30",
        "write to /sys: no 30",
        "reach the root of 1: no 13",
        "unshare mounts: no 1",
    ] {
        // Without root the kernel asks for rights in the first user namespace before it looks at mounts.
        let other = line.replace("no 30", "no 13");
        assert!(said.lines().any(|said| said == line || (!as_root && said == other)), "{script}: {line}\n{said}");
    }
    let mounted = said.lines().find_map(|line| line.strip_prefix("mounted ")).expect("it says what is mounted");
    let writable = "/ /dev /dev/full /dev/null /dev/pts /dev/random /dev/shm /dev/tty /dev/urandom /dev/zero /proc";
    let known: Vec<&str> = writable.split(' ').chain(["/tmp"]).collect();
    // Files of /proc that are hidden are /dev/null.
    let more: Vec<&str> = mounted.split(' ').filter(|at| !known.contains(at) && !at.starts_with("/proc/")).collect();
    assert!(more.is_empty(), "{script}: {more:?}");
    let numbers = said.lines().find_map(|line| line.strip_prefix("processes ")).expect("it says who is there");
    assert!(numbers.starts_with("1 2") && numbers.split(' ').count() < 10, "{script}: {numbers}");
}

#[test]
fn root_a_package_s_scripts_can_do_what_they_can_in_a_container() {
    if !can_install() || !has_tool("perl") {
        return;
    }
    let place = Place::new();
    let manifest = installing(&place, &[&base(), &perl(), &hostile()], json!({}));
    place.build(&manifest).assert().success();
    for script in ["preinst", "postinst"] {
        check(&place.output().join("tree"), script, true);
    }
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn tester_a_package_s_scripts_can_do_no_more_without_root() {
    if !can_install() || !has_tool("perl") || !has_tester() {
        return;
    }
    let place = place_of_tester();
    let manifest = installing(&place, &[&base(), &perl(), &hostile()], json!({}));
    build_as_tester(&place, &manifest).assert().success();
    for script in ["preinst", "postinst"] {
        check(&place.output().join("tree"), script, false);
    }
}

#[test]
fn root_a_daemon_that_hides_from_its_script_ends_with_it() {
    if !can_install() || !has_tool("perl") {
        return;
    }
    // In a mount namespace of its own, below a user namespace of its own, in a session of its own.
    let (unshare, setsid) = if cfg!(target_arch = "x86_64") { (272, 112) } else { (97, 157) };
    let daemon = format!(
        "perl -e 'syscall({unshare}, 0x10020000) == 0 or die $!; fork and exit; syscall({setsid}); fork and exit; \
         close STDOUT; close STDERR; close STDIN; sleep 1000'"
    );
    for script in ["preinst", "postinst"] {
        let place = Place::new();
        let deb = Deb::new("lingers").field("Pre-Depends", "perl").script(script, &daemon);
        let manifest = installing(&place, &[&base(), &perl(), &deb], json!({}));
        let text = place.build(&manifest).assert().code(1).get_output().clone();
        let text = String::from_utf8_lossy(&[text.stdout, text.stderr].concat()).into_owned();
        assert!(text.contains("left processes running, which it may not: `perl -e"), "{script}: {text}");
        assert_eq!(leftovers(&place.path("")), Vec::<String>::new(), "{script}");
    }
}
