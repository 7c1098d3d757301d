//! Shells in sandboxes: with commands piped in, and on a terminal.

use std::process::Command;

use osbc_fixtures::{has_root, has_tool, manifest};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::harness::{Place, leftovers, one_pipeline, osbc};

fn mkdir(path: &str) -> Value {
    json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}})
}

fn hostname() -> Value {
    json!({"type": "org.osbuild.hostname", "options": {"hostname": "never"}})
}

fn shell(place: &Place, manifest: &std::path::Path, stage: &str, commands: &str) -> assert_cmd::assert::Assert {
    let mut command = osbc();
    command.arg("shell").arg(manifest).arg(stage).arg("--store").arg(place.store());
    command.write_stdin(commands).assert()
}

#[test]
fn root_a_shell_stands_where_its_stage_would_and_keeps_nothing() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let manifest = place.manifest(&one_pipeline(json!([mkdir("/etc"), hostname(), mkdir("/later")])));
    let looks = "pwd; ls; touch etc/mine; cat /run/osbuild/api/arguments; exit 7\n";
    let seen = || contains("/run/osbuild/tree\netc\n").and(contains("\"hostname\": \"never\""));
    let shell_of = |stage: &str| shell(&place, &manifest, stage, looks);
    shell_of("hostname").code(7).stdout(seen()).stderr(contains("all that comes before it is done"));
    assert_eq!(place.plan(&manifest)["totals"]["cached"], 1, "what comes before is kept, and nothing else");

    // Also where the stage's own result is there.
    place.build(&manifest).assert().success();
    shell_of("tree/org.osbuild.hostname").code(7).stdout(seen());
    assert!(!place.output().join("tree/etc/mine").exists());
    shell_of("mkdir").code(2).stderr(contains("more than one stage"));
    shell_of("nonsense").code(2).stderr(contains("has no stage `nonsense`"));
    shell(&place, std::path::Path::new("-"), "mkdir", "").code(2).stderr(contains("standard input"));
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_a_shell_sees_the_devices_mounts_and_inputs_of_its_stage() {
    if !has_root() || !["sfdisk", "mkfs.ext4"].into_iter().all(has_tool) {
        return;
    }
    let place = Place::new();
    // The stage that copies the tree to the mounted disk.
    let looks =
        "ls /run/osbuild/inputs/*/etc/hostname; findmnt -n -o FSTYPE -R /run/osbuild/mounts | sort -u; ls /dev\n";
    let seen = contains("/etc/hostname").and(contains("ext4")).and(contains("loop"));
    shell(&place, &manifest("loop-disk.json"), "disk/copy", looks).success().stdout(seen);
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

#[test]
fn root_a_failed_stage_leaves_its_tree_to_a_shell() {
    if !has_root() {
        return;
    }
    let place = Place::new();
    let half = json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/done"}, {"path": "/not/there"}]}});
    let manifest = place.manifest(&one_pipeline(json!([mkdir("/etc"), half])));
    let mut build = place.build(&manifest);
    build.arg("--shell-on-failure").write_stdin("ls\nexit 9\n");
    let message = contains("org.osbuild.mkdir failed: ").and(contains("not kept"));
    build.assert().code(1).stdout(contains("done\netc\n")).stderr(message);
    assert_eq!(place.plan(&manifest)["totals"]["run"], 1);
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}

/// Types into a shell on a terminal and says what came back, and whether the terminal is as before.
const TYPIST: &str = r#"
import os, pty, select, signal, struct, sys, termios, time, fcntl
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3): os.dup2(slave, fd)
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def until(text, start=0):
    global seen
    end = time.monotonic() + 100
    while text not in seen[start:]:
        if time.monotonic() > end or not select.select([master], [], [], 100)[0]: sys.exit("no %r in %r" % (text, seen))
        seen += os.read(master, 65536)
def type(text): os.write(master, text)
until(b"] /run/osbuild/tree # ")
type(b"tty; stty size; echo one-$((1 + 0))\n"); until(b"one-1")
type(b"sleep 1000 & jobs; kill %1; echo two-$((1 + 1))\n"); until(b"two-2")
# Said by what has the terminal, or the key could reach the shell before that does.
type(b"sh -c 'echo begun-$((2 + 1)); exec sleep 1000'\n"); until(b"begun-3")
type(b"\x03"); type(b"echo after-$((2 + 2))\n"); until(b"after-4"); until(b"tree # ", seen.rindex(b"after-4"))
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0)); os.kill(pid, signal.SIGWINCH)
type(b"until stty size | grep '44 88'; do :; done; exit 5\n"); until(b"44 88\r\n")
status = os.waitpid(pid, 0)[1]
after = termios.tcgetattr(slave)
sys.stdout.write(seen.decode(errors="replace").replace("\r", ""))
print("code", os.waitstatus_to_exitcode(status), "same" if before == after else "changed")
"#;

#[test]
fn root_a_terminal_s_shell_has_job_control_and_gives_the_terminal_back() {
    if !has_root() || !has_tool("python3") {
        return;
    }
    let place = Place::new();
    let manifest = place.manifest(&one_pipeline(json!([mkdir("/etc"), hostname()])));
    let mut typist = Command::new("python3");
    typist.args(["-c", TYPIST]).arg(assert_cmd::cargo::cargo_bin("osbc"));
    typist.arg("shell").arg(&manifest).arg("hostname").arg("--store").arg(place.store());
    let output = typist.env("TERM", "xterm").output().expect("python3 starts");
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{seen}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["/dev/pts/0\n33 77\n", "sleep 1000 &", "code 5 same\n"] {
        assert!(seen.contains(expected), "no {expected:?} in {seen}");
    }
    assert!(!seen.contains("no job control"), "{seen}");
    assert_eq!(leftovers(&place.path("")), Vec::<String>::new());
}
