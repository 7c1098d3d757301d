//! The modules that the tests run: each does the one thing that a test looks at.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use osbc_module_api::loopdev::{Config, LoopDevice};
use osbc_module_api::{
    Catalog, DeviceContext, Entry, Error, InputContext, Kind, Library, LibraryError, Map, MappedInput, Module,
    ModuleDef, MountContext, OpenDevice, Provider, Revision, Schema, StageContext, Tool, Value, json,
};
use rustix::fs::OFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

const fn module(kind: Kind, name: &'static str, entry: Entry) -> ModuleDef {
    let schema = || Schema::version_2(json!({}));
    ModuleDef {
        kind,
        name,
        revision: 1,
        capabilities: &[],
        requires: &[],
        schema,
        rejects: &[],
        parse: |_| Ok(()),
        entry,
    }
}

const fn stage(name: &'static str, function: fn(&StageContext) -> Result<(), Error>) -> ModuleDef {
    module(Kind::Stage, name, Entry::Stage(function))
}

static MODULES: [ModuleDef; 24] = [
    stage("describe", describe),
    stage("write", |context| {
        let text = |name: &str| context.options[name].as_str().unwrap_or_default().to_owned();
        context.tree.write(text("path"), text("text"))
    }),
    stage("print", |context| {
        let text = context.options["text"].as_str().unwrap_or_default().as_bytes();
        let times = context.options["times"].as_u64().unwrap_or(1);
        let mut output = std::io::stdout().lock();
        (0..times).try_for_each(|_| output.write_all(text)).map_err(Error::io("write", "stdout"))
    }),
    stage("echo", |context| {
        context.set_metadata(context.options.clone());
        Ok(())
    }),
    stage("fail", |_| Err(Error::failed("it cannot work"))),
    stage("refused", |context| {
        let number = context.options["errno"].as_i64().unwrap_or_default();
        Err(Error::io("write", "/file")(std::io::Error::from_raw_os_error(i32::try_from(number).unwrap_or_default())))
    }),
    stage("panic", |_| panic!("a bug")),
    stage("abort", |_| std::process::abort()),
    stage("exit", |_| std::process::exit(3)),
    stage("sleep", |_| {
        write_line("sleeping");
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }),
    stage("shell", |context| {
        let script = context.options["script"].as_str().unwrap_or_default();
        let status = Command::new("/bin/sh").args(["-ec", script]).status().map_err(Error::io("start", "/bin/sh"))?;
        if status.success() { Ok(()) } else { Err(Error::failed(format!("the script failed: {status}"))) }
    }),
    stage("close-output", |_| {
        nix::unistd::dup2_stdout(null()).and_then(|()| nix::unistd::dup2_stderr(null())).expect("they are open");
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }),
    stage("list", |context| {
        let mut found = Map::new();
        let directory = context.options["directory"].as_str().unwrap_or_default();
        list(Path::new(directory), Path::new(""), &mut found);
        context.set_metadata(found.into());
        Ok(())
    }),
    stage("calls", calls),
    // A tool of the build root, with what those have that need no more.
    stage("tool", |context| {
        let words = context.options["words"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let output = Tool::find("env")?.args(words).output()?;
        context.set_metadata(serde_json::from_slice(&output).map_err(|error| Error::failed(error.to_string()))?);
        Ok(())
    }),
    stage("threads", |_| std::thread::spawn(|| ()).join().map_err(|_| Error::failed("the thread died"))),
    module(Kind::Input, "trees", Entry::Input(|context| show(context, "shown"))),
    module(Kind::Input, "elsewhere", Entry::Input(|context| show(context, "../../elsewhere"))),
    module(
        Kind::Input,
        "thread",
        Entry::Input(|context| {
            std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
            show(context, "shown")
        }),
    ),
    module(Kind::Device, "loop", Entry::Device(open_loop)),
    module(Kind::Device, "bad-device", Entry::Device(|_| Err(Error::failed("there is no such device")))),
    module(Kind::Mount, "ext4", Entry::Mount(mount_ext4)),
    module(Kind::Mount, "bad-mount", Entry::Mount(|_| Err(Error::failed("there is no such file system")))),
    module(Kind::Mount, "panic", Entry::Mount(|_| panic!("a bug"))),
];

#[derive(Debug)]
struct Ours;

impl Library for Ours {
    fn label(&self) -> String {
        "test".into()
    }

    fn module(&self, kind: Kind, name: &str) -> Result<Option<Module>, LibraryError> {
        let found = MODULES.iter().find(|module| module.kind == kind && module.name == name);
        Ok(found.map(|module| Module {
            kind,
            name: name.into(),
            revision: Revision::BuiltIn(1),
            summary: String::new(),
            description: String::new(),
            schema: None,
            schema_2: None,
            capabilities: Vec::new(),
            requires: module.requires.to_vec(),
            content_type: String::new(),
            provider: Provider::BuiltIn(module),
        }))
    }

    fn names(&self, _: Kind) -> Result<Vec<String>, LibraryError> {
        Ok(Vec::new())
    }
}

pub(crate) fn catalog() -> Catalog {
    Catalog::new(vec![Box::new(Ours)])
}

fn null() -> File {
    File::create("/dev/null").expect("the sandbox has it")
}

#[expect(clippy::print_stdout, reason = "what a stage prints is its output")]
fn write_line(text: &str) {
    println!("{text}");
}

/// All that a stage can see of its surroundings.
fn describe(context: &StageContext) -> Result<(), Error> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let status = read("/proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let mounts = read("/proc/self/mountinfo");
    let mounts: Map<String, Value> = mounts
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mount: Vec<&str> = mount.split(' ').collect();
            let kind = file_system.split(' ').next()?;
            Some((mount[4].to_owned(), json!({"type": kind, "flags": mount[5]})))
        })
        .collect();
    let names = |directory: &str| {
        let mut names: Vec<String> = fs::read_dir(directory)
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let nodes: Map<String, Value> =
        names("/dev").into_iter().map(|name| (name.clone(), describe_node(&name))).collect();
    let networks: Vec<String> =
        read("/proc/net/dev").lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().into())).collect();
    let descriptors = descriptors();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| std::net::TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(1)));
    let processes = names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).count();
    let links =
        ["lib", "lib64", "bin", "sbin"].map(|name| fs::read_link(Path::new("/").join(name)).unwrap_or_default());
    context.set_metadata(json!({
        "environment": std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
        "capabilities": [field("CapEff"), field("CapPrm"), field("CapInh"), field("CapBnd")],
        "no_new_privs": field("NoNewPrivs"),
        "seccomp": field("Seccomp"),
        "umask": field("Umask"),
        "threads": field("Threads"),
        "hostname": read("/proc/sys/kernel/hostname").trim(),
        "uname": rustix::system::uname().nodename().to_string_lossy(),
        "pid": std::process::id(),
        "processes": processes,
        "session": rustix::process::getsid(None).map_or(0, |session| session.as_raw_nonzero().get()),
        "directory": std::env::current_dir().unwrap_or_default(),
        "stdin": fs::read_link("/proc/self/fd/0").unwrap_or_default(),
        "descriptors": descriptors,
        "cmdline": read("/proc/cmdline"),
        "mounts": mounts,
        "nodes": nodes,
        "root": names("/"),
        "etc": names("/etc"),
        "run": names("/run/osbuild"),
        "links": links,
        "var_tmp": format!("{:o}", mode(Path::new("/var/tmp"))),
        "tmp": format!("{:o}", mode(Path::new("/tmp"))),
        "networks": networks,
        "loopback": listener.is_ok(),
        "meta": {"id": context.meta.id, "source_epoch": context.meta.source_epoch},
    }));
    Ok(())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777)
}

fn describe_node(name: &str) -> Value {
    let path = Path::new("/dev").join(name);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return Value::Null };
    if metadata.file_type().is_symlink() {
        return json!(fs::read_link(&path).unwrap_or_default());
    }
    if metadata.file_type().is_char_device() || metadata.file_type().is_block_device() {
        let device = metadata.rdev();
        return json!([rustix::fs::major(device), rustix::fs::minor(device), format!("{:o}", mode(&path))]);
    }
    json!(format!("{:o}", mode(&path)))
}

/// The open descriptors beyond the first three, by what they lead to.
fn descriptors() -> Vec<String> {
    let open = fs::read_dir("/proc/self/fd").map(Iterator::flatten).into_iter().flatten();
    let open = open.filter(|entry| !matches!(entry.file_name().to_str(), Some("0" | "1" | "2")));
    open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect()
}

/// Files with their content, directories with `null`, links with their target, by their paths.
fn list(directory: &Path, prefix: &Path, found: &mut Map<String, Value>) {
    let mut entries: Vec<_> = fs::read_dir(directory).map(|entries| entries.flatten().collect()).unwrap_or_default();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), prefix.join(entry.file_name()));
        if ["/proc", "/sys", "/dev"].iter().any(|kernel| path == Path::new(kernel)) {
            continue;
        }
        let value = match entry.file_type() {
            Ok(kind) if kind.is_dir() => Value::Null,
            Ok(kind) if kind.is_symlink() => json!({"link": fs::read_link(&path).unwrap_or_default()}),
            _ => json!(fs::read_to_string(&path).unwrap_or_else(|error| error.to_string())),
        };
        let is_directory = value.is_null();
        found.insert(name.to_string_lossy().into_owned(), value);
        if is_directory {
            list(&path, &name, found);
        }
    }
}

/// What comes of system calls that stages need, and of some that they shall not make.
fn calls(context: &StageContext) -> Result<(), Error> {
    #[expect(unsafe_code, reason = "calls that no library offers")]
    // SAFETY: none of these calls reads or writes memory of ours: the kernel refuses them before that.
    let refused = |number: libc::c_long| unsafe {
        if libc::syscall(number, 0, 0, 0, 0, 0) == 0 { 0 } else { *libc::__errno_location() }
    };
    let numbers = [
        ("bpf", libc::SYS_bpf),
        ("finit_module", libc::SYS_finit_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("reboot", libc::SYS_reboot),
        ("swapon", libc::SYS_swapon),
    ];
    let refused: Map<String, Value> =
        numbers.iter().map(|(name, number)| ((*name).to_owned(), json!(refused(*number)))).collect();
    let script = "mkdir /tmp/a /tmp/b && mount -t tmpfs none /tmp/a && mount --bind /tmp/a /tmp/b && umount /tmp/b && \
                  mknod /tmp/a/null c 1 3 && mkdir /tmp/root && mount --rbind / /tmp/root && \
                  chroot /tmp/root /bin/true && unshare --mount --pid --fork /bin/true && chown 12:34 /tmp/b && \
                  chattr +i /run/osbuild/tree && chattr -i /run/osbuild/tree";
    let status = Command::new("/bin/sh").args(["-ec", script]).status().map_err(Error::io("start", "/bin/sh"))?;
    context.set_metadata(json!({"refused": refused, "script": status.code()}));
    Ok(())
}

/// Binds every reference to a directory of its number, and says that they are at `path`.
fn show(context: &InputContext, path: &str) -> Result<MappedInput, Error> {
    let shown = context.target.join("shown");
    for (index, reference) in context.references.iter().enumerate() {
        let place = shown.join(index.to_string());
        if reference.path.is_dir() {
            fs::create_dir_all(&place).map_err(Error::io("make", &place))?;
            rustix::mount::mount_bind(&reference.path, &place).map_err(Error::io("bind", &place))?;
        } else {
            fs::create_dir_all(&shown).map_err(Error::io("make", &shown))?;
            fs::copy(&reference.path, &place).map_err(Error::io("copy", &place))?;
        }
    }
    Ok(MappedInput { path: context.target.join(path), data: json!({"count": context.references.len()}) })
}

fn open_loop(context: &DeviceContext) -> Result<OpenDevice, Error> {
    let name = context.options["filename"].as_str().unwrap_or_default();
    let file = context.tree.open_file(name, OFlags::RDWR, 0)?;
    let device = LoopDevice::attach(&file, &Config::default(), context.dev).map_err(Error::io("attach", name))?;
    let path = PathBuf::from(device.name());
    Ok(OpenDevice { path, data: json!({"node": {"minor": device.minor()}}), keep: vec![device.into_fd()] })
}

fn mount_ext4(context: &MountContext) -> Result<Option<PathBuf>, Error> {
    let source = context.source.as_deref().ok_or_else(|| Error::failed("no source"))?;
    let target = context.root.join(context.target.unwrap_or_default().trim_start_matches('/'));
    fs::create_dir_all(&target).map_err(Error::io("make", &target))?;
    let mount = || {
        let file_system = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&file_system, "source", source)?;
        rustix::mount::fsconfig_create(&file_system)?;
        let mount = rustix::mount::fsmount(&file_system, FsMountFlags::empty(), MountAttrFlags::empty())?;
        rustix::mount::move_mount(mount, "", rustix::fs::CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    mount().map_err(Error::io("mount", &target))?;
    Ok(Some(target))
}
