//! Mounting the file system on a device for a stage: what the mount modules of all file systems share.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use osbc_module_api::{Deserialize, Error, JsonSchema, MountContext, Tree, Value, json, options_schema};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::trees::bind;

/// What to mount, beyond what the context says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileSystem<'a> {
    /// The kernel's name of the file system, e.g. `ext4`.
    pub(crate) kind: &'a str,
    /// Whether writing is refused.
    pub(crate) read_only: bool,
    /// Options of the file system, with their values where they have one.
    pub(crate) options: &'a [(&'a str, Option<&'a str>)],
}

/// The schema of a mount's whole description: a device is mounted at a place below the root of all mounts.
pub(crate) fn schema(options: Value) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "type", "source", "target"],
        "properties": {
            "name": {"description": "The name by which the stage finds the mount.", "type": "string"},
            "type": {"type": "string"},
            "source": {"description": "The name of the device.", "type": "string"},
            "partition": {
                "description": "The number of the partition of the device, the first being 1; needs a device that looks for partitions.",
                "type": "number"
            },
            "target": {"description": "Where it appears below the root of all mounts.", "type": "string"},
            "options": options
        }
    })
}

/// The options of a file system that has none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoOptions {}

/// The schema of a file system that is read-only, has a device to itself and takes no options.
pub(crate) fn schema_of_image() -> Value {
    let mut schema = schema(options_schema::<NoOptions>());
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.shift_remove("partition");
    }
    schema
}

/// Mounts such a file system, see [`mount`].
pub(crate) fn mount_image(context: &MountContext, kind: &str) -> Result<Option<PathBuf>, Error> {
    mount(context, &FileSystem { kind, read_only: true, options: &[] })
}

/// The directory below the root of all mounts where the mount shall appear, made when it is not there; links in mounts
/// that are there already lead nowhere else.
///
/// Also returns its path.
pub(crate) fn make_mountpoint(context: &MountContext) -> Result<(OwnedFd, PathBuf), Error> {
    let target = context.target.ok_or_else(|| Error::failed("the mount needs a target"))?;
    let root = Tree::open(context.root)?;
    root.create_dir_all(target, 0o777)?;
    let directory = root.open_file(target, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    let (above, path) = (root.path_for_tools("/")?, root.path_for_tools(target)?);
    let inside = path.strip_prefix(&above).map_err(|_| Error::failed(format!("{target} is not below the mounts")))?;
    let path = if inside.as_os_str().is_empty() { context.root.to_owned() } else { context.root.join(inside) };
    Ok((directory.into(), path))
}

/// Mounts the file system on the context's device at the context's target, and returns the path of the latter.
pub(crate) fn mount(context: &MountContext, file_system: &FileSystem) -> Result<Option<PathBuf>, Error> {
    let source = context.source.as_deref().ok_or_else(|| Error::failed("the mount needs a source"))?;
    let source = on_host(source)?;
    let (target, path) = make_mountpoint(context)?;
    match attach(file_system, &source, &target) {
        // As mount(8) does: what cannot be written is mounted to be read.
        Err(MountError { error: Errno::ROFS | Errno::ACCESS, .. }) if !file_system.read_only => {
            attach(&FileSystem { read_only: true, ..*file_system }, &source, &target)
        }
        result => result,
    }
    .map_err(|refusal| refusal.explain(file_system, &source))?;
    Ok(Some(path))
}

/// The node of the same device in the host's `/dev`, if it has one: the kernel remembers by which path a device was
/// mounted, and inside the sandbox that path leads to the device too.
pub(crate) fn on_host(source: &Path) -> Result<PathBuf, Error> {
    let number = std::fs::metadata(source).map_err(Error::io("find the device", source))?.rdev();
    let usual = source.file_name().map(|name| Path::new("/dev").join(name));
    let same = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|metadata| metadata.rdev() == number);
    Ok(usual.filter(same).unwrap_or_else(|| source.to_owned()))
}

/// Why the kernel would not mount.
struct MountError {
    error: Errno,
    /// What it said about it, line by line.
    log: Vec<String>,
}

impl MountError {
    fn explain(self, file_system: &FileSystem, source: &Path) -> Error {
        let mut reason = format!("cannot mount {} as {}: {}", source.display(), file_system.kind, self.error);
        if !self.log.is_empty() {
            reason = format!("{reason} ({})", self.log.join("; "));
        }
        if self.error == Errno::NODEV {
            reason.push_str("; the kernel of the host does not know this file system");
        }
        Error::failed(reason)
    }
}

/// Mounts the file system on the context's device nowhere, which lasts as long as the handle.
///
/// # Errors
/// There is no device, or the kernel does not mount it.
pub(crate) fn mount_nowhere(context: &MountContext, file_system: &FileSystem) -> Result<OwnedFd, Error> {
    let source = context.source.as_deref().ok_or_else(|| Error::failed("the mount needs a source"))?;
    detached(file_system, source).map_err(|refusal| refusal.explain(file_system, source))
}

fn attach(file_system: &FileSystem, source: &Path, target: &OwnedFd) -> Result<(), MountError> {
    let mount = detached(file_system, source)?;
    bind::attach(&mount, target).map_err(|error| MountError { error, log: Vec::new() })
}

fn detached(file_system: &FileSystem, source: &Path) -> Result<OwnedFd, MountError> {
    let plain = |error| MountError { error, log: Vec::new() };
    let context = fsopen(file_system.kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
    let prepare = || {
        fsconfig_set_string(context.as_fd(), "source", source)?;
        if file_system.read_only {
            fsconfig_set_flag(context.as_fd(), "ro")?;
        }
        for (name, value) in file_system.options {
            match value {
                Some(value) => fsconfig_set_string(context.as_fd(), *name, *value)?,
                None => fsconfig_set_flag(context.as_fd(), *name)?,
            }
        }
        fsconfig_create(context.as_fd())?;
        let attributes =
            if file_system.read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    prepare().map_err(|error| MountError { error, log: messages(&context) })
}

/// What the kernel said while it was asked, oldest first, without the marks of its urgency.
fn messages(context: &OwnedFd) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&buffer[..length]);
        let line = line.trim();
        lines.push(line.split_once(' ').map_or(line, |(_, text)| text).to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::process::Command;
    use std::time::Duration;

    use osbc_fixtures::{has_root, has_tool};
    use osbc_module_api::loopdev::{Config, LoopDevice, release};
    use osbc_module_api::{Entry, Kind};
    use tempfile::TempDir;

    use super::*;
    use crate::builtin::find;
    use crate::trees::bind::in_own_namespace;

    /// An image with a file system, and the directories of a stage.
    struct Image {
        directory: TempDir,
        name: &'static str,
    }

    impl Image {
        /// None where the file system's tool is missing.
        fn new(name: &'static str, megabytes: u64) -> Option<Self> {
            let tool = format!("mkfs.{}", name.rsplit('.').next().unwrap());
            if !has_root() || !has_tool(&tool) {
                return None;
            }
            let directory = tempfile::tempdir().unwrap();
            for name in ["dev", "mounts", "tree"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
            let image = directory.path().join("image");
            File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
            let made = Command::new(tool).arg("-q").arg(&image).output().unwrap();
            assert!(made.status.success(), "{made:?}");
            Some(Self { directory, name })
        }

        /// One that has the same identifier.
        fn twin(&self) -> Self {
            let twin = Self { directory: tempfile::tempdir().unwrap(), name: self.name };
            for name in ["dev", "mounts", "tree"] {
                fs::create_dir(twin.directory.path().join(name)).unwrap();
            }
            fs::copy(self.directory.path().join("image"), twin.directory.path().join("image")).unwrap();
            twin
        }

        /// Mounts it at `/boot`, lets `work` see the directory, and unmounts it.
        fn with<T>(&self, config: Config, options: &Value, work: impl FnOnce(&Path) -> T) -> Result<T, String> {
            let directory = self.directory.path();
            let file = File::options().read(true).write(true).open(directory.join("image")).unwrap();
            let device = LoopDevice::attach(&file, &config, &directory.join("dev")).unwrap();
            let (root, tree) = (directory.join("mounts"), directory.join("tree"));
            let source = Some(directory.join("dev").join(device.name()));
            let context = MountContext { source, target: Some("/boot"), root: &root, tree: &tree, options };
            let Entry::Mount(mount) = find(Kind::Mount, self.name).unwrap().def.entry else { panic!("a mount") };
            let result = mount(&context).map_err(|error| error.to_string()).map(|path| {
                let path = path.unwrap();
                assert_eq!(path, root.join("boot"));
                let result = work(&path);
                rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
                result
            });
            release(device.into_fd(), Duration::from_secs(10)).unwrap();
            result
        }
    }

    fn write(path: &Path) -> std::io::Result<()> {
        fs::write(path.join("file"), "kept")
    }

    /// What must hold for every file system.
    fn keeps_what_is_written(image: &Image) {
        let read = |path: &Path| fs::read_to_string(path.join("file")).unwrap();
        image.with(Config::default(), &json!({}), write).unwrap().unwrap();
        assert_eq!(image.with(Config::default(), &json!({}), read).unwrap(), "kept");
        for options in [json!({"readonly": true}), json!({"readonly": true, "norecovery": true})] {
            assert_eq!(image.with(Config::default(), &options, read).unwrap(), "kept");
            assert!(image.with(Config::default(), &options, write).unwrap().is_err());
        }
        let twin = image.twin();
        let fill = |path: &Path| fs::write(path.join("file"), "of the twin").unwrap();
        image.with(Config::default(), &json!({}), |_| twin.with(Config::default(), &json!({}), fill).unwrap()).unwrap();
        assert_eq!(image.with(Config::default(), &json!({}), read).unwrap(), "kept");
        assert_eq!(twin.with(Config::default(), &json!({}), read).unwrap(), "of the twin");
        let protected = Config { read_only: true, ..Config::default() };
        assert_eq!(image.with(protected, &json!({}), read).unwrap(), "kept");
        assert!(image.with(protected, &json!({}), write).unwrap().is_err());
    }

    #[test]
    fn root_ext4_keeps_what_is_written_and_honours_readonly() {
        if let Some(image) = Image::new("org.osbuild.ext4", 16) {
            in_own_namespace(|| {
                keeps_what_is_written(&image);
                image.with(Config::default(), &json!({"norecovery": true}), write).unwrap().unwrap();
            });
        }
    }

    #[test]
    fn root_xfs_keeps_what_is_written_and_needs_readonly_for_norecovery() {
        if let Some(image) = Image::new("org.osbuild.xfs", 320) {
            in_own_namespace(|| {
                keeps_what_is_written(&image);
                let refusal = image.with(Config::default(), &json!({"norecovery": true}), |_| ()).unwrap_err();
                assert!(refusal.contains("as xfs: Invalid argument"), "{refusal}");
            });
        }
    }

    #[test]
    fn root_btrfs_keeps_what_is_written_and_mounts_subvolumes() {
        if let Some(image) = Image::new("org.osbuild.btrfs", 128) {
            in_own_namespace(|| {
                keeps_what_is_written(&image);
                if !has_tool("btrfs") {
                    return;
                }
                let add = |path: &Path| {
                    Command::new("btrfs").args(["-q", "subvolume", "create", "sub"]).current_dir(path).status()
                };
                assert!(image.with(Config::default(), &json!({}), add).unwrap().unwrap().success());
                let options = json!({"subvol": "sub", "compress": "zstd:1"});
                let mounted = image.with(Config::default(), &options, |path| {
                    assert!(!path.join("file").exists());
                    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                    mounts.lines().find(|line| line.contains("/mounts/boot ")).unwrap().to_owned()
                });
                let mounted = mounted.unwrap();
                assert!(mounted.contains("compress=zstd:1") && mounted.contains("subvol=/sub"), "{mounted}");
                let refusal = image.with(Config::default(), &json!({"subvol": "other"}), |_| ()).unwrap_err();
                assert_eq!(refusal, "the file system has no subvolume `other`; it has: sub");
            });
        }
    }

    #[test]
    fn root_what_is_no_such_file_system_is_refused_in_the_kernels_words() {
        if let Some(image) = Image::new("org.osbuild.ext4", 16) {
            let image = Image { name: "org.osbuild.xfs", ..image };
            let refusal = in_own_namespace(|| image.with(Config::default(), &json!({}), |_| ())).unwrap_err();
            assert!(refusal.starts_with("cannot mount /"), "{refusal}");
            assert!(refusal.contains(" as xfs: "), "{refusal}");
        }
    }
}
