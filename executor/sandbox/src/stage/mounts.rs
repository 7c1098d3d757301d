//! What a stage finds besides the root: its tree, inputs, devices and mounts.
//!
//! Calls the modules that make them, in the mount namespace of the process that prepares, with the host's root; and
//! closes them in reverse.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use osbc_ir::is_file_name;
use osbc_module_api::loopdev::Guard;
use osbc_module_api::snapshot::Snapshot;
use osbc_module_api::{
    Catalog, DeviceContext, Entry, Error, InputContext, InputReference, MappedInput, MountContext, MountPoint,
    OpenDevice, Tree, Value,
};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};

use super::host::{HostSide, Places, Role};
use super::root::{self, make_directory, mount_stack};
use super::teardown::{MountTable, release_device, unmount_all};
use super::{entry, full, spec, sys};
use crate::request::{DeviceRequest, InputRequest, MountRequest, ReferenceFrom, StageFailure, StageRequest};
use crate::service::shortened;

/// The most that a stage may keep in memory, /tmp for example: there are others beside it.
const MEMORY: &str = "25%";

/// All that a build root says about users and groups where no runner prepared it.
const USERS: [(&str, &str); 2] = [("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"), ("/etc/group", "root:x:0:\n")];

/// What was made for a stage so far.
pub(crate) struct StageMounts<'a> {
    /// The sandbox's root, seen from outside.
    pub(crate) root: PathBuf,
    /// The directory of an on-disk stage's own things, opened before the stage can put another one there.
    pub(crate) own: Option<OwnedFd>,
    /// The inputs by name, with paths of the sandbox.
    pub(crate) inputs: BTreeMap<String, MappedInput>,
    /// The devices in the request's order, as the modules returned them.
    pub(crate) devices: Vec<OpenDevice>,
    /// Of the devices that their modules made so that they stay, by their place in the request.
    guards: BTreeMap<usize, Guard>,
    /// The mounts by name, with paths of the sandbox.
    pub(crate) mounts: BTreeMap<String, MountPoint>,
    /// What was mounted before the first mount module.
    before: Option<MountTable>,
    /// What runs on the host's side.
    pub(crate) host: HostSide<'a>,
}

/// Moves the calling process to a mount namespace of its own. What is mounted elsewhere still appears in it.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn leave_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

impl<'a> StageMounts<'a> {
    /// Nothing is made yet. What services will write is sent to `client`.
    pub(crate) fn new(client: &'a UnixStream) -> Self {
        Self {
            root: PathBuf::new(),
            own: None,
            inputs: BTreeMap::new(),
            devices: Vec::new(),
            guards: BTreeMap::new(),
            mounts: BTreeMap::new(),
            before: None,
            host: HostSide::new(client),
        }
    }

    /// Makes everything in the mount namespace of this process, which is its alone ([`leave_mounts`]).
    ///
    /// # Errors
    /// Why the stage cannot run. What was made until then is there to be closed.
    pub(crate) fn prepare(&mut self, request: &StageRequest, catalog: &Catalog) -> Result<(), StageFailure> {
        self.prepare_root(request).map_err(|error| error.to_string())?;
        if let Some(file) = &request.prepared {
            self.make_prepared(file).map_err(|error| format!("cannot prepare the build root: {error}"))?;
        } else if request.module.on_disk.is_none() {
            // Without an entry for its user a tool does not know its home, where Debian's rpm keeps its database.
            for (path, text) in USERS {
                root::make_file(&self.inside(path), text, 0o644).map_err(|error| error.to_string())?;
            }
        }
        // What nothing is in needs no place on a disk.
        let inputs = if request.inputs.is_empty() { self.inside(spec::INPUTS) } else { request.scratch.join("inputs") };
        let trees = request.scratch.join("sandbox/trees");
        for input in &request.inputs {
            let mapped = self
                .map_input(request, input, catalog, &inputs, &trees)
                .map_err(|failure| failure.map_reason(|reason| format!("input `{}`: {reason}", input.name)))?;
            self.inputs.insert(input.name.clone(), mapped);
        }
        self.show(&inputs, spec::INPUTS, sys::READ_ONLY)?;

        if !request.devices.is_empty() {
            let tree = Tree::open(self.inside(spec::TREE)).map_err(|error| error.to_string())?;
            for (index, device) in request.devices.iter().enumerate() {
                let opened = self
                    .open_device(request, index, catalog, &tree)
                    .map_err(|failure| failure.map_reason(|reason| format!("device `{}`: {reason}", device.name)))?;
                self.devices.push(opened);
            }
        }

        if !request.mounts.is_empty() {
            self.show(&request.scratch.join("mounts"), spec::MOUNTS, sys::PLAIN)?;
            self.before = Some(MountTable::read().map_err(|error| format!("cannot list the mounts: {error}"))?);
            for mount in &request.mounts {
                let path = self
                    .mount(request, mount, catalog)
                    .map_err(|failure| failure.map_reason(|reason| format!("mount `{}`: {reason}", mount.name)))?;
                self.mounts.insert(mount.name.clone(), MountPoint { path });
            }
            for place in [spec::TREE, spec::MOUNTS] {
                let directory = root::open(&self.inside(place)).map_err(|error| error.to_string())?;
                sys::set_attributes(directory, sys::PLAIN)
                    .map_err(|error| format!("cannot set up {place}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Whether there is something that does not simply end with the mount namespace.
    pub(crate) fn has_to_close(&self) -> bool {
        !self.devices.is_empty() || self.before.is_some() || self.host.has_services()
    }

    /// Returns what to say of a mount that is full behind the failure of the stage; `None` if all have room.
    ///
    /// Where mounts are, this process has stayed outside of the sandbox.
    pub(crate) fn full_mount(&self) -> Option<String> {
        self.before.as_ref()?;
        let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
        let own = device(&self.root);
        let around = self.root.ancestors().nth(2).and_then(device);
        self.mounts.iter().find_map(|(name, mount)| {
            let path = self.inside(mount.path.to_str()?);
            // A mount without a place of its own leaves the place of all to the store's file system.
            let lies_on = device(&path);
            if lies_on == own || lies_on == around { None } else { full::hint(name, &path) }
        })
    }

    /// Takes everything down in reverse and returns what did not work. What is not taken down here ends with the mount
    /// namespace.
    pub(crate) fn close(&mut self) -> Vec<String> {
        let mut problems = self.host.stop(Role::Mount);
        if let Some(before) = self.before.take() {
            problems.extend(unmount_all(&before));
        }
        for device in self.host.take_loops() {
            if let Err(error) = release_device(vec![device]) {
                problems.push(format!("a loop device of the stage: {error}"));
            }
        }
        while let Some(device) = self.devices.pop() {
            if let Some(guard) = self.guards.remove(&self.devices.len()) {
                // Its service takes it down as it knows it; one that is gone by now is as good.
                guard.lift().ok();
            }
            problems.extend(self.host.stop(Role::Device(self.devices.len())));
            if let Err(error) = release_device(device.keep) {
                problems.push(format!("device {}: {error}", device.path.display()));
            }
        }
        problems.extend(self.host.stop(Role::Input));
        problems
    }

    /// Where a path of the sandbox lies for this process.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn prepare_root(&mut self, request: &StageRequest) -> Result<(), root::RootError> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(root::cannot("make the mounts private below", Path::new("/")))?;
        let place = request.scratch.join("sandbox");
        make_directory(&place, 0o755)?;
        root::new_mount(&place, "tmpfs", &[("mode", "755"), ("size", MEMORY)], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        let more = if request.shell.is_some() { spec::FOR_SHELLS } else { &[] };
        self.root = root::build(&place, request.build_root.as_ref(), more)?;

        let var = request.scratch.join("var");
        make_directory(&var, 0o755)?;
        make_directory(&var.join("tmp"), 0o1777)?;
        root::bind(root::open(&var)?, &self.inside("/var"), sys::PLAIN)?;
        mount_stack(&request.tree, &self.inside(spec::TREE))
    }

    /// Makes in the root what a runner made in another one.
    fn make_prepared(&self, file: &Path) -> Result<(), Error> {
        Snapshot::read(file)?.make(&Tree::open(&self.root)?)
    }

    /// Makes a directory, made where there is none, visible in the sandbox.
    fn show(&self, directory: &Path, at: &str, attributes: MountAttrFlags) -> Result<(), String> {
        make_directory(directory, 0o755)
            .and_then(|()| root::open(directory))
            .and_then(|directory| root::bind(directory, &self.inside(at), attributes))
            .map_err(|error| error.to_string())
    }

    fn open_device(
        &mut self,
        request: &StageRequest,
        index: usize,
        catalog: &Catalog,
        tree: &Tree,
    ) -> Result<OpenDevice, StageFailure> {
        let device: &DeviceRequest = &request.devices[index];
        let parent = match device.parent {
            Some(index) => Some(self.devices.get(index).ok_or_else(|| "its parent is not open yet".to_owned())?),
            None => None,
        };
        let dev = self.inside(spec::DEVICES);
        if let Some(module) = &device.module.on_disk {
            let (tree, mounts) = (self.inside(spec::TREE), self.inside(spec::MOUNTS));
            let places = Places { dev: &dev, tree: &tree, mounts: &mounts };
            let parent = parent.map(|parent| parent.path.clone());
            let data = self.host.open_device(request, index, module, &places, parent.as_deref())?;
            let path = below(&path_of(&data).ok_or_else(|| unexpected(&data))?, &dev, "")?;
            self.guard(index, &dev.join(&path)).map_err(|error| format!("cannot guard {}: {error}", path.display()))?;
            return Ok(OpenDevice { path, data, keep: Vec::new() });
        }
        let Entry::Device(open) = entry(catalog, &device.module)? else {
            return Err(format!("{} is no device", device.module.name).into());
        };
        open(&DeviceContext { dev: &dev, tree, parent, options: &device.options }).map_err(of_module)
    }

    /// Lets the kernel release the device at `index`, should this process be killed.
    fn guard(&mut self, index: usize, node: &Path) -> io::Result<()> {
        match Guard::of(node) {
            // The stage says it better.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            guard => guard.map(|guard| self.guards.extend(guard.map(|guard| (index, guard)))),
        }
    }

    /// Makes a mount and returns where it lies in the sandbox.
    fn mount(
        &mut self,
        request: &StageRequest,
        mount: &MountRequest,
        catalog: &Catalog,
    ) -> Result<PathBuf, StageFailure> {
        let (root, tree) = (self.inside(spec::MOUNTS), self.inside(spec::TREE));
        if let Some(module) = &mount.module.on_disk {
            let dev = self.inside(spec::DEVICES);
            let source = mount.source.map(|index| self.host_node(index, mount.partition)).transpose()?;
            let places = Places { dev: &dev, tree: &tree, mounts: &root };
            let reply = self.host.mount(request, mount, module, &places, source.as_deref())?;
            return Ok(match reply.as_str() {
                Some("") => PathBuf::from(spec::MOUNTS),
                Some(path) => below(Path::new(path), &root, spec::MOUNTS)?,
                None if reply.is_null() => PathBuf::from(spec::MOUNTS),
                None => return Err(unexpected(&reply).into()),
            });
        }
        let Entry::Mount(make) = entry(catalog, &mount.module)? else {
            return Err(format!("{} is no mount", mount.module.name).into());
        };
        let source = match mount.source {
            Some(index) => Some(self.node(index, mount.partition)?),
            None => None,
        };
        if let (Some(node), Some(partition)) = (&source, mount.partition)
            && !node.exists()
        {
            let reason = format!(
                "its device has no partition {partition}, or was not looked at for partitions (`partscan` of \
                 org.osbuild.loopback)"
            );
            return Err(reason.into());
        }
        let context =
            MountContext { source, target: mount.target.as_deref(), root: &root, tree: &tree, options: &mount.options };
        Ok(match make(&context).map_err(of_module)? {
            None => PathBuf::from(spec::MOUNTS),
            Some(path) => below(&path, &root, spec::MOUNTS)?,
        })
    }

    /// The same for a program on the host's side: in the host's `/dev` where that has the device, since tools look it
    /// up there.
    fn host_node(&self, device: usize, partition: Option<u32>) -> Result<PathBuf, String> {
        let node = self.node(device, partition)?;
        let device = Path::new("/dev").join(&self.devices[device].path);
        let name = node.strip_prefix(self.inside(spec::DEVICES)).unwrap_or(&node);
        Ok(if device.exists() { Path::new("/dev").join(name) } else { node })
    }

    /// The node of a device or of its partition.
    fn node(&self, device: usize, partition: Option<u32>) -> Result<PathBuf, String> {
        let device = self.devices.get(device).ok_or("its device is not open")?;
        let mut name = device.path.clone().into_os_string();
        if let Some(partition) = partition {
            name.push(format!("p{partition}"));
        }
        Ok(self.inside(spec::DEVICES).join(name))
    }

    fn map_input(
        &mut self,
        request: &StageRequest,
        input: &InputRequest,
        catalog: &Catalog,
        inputs: &Path,
        trees: &Path,
    ) -> Result<MappedInput, StageFailure> {
        let Some(module) = &input.module.on_disk else { return map_input(input, catalog, inputs, trees) };
        let target = input_directory(input, inputs)?;
        let reply = self.host.map_input(request, input, module, &target)?;
        let path = path_of(&reply).ok_or_else(|| unexpected(&reply))?;
        let data = reply.get("data").cloned().unwrap_or_default();
        Ok(MappedInput { path: below(&path, inputs, spec::INPUTS)?, data })
    }
}

/// The path in a module's reply.
fn path_of(reply: &Value) -> Option<PathBuf> {
    reply.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn unexpected(reply: &Value) -> String {
    format!("the module replied `{}`, which has no path", shortened(&reply.to_string()))
}

/// The directory that an input is to appear in.
fn input_directory(input: &InputRequest, inputs: &Path) -> Result<PathBuf, String> {
    if !is_file_name(&input.name) {
        return Err(
            "an input's name becomes a directory's name, so it can have no `/` and be neither `.` nor `..`".into()
        );
    }
    let target = inputs.join(&input.name);
    make_directory(&target, 0o755).map_err(|error| error.to_string())?;
    Ok(target)
}

fn map_input(
    input: &InputRequest,
    catalog: &Catalog,
    inputs: &Path,
    trees: &Path,
) -> Result<MappedInput, StageFailure> {
    let Entry::Input(map) = entry(catalog, &input.module)? else {
        return Err(format!("{} is no input", input.module.name).into());
    };
    let target = input_directory(input, inputs)?;
    let mut references = Vec::new();
    for (index, reference) in input.references.iter().enumerate() {
        let path = match &reference.from {
            ReferenceFrom::Item(path) => path.clone(),
            ReferenceFrom::Tree(stack) => {
                let path = trees.join(&input.name).join(index.to_string());
                make_directory(&path, 0o755)
                    .and_then(|()| mount_stack(stack, &path))
                    .map_err(|error| error.to_string())?;
                path
            }
        };
        references.push(InputReference { id: reference.id.clone(), options: reference.options.clone(), path });
    }
    let context =
        InputContext { origin: input.origin, references, options: input.options.clone(), target: target.clone() };
    let mapped = map(&context).map_err(of_module)?;
    let inside = Path::new(spec::INPUTS).join(&input.name);
    Ok(MappedInput { path: below(&mapped.path, &target, inside)?, data: mapped.data })
}

/// The failure of a stage's surroundings that a built-in module could not make.
fn of_module(error: Error) -> StageFailure {
    StageFailure::environment(error.to_string(), &error)
}

/// A path that a module returned, absolute or relative to `root`, as one below `inside`.
fn below(path: &Path, root: &Path, inside: impl AsRef<Path>) -> Result<PathBuf, String> {
    let relative = if path.is_absolute() { path.strip_prefix(root).ok() } else { Some(path) };
    let relative = relative.filter(|path| !path.components().any(|part| part == Component::ParentDir));
    let relative = relative.ok_or_else(|| format!("the module returned {}, which is elsewhere", path.display()))?;
    Ok(inside.as_ref().components().chain(relative.components().filter(|part| *part != Component::CurDir)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_modules_become_paths_of_the_sandbox() {
        let root = Path::new("/scratch/mounts");
        let moved = |path: &str| below(Path::new(path), root, spec::MOUNTS);
        assert_eq!(moved("/scratch/mounts/boot/efi"), Ok("/run/osbuild/mounts/boot/efi".into()));
        assert_eq!(moved("/scratch/mounts"), Ok("/run/osbuild/mounts".into()));
        assert_eq!(moved("boot"), Ok("/run/osbuild/mounts/boot".into()));
        assert_eq!(moved("."), Ok("/run/osbuild/mounts".into()));
        for outside in ["/scratch/mounts/../x", "../x", "/etc", "/scratch/mountsx"] {
            assert!(moved(outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn names_of_inputs_are_single_components() {
        assert!(is_file_name("tree") && is_file_name("org.osbuild.files") && is_file_name("a b"));
        for name in ["", ".", "..", "a/b", "/a", "a/", "./a"] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
