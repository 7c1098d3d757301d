//! How stages end, and that nothing of them outlives their end.

use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use osbc_ir::Resource;
use osbc_module_api::{Value, json};
use osbc_sandbox::client::{LocalRunner, StageIo, StageRunner, Transcript};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::request::StageFailure;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::tests;
use crate::place::{Place, left_of, runner};

tests![
    root_failures_of_the_module_are_reported,
    root_a_stage_that_exhausted_the_machine_is_recognized,
    root_a_stage_that_loses_its_process_is_recognized,
    root_output_comes_in_order_and_whole,
    root_a_flood_of_output_does_not_fill_the_memory,
    root_a_stage_may_close_its_output,
    root_a_stage_that_takes_too_long_is_ended,
    root_an_interrupt_ends_the_stage,
    root_daemons_end_with_their_stage,
    root_a_killed_helper_takes_the_stage_along,
    root_a_killed_helper_is_replaced,
    root_a_killed_worker_takes_the_stage_along,
    root_a_killed_parent_takes_the_stage_along,
    root_whenever_the_parent_is_killed_nothing_is_left,
    root_a_helper_that_cannot_start_is_the_environments_fault,
    root_a_module_may_start_threads,
];

fn root_failures_of_the_module_are_reported() {
    let (reply, _) = Place::new("fail", json!({})).run();
    let failure = Some(StageFailure::Module("it cannot work".into()));
    assert_eq!((reply.metadata, reply.failure), (Value::Null, failure));
    let (reply, output) = Place::new("panic", json!({})).run();
    assert_eq!(reply.failure, Some(StageFailure::Module("the module has a bug and panicked: a bug".into())));
    assert!(output.contains("modules.rs"), "where it happened is in the output: {output}");
}

fn root_a_stage_that_exhausted_the_machine_is_recognized() {
    let refused = |errno: rustix::io::Errno| Place::new("refused", json!({"errno": errno.raw_os_error()}));
    for (errno, resource) in [
        (rustix::io::Errno::NOSPC, Some(Resource::Disk)),
        (rustix::io::Errno::DQUOT, Some(Resource::Disk)),
        (rustix::io::Errno::AGAIN, Some(Resource::Tasks)),
        (rustix::io::Errno::IO, None),
    ] {
        let (failure, reason) = (refused(errno).fail(), format!("cannot write /file: {}", io::Error::from(errno)));
        let expected = match resource {
            Some(resource) => StageFailure::Exhausted(resource, reason),
            None => StageFailure::Module(reason),
        };
        assert_eq!(failure, expected);
    }
    if !osbc_fixtures::has_tool("mkfs.ext4") {
        return;
    }
    // With a file system of its own the stage may have meant that one.
    let mut place = refused(rustix::io::Errno::NOSPC);
    fs::File::create(place.tree().join("image")).expect("a file").set_len(8 << 20).expect("a size");
    let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(place.tree().join("image")).status();
    assert!(made.expect("mkfs.ext4 is there").success());
    place.device("disk", "loop", json!({"filename": "image"}));
    place.mount("ext4", "sub");
    assert!(matches!(place.fail(), StageFailure::Module(reason) if reason.contains("No space left on device")));
}

fn root_a_stage_that_loses_its_process_is_recognized() {
    let died = |stage: &str| match Place::new(stage, json!({})).fail() {
        StageFailure::Died(reason) => reason,
        other => panic!("{other:?}"),
    };
    let without_answer = "the stage's process ended before it was done; was it killed?";
    assert_eq!((died("abort").as_str(), died("exit").as_str()), (without_answer, without_answer));
    // With a device another process waits for that of the stage.
    let mut place = Place::new("abort", json!({}));
    place.device("disk", "loop", json!({"filename": "image"}));
    fs::write(place.tree().join("image"), [0; 1 << 16]).expect("an image");
    let StageFailure::Died(reason) = place.fail() else { panic!("it died") };
    assert_eq!(reason, "the stage's process was ended by SIGABRT");
}

fn root_output_comes_in_order_and_whole() {
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'w\\303\\244hlen\\377'";
    let (reply, output) = Place::new("shell", json!({"script": script})).run();
    assert_eq!(reply.failure, None);
    assert_eq!(output, "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nwählen\u{fffd}");
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel prints it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn root_a_flood_of_output_does_not_fill_the_memory() {
    let line = "0123456789abcde\n";
    let place = Place::new("print", json!({"text": line.repeat(4096), "times": 1600}));
    let (seen, transcript) = (Cell::new(0), std::cell::RefCell::new(Transcript::default()));
    let output = |text: &str| {
        seen.set(seen.get() + text.len());
        transcript.borrow_mut().push(text);
    };
    let before = peak();
    let interrupt = Interrupt::new().expect("an eventfd");
    let reply =
        runner().run(&place.request, &StageIo { output: &output, service_output: &output, interrupt: &interrupt });
    assert_eq!(reply.failure, None);
    assert_eq!(seen.get(), 100 << 20);
    assert!(transcript.borrow().text().len() < 5 << 20);
    let grown = peak() - before;
    assert!(grown < 32 << 20, "{grown} bytes");
}

fn root_a_stage_may_close_its_output() {
    Place::new("close-output", json!({})).succeed();
}

fn root_a_stage_that_takes_too_long_is_ended() {
    for stage in ["sleep", "shell"] {
        // Deaf to polite signals, and in children.
        let mut place = Place::new(stage, json!({"script": "trap '' TERM INT HUP; sleep 1000 & wait; sleep 1000"}));
        let timeout = Duration::from_millis(300);
        place.request.timeout = Some(timeout);
        let start = Instant::now();
        assert_eq!(place.fail(), StageFailure::TimedOut(timeout));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let mut place = Place::new("write", json!({"path": "file"}));
    place.request.timeout = Some(Duration::MAX);
    place.succeed();
}

fn root_an_interrupt_ends_the_stage() {
    let place = Place::new("sleep", json!({}));
    let interrupt = Interrupt::new().expect("an eventfd");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            interrupt.raise();
        });
        assert_eq!(place.run_until(&interrupt).0.failure, Some(StageFailure::Interrupted));
    });
    // Raised before, nothing starts.
    let place = Place::new("write", json!({"path": "file"}));
    assert_eq!(place.run_until(&interrupt).0.failure, Some(StageFailure::Interrupted));
    assert!(!place.tree().join("file").exists());
}

fn root_daemons_end_with_their_stage() {
    // They hold the output, the tree, and a mount of their own; and the stage does not wait for them.
    let script = "setsid sh -c 'cd /run/osbuild/tree; while :; do echo daemon; sleep 0.01; done' & \
                  setsid unshare --mount --pid --fork sh -c 'mount -t tmpfs none /tmp; sleep 1000' & \
                  setsid sh -c 'while :; do setsid sleep 1000 & sleep 0.001; done' & \
                  sleep 0.3";
    let place = Place::new("shell", json!({"script": script}));
    let start = Instant::now();
    let (reply, output) = place.run();
    assert_eq!(reply.failure, None);
    assert!(output.contains("daemon"));
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Runs a stage that sleeps, and something while it does so.
fn disturb(during: impl Fn(&Place) + Sync) -> StageFailure {
    let place = Place::new("sleep", json!({}));
    let sleeping = Cell::new(false);
    let interrupt = Interrupt::new().expect("an eventfd");
    let output = |_: &str| {
        if !sleeping.replace(true) {
            during(&place);
        }
    };
    let reply =
        runner().run(&place.request, &StageIo { output: &output, service_output: &output, interrupt: &interrupt });
    assert_eq!(left_of(place.directory()), Vec::<String>::new());
    reply.failure.expect("it was killed")
}

/// The processes of this program's helpers: each with its parent.
fn helpers() -> Vec<(i32, i32)> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let helper = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0helper\0"));
    let parent = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        status.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    numbers.filter(helper).filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("it runs");
}

fn our_helper() -> i32 {
    let this = std::process::id().cast_signed();
    helpers().iter().find(|(_, parent)| *parent == this).expect("it runs").0
}

fn root_a_killed_helper_takes_the_stage_along() {
    assert!(matches!(disturb(|_| kill(our_helper())), StageFailure::Died(_)));
}

fn root_a_killed_helper_is_replaced() {
    let (runner, interrupt) = (runner(), Interrupt::new().expect("an eventfd"));
    let run = || {
        let place = Place::new("write", json!({"path": "file"}));
        let reply =
            runner.run(&place.request, &StageIo { output: &|_| (), service_output: &|_| (), interrupt: &interrupt });
        assert_eq!(reply.failure, None);
    };
    run();
    let first = our_helper();
    run();
    assert_eq!(our_helper(), first, "one helper serves all stages");
    let its = |(pid, parent): &(i32, i32)| [pid, parent].contains(&&first);
    let family: Vec<i32> = helpers().iter().filter(|helper| its(helper)).map(|(pid, _)| *pid).collect();
    kill(first);
    // The worker that it had ready might still begin the next stage before it dies too.
    while helpers().iter().any(|(pid, _)| family.contains(pid)) {
        std::thread::yield_now();
    }
    run();
    assert_ne!(our_helper(), first);
}

fn root_a_killed_worker_takes_the_stage_along() {
    let failure = disturb(|_| {
        let helper = our_helper();
        kill(helpers().iter().find(|(_, parent)| *parent == helper).expect("it runs").0);
    });
    assert!(matches!(failure, StageFailure::Died(_)));
}

/// Runs the stage of a request in a file: what [`root_a_killed_parent_takes_the_stage_along`] kills.
#[expect(clippy::print_stdout, reason = "the test waits for it")]
pub(crate) fn be_parent(request: &str) -> ExitCode {
    let request = fs::read(request).expect("the request's file");
    let request = serde_json::from_slice(&request).expect("a request");
    let interrupt = Interrupt::new().expect("an eventfd");
    runner()
        .run(&request, &StageIo { output: &|text| print!("{text}"), service_output: &|_| (), interrupt: &interrupt });
    ExitCode::SUCCESS
}

/// Starts a process that runs the stage.
fn start_parent(place: &Place) -> Child {
    let file = place.path("request");
    fs::write(&file, serde_json::to_vec(&place.request).expect("JSON")).expect("a file");
    let mut parent = Command::new(std::env::current_exe().expect("this program has a path"));
    parent.arg("parent").arg(&file).stdout(Stdio::piped()).spawn().expect("it starts")
}

fn kill_and_see_nothing_left(mut parent: Child, place: &Place) {
    parent.kill().expect("it is ours");
    parent.wait().expect("it ran");
    // Nobody is there to wait for the rest, which takes a moment, and on a busy disk many.
    let end = Instant::now() + Duration::from_secs(120);
    while !left_of(place.directory()).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(left_of(place.directory()), Vec::<String>::new());
}

fn root_a_killed_parent_takes_the_stage_along() {
    let mut place = Place::new("sleep", json!({}));
    place.device("disk", "loop", json!({"filename": "image"}));
    fs::write(place.tree().join("image"), [0; 1 << 16]).expect("an image");
    let mut parent = start_parent(&place);
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("a pipe")).read_line(&mut line).expect("text");
    assert_eq!(line, "sleeping\n");
    assert!(!left_of(place.directory()).is_empty(), "the test looks at the right things");
    kill_and_see_nothing_left(parent, &place);
}

fn root_whenever_the_parent_is_killed_nothing_is_left() {
    for delay in 0..40 {
        let mut place = Place::new("shell", json!({"script": "true"}));
        place.device("disk", "loop", json!({"filename": "image"}));
        fs::write(place.tree().join("image"), [0; 1 << 16]).expect("an image");
        let parent = start_parent(&place);
        std::thread::sleep(Duration::from_millis(delay));
        kill_and_see_nothing_left(parent, &place);
    }
}

fn root_a_helper_that_cannot_start_is_the_environments_fault() {
    let place = Place::new("write", json!({}));
    let interrupt = Interrupt::new().expect("an eventfd");
    let run = |program: &str| {
        let runner = LocalRunner::new(PathBuf::from(program), [], "dumb");
        runner.run(&place.request, &StageIo { output: &|_| (), service_output: &|_| (), interrupt: &interrupt }).failure
    };
    let Some(StageFailure::Environment(reason)) = run("/does/not/exist") else { panic!("the environment") };
    assert!(reason.contains("/does/not/exist"), "{reason}");
    // One that is no helper.
    assert!(matches!(run("/bin/true"), Some(StageFailure::Died(_))));
}

fn root_a_module_may_start_threads() {
    Place::new("threads", json!({})).succeed();
}
