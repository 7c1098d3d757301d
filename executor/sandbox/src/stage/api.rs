//! What programs ask for at a socket while a stage is prepared and runs: the endpoints of osbuild's interface.
//!
//! A stage reports an exception or asks for a loop device, an input asks for trees and items. Each answer is made by
//! the process that prepared the stage, with the host's root and in the stage's mount namespace.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use osbc_module_api::Value;
use osbc_module_api::loopdev::{Config, LoopDevice};
use osbc_store::TreeStack;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2, symlinkat};
use rustix::mount::{MountAttrFlags, MoveMountFlags, move_mount};
use serde::Deserialize;
use serde_json::json;

use super::root::{self, make_directory, mount_stack};
use super::{supervise, sys};
use crate::request::{HostRequest, ReferenceFrom, StageRequest};
use crate::service::event_loop::Answer;
use crate::service::protocol::ServiceMessage;

/// What a stage left at its endpoints.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The exception that it reported, an object with `type`, `value` and `traceback`.
    pub(crate) exception: Option<Value>,
    /// The loop devices that it got.
    pub(crate) loops: Vec<OwnedFd>,
    /// A handle on its process, once it is in the sandbox.
    pub(crate) stage: Option<OwnedFd>,
}

/// The endpoint `osbuild`: takes exceptions, answers nothing.
pub(crate) fn exceptions(report: &Rc<RefCell<Report>>) -> Answer<'static> {
    let report = Rc::clone(report);
    Box::new(move |mut message| {
        if message.value.get("method").and_then(Value::as_str) == Some("exception") {
            report.borrow_mut().exception = message.value.get_mut("exception").map(Value::take);
        }
        None
    })
}

/// The endpoint `remoteloop`: makes loop devices, which live as long as the stage. `nodes` is a directory out of its
/// reach for their nodes.
pub(crate) fn loop_devices(report: &Rc<RefCell<Report>>, nodes: PathBuf) -> Answer<'static> {
    let report = Rc::clone(report);
    Box::new(move |message| {
        let mut report = report.borrow_mut();
        Some(match loop_device(message, &nodes, report.stage.as_ref()) {
            Ok(device) => {
                let name = device.name();
                report.loops.push(device.into_fd());
                json!({"devname": name})
            }
            Err(error) => exception("OSError", &format!("cannot make a loop device: {error}")),
        })
    })
}

/// A request for a loop device: the file and the directory for its node are descriptors beside it.
#[derive(Deserialize)]
struct LoopRequest {
    fd: usize,
    dir_fd: usize,
    offset: Option<u64>,
    sizelimit: Option<u64>,
    #[serde(default)]
    lock: bool,
    #[serde(default)]
    partscan: bool,
    #[serde(default)]
    read_only: bool,
    sector_size: Option<u32>,
}

fn loop_device(message: ServiceMessage, nodes: &Path, stage: Option<&OwnedFd>) -> io::Result<LoopDevice> {
    let request = LoopRequest::deserialize(&message.value)?;
    let descriptor = |index: usize| {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, format!("there is no descriptor {index}"));
        message.descriptors.get(index).ok_or_else(missing)
    };
    let config = Config {
        offset: request.offset.unwrap_or(0),
        size: request.sizelimit.filter(|size| *size > 0),
        sector_size: request.sector_size.unwrap_or(512),
        partscan: request.partscan,
        read_only: request.read_only,
        lock: request.lock,
    };
    let directory = descriptor(request.dir_fd)?;
    let stage = stage.ok_or(io::ErrorKind::NotConnected)?;
    let device = LoopDevice::attach(descriptor(request.fd)?, &config, nodes)?;
    let name = device.name();
    show_node(&nodes.join(&name), directory, &name, stage)?;
    Ok(device)
}

/// Lets a device's node appear in a directory of the stage's, where nodes that it makes itself do not work.
///
/// The node is a mount, which cannot be removed as a file; so what has its name is a link to it, which whoever asked for
/// the device removes in the end.
fn show_node(node: &Path, directory: &OwnedFd, name: &str, stage: &OwnedFd) -> io::Result<()> {
    let mount = sys::copy_mount(root::open(node).map_err(io::Error::other)?)?;
    sys::set_attributes(&mount, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let shown_as = format!(".{name}");
    drop(openat(directory, &shown_as, create, Mode::from_raw_mode(0o600))?);
    symlinkat(&shown_as, directory, name)?;
    let target = openat(directory, &shown_as, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let shown = supervise::in_child(|| {
        supervise::enter_mounts(stage)?;
        move_mount(&mount, "", &target, "", flags)
    });
    Ok(shown?)
}

/// The endpoint `store`: what inputs ask for.
pub(crate) struct StoreApi {
    trees: HashMap<String, TreeStack>,
    /// Where those are that were asked for.
    open: HashMap<String, PathBuf>,
    /// A directory for the mounts of trees.
    place: PathBuf,
    /// A directory on the disk for what inputs make.
    temporary: PathBuf,
    sources: PathBuf,
}

impl StoreApi {
    /// Answers with what the inputs of a request refer to.
    pub(crate) fn new(request: &StageRequest, host: &HostRequest) -> Self {
        let references = request.inputs.iter().flat_map(|input| &input.references);
        let trees = references.filter_map(|reference| match &reference.from {
            ReferenceFrom::Tree(stack) if !reference.id.is_empty() => Some((reference.id.clone(), stack.clone())),
            _ => None,
        });
        Self {
            trees: trees.collect(),
            open: HashMap::new(),
            place: request.scratch.join("sandbox/trees/by-id"),
            temporary: request.scratch.join("made-by-inputs"),
            sources: host.sources.clone(),
        }
    }

    /// The answers of this endpoint.
    pub(crate) fn answers(mut self) -> Answer<'static> {
        Box::new(move |message| Some(self.answer(&message.value)))
    }

    fn answer(&mut self, message: &Value) -> Value {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
        let done = match text("method") {
            "read-tree" => self.tree(text("object-id")),
            "read-tree-at" => self.tree_at(text("object-id"), text("target"), text("subtree")),
            "mkdtemp" => self.temporary_directory(text("prefix"), text("suffix")).map(Some),
            "source" => Ok(Some(self.sources.join(text("name")))),
            other => return exception("ValueError", &format!("there is no method `{other}`")),
        };
        match done {
            Ok(path) => json!({"path": path}),
            Err(error) => json!({"error": error}),
        }
    }

    /// A tree, mounted once; none that the stage's inputs do not refer to.
    fn tree(&mut self, id: &str) -> Result<Option<PathBuf>, String> {
        if let Some(path) = self.open.get(id) {
            return Ok(Some(path.clone()));
        }
        let Some(stack) = self.trees.get(id) else { return Ok(None) };
        let path = self.place.join(self.open.len().to_string());
        make_directory(&path, 0o755).and_then(|()| mount_stack(stack, &path)).map_err(|error| error.to_string())?;
        self.open.insert(id.to_owned(), path.clone());
        Ok(Some(path))
    }

    /// Makes a directory or file of a tree visible at `target`, read-only.
    fn tree_at(&mut self, id: &str, target: &str, subtree: &str) -> Result<Option<PathBuf>, String> {
        let Some(tree) = self.tree(id)? else { return Ok(None) };
        let tree = root::open(&tree).map_err(|error| error.to_string())?;
        let inside = subtree.trim_start_matches('/');
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(&tree, if inside.is_empty() { "." } else { inside }, flags, Mode::empty(), resolve);
        let found = found.map_err(|error| format!("cannot open {subtree} in the tree: {error}"))?;
        let target = PathBuf::from(target);
        root::bind(found, &target, sys::READ_ONLY).map_err(|error| error.to_string())?;
        Ok(Some(target))
    }

    fn temporary_directory(&self, prefix: &str, suffix: &str) -> Result<PathBuf, String> {
        make_directory(&self.temporary, 0o755).map_err(|error| error.to_string())?;
        let made = tempfile::Builder::new().prefix(prefix).suffix(suffix).tempdir_in(&self.temporary);
        // It goes with the scratch directory.
        made.map(tempfile::TempDir::keep).map_err(|error| format!("cannot make a directory: {error}"))
    }
}

/// An exception as clients understand it.
fn exception(name: &str, value: &str) -> Value {
    json!({"method": "exception", "exception": {"type": name, "value": value, "traceback": ""}})
}
