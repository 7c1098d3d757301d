//! A place for one stage: its tree, its scratch directory, its request.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use osbc_module_api::{Kind, OnDisk, Value, json};
use osbc_sandbox::client::{LocalRunner, StageIo, StageRunner};
use osbc_sandbox::interrupt::Interrupt;
use osbc_sandbox::request::{
    DeviceRequest, HostRequest, ModuleRequest, MountRequest, StageFailure, StageReply, StageRequest,
};
use osbc_store::{TreeStack, Upper};
use tempfile::TempDir;

pub(crate) struct Place {
    directory: TempDir,
    pub(crate) request: StageRequest,
}

impl Place {
    /// For a stage of ours with these options, on an empty tree, in the host's root.
    pub(crate) fn new(stage: &str, options: Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let made = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir(&path).expect("a directory");
            path
        };
        let request = StageRequest {
            id: "the-id".into(),
            module: module(Kind::Stage, stage),
            options,
            inputs: Vec::new(),
            devices: Vec::new(),
            mounts: Vec::new(),
            source_epoch: None,
            tree: TreeStack {
                lower: Vec::new(),
                upper: Some(Upper { dir: made("tree"), work: made("work"), metacopy: true }),
            },
            build_root: None,
            runner: "org.osbuild.linux".into(),
            prepared: None,
            runner_file: None,
            host: None,
            scratch: made("scratch"),
            capabilities: Vec::new(),
            timeout: None,
            in_vm: false,
            shell: None,
        };
        Self { directory, request }
    }

    /// A path beside tree and scratch.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory that takes what the stage writes.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    /// For an on-disk stage, with what on-disk modules on the host's side need.
    pub(crate) fn on_disk(libdir: &Path, stage: &str, options: Value) -> Self {
        let mut place = Self::new(stage, options);
        place.request.module = on_disk(libdir, Kind::Stage, stage);
        let environment = [("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())].into();
        place.request.host = Some(HostRequest { sources: place.path("sources"), environment });
        place
    }

    pub(crate) fn device(&mut self, name: &str, module_name: &str, options: Value) {
        let module = module(Kind::Device, module_name);
        self.request.devices.push(DeviceRequest { name: name.into(), module, parent: None, options });
    }

    /// A mount of the first device.
    pub(crate) fn mount(&mut self, module_name: &str, target: &str) {
        self.request.mounts.push(MountRequest {
            name: "-".into(),
            module: module(Kind::Mount, module_name),
            source: (!self.request.devices.is_empty()).then_some(0),
            partition: None,
            target: Some(target.into()),
            options: json!({}),
        });
    }

    /// Runs the stage; also gives what it wrote. Nothing of it may be left.
    pub(crate) fn run(&self) -> (StageReply, String) {
        self.run_until(&Interrupt::new().expect("an eventfd"))
    }

    pub(crate) fn run_until(&self, interrupt: &Interrupt) -> (StageReply, String) {
        let output = RefCell::new(String::new());
        let take = |text: &str| output.borrow_mut().push_str(text);
        let reply = runner().run(&self.request, &StageIo { output: &take, service_output: &take, interrupt });
        let output = output.into_inner();
        assert_eq!(left_of(self.directory.path()), Vec::<String>::new(), "left of {reply:?}");
        (reply, output)
    }

    /// Runs the stage, which must succeed, and returns the metadata that it set.
    pub(crate) fn succeed(&self) -> Value {
        let (reply, output) = self.run();
        assert_eq!(reply.failure, None, "{output}");
        reply.metadata
    }

    /// Runs the stage, which must fail, and returns why.
    pub(crate) fn fail(&self) -> StageFailure {
        let (reply, output) = self.run();
        reply.failure.unwrap_or_else(|| panic!("the stage succeeded: {output}"))
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// An on-disk module of a directory.
pub(crate) fn on_disk(libdir: &Path, kind: Kind, name: &str) -> ModuleRequest {
    let file = libdir.join(kind.directory()).join(name);
    let on_disk = OnDisk { file, libdir: libdir.to_owned(), package: None };
    ModuleRequest { kind, name: name.into(), on_disk: Some(on_disk) }
}

pub(crate) fn module(kind: Kind, name: &str) -> ModuleRequest {
    ModuleRequest { kind, name: name.into(), on_disk: None }
}

pub(crate) fn runner() -> LocalRunner {
    let this = std::env::current_exe().expect("this program has a path");
    LocalRunner::new(this, [OsString::from("helper")], "vt100")
}

/// What still refers to a directory anywhere on this machine: processes by their mounts, loop devices by their file.
pub(crate) fn left_of(directory: &Path) -> Vec<String> {
    let marker = directory.file_name().expect("a directory with a name").to_string_lossy().into_owned();
    let mut left = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        // Processes come and go meanwhile.
        let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        if let Some(line) = mounts.lines().find(|line| line.contains(&marker)) {
            left.push(format!("{}: {line}", process.path().display()));
        }
    }
    for device in fs::read_dir("/sys/block").expect("/sys is mounted").flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains("osbc-sandbox-test") || backing.contains(&marker) {
            left.push(format!("{}: {backing}", device.path().display()));
        }
    }
    left
}

/// Prints the cost of a stage that writes one file, beside that of an empty process.
///
/// It prints the minimum, which is nearest to the cost on an idle machine, and the median.
#[expect(clippy::print_stdout, reason = "this is what was asked for")]
pub(crate) fn measure(count: usize) -> ExitCode {
    let show = |what: &str, mut times: Vec<Duration>| {
        times.sort();
        let (least, median) = (times[0].as_secs_f64() * 1000.0, times[times.len() / 2].as_secs_f64() * 1000.0);
        println!("{what}: at least {least:.2} ms, median {median:.2} ms");
    };
    let time = |act: &dyn Fn()| {
        let start = Instant::now();
        act();
        start.elapsed()
    };
    let empty = || assert!(Command::new("/bin/true").status().expect("it starts").success());
    show("an empty process", (0..count).map(|_| time(&empty)).collect());

    let run = || {
        let place = Place::new("write", json!({"path": "file", "text": "x"}));
        let interrupt = Interrupt::new().expect("an eventfd");
        let runner = runner();
        let io = StageIo { output: &|_| (), service_output: &|_| (), interrupt: &interrupt };
        let stage = || assert_eq!(runner.run(&place.request, &io).failure, None);
        let times = (0..count).map(|_| {
            let taken = time(&stage);
            // As whoever sends requests does.
            fs::remove_dir_all(&place.request.scratch).expect("removes the scratch directory");
            fs::create_dir(&place.request.scratch).expect("makes it anew");
            taken
        });
        times.collect::<Vec<_>>()
    };
    show("a stage", run());
    for threads in [2, 4] {
        let start = Instant::now();
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run))));
        let each = start.elapsed().as_secs_f64() * 1000.0 / (count * threads) as f64;
        println!("{threads} at once: one done every {each:.2} ms");
    }
    ExitCode::SUCCESS
}
