//! The host's side of a stage's on-disk modules: services for its inputs, devices and mounts, and the sockets at which
//! they and the stage ask.
//!
//! All of it lives in the stage's own mount namespace and ends with it; orderly, services end in the reverse of the
//! order in which they were started.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use osbc_module_api::{OnDisk, Value};
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use super::api::{self, Report, StoreApi};
use super::root::make_directory;
use super::supervise::Supervisor;
use super::{message, spec};
use crate::request::{InputRequest, MountRequest, StageFailure, StageMessage, StageRequest};
use crate::service::event_loop::{self, ServiceLoop};
use crate::service::{CallError, Home, Service};

/// The name of the endpoint that inputs ask.
const STORE: &str = "store";

/// What runs and listens on the host's side.
pub(crate) struct HostSide<'a> {
    service_loop: ServiceLoop<'a>,
    report: Rc<RefCell<Report>>,
    /// The directory with the socket `store`, once there is one.
    store: Option<OwnedFd>,
    services: Vec<(Role, Service)>,
}

/// What a service is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Input,
    /// Of the device with this index.
    Device(usize),
    Mount,
}

impl<'a> HostSide<'a> {
    /// Nothing runs yet. What services write is sent to `client`.
    pub(crate) fn new(client: &'a UnixStream) -> Self {
        let say = move |text: &str| {
            // Whoever reads it is the one who would notice.
            message::send(client, &StageMessage::ServiceOutput(text.to_owned())).ok();
        };
        Self { service_loop: ServiceLoop::new(say), report: Rc::default(), store: None, services: Vec::new() }
    }

    /// Whether a service runs.
    pub(crate) fn has_services(&self) -> bool {
        !self.services.is_empty()
    }

    /// Answers for the mounts of the stage's process while it serves.
    pub(crate) fn supervise(&mut self, stage: OwnedFd, supervisor: Supervisor) {
        self.report.borrow_mut().stage = Some(stage);
        self.service_loop.watch(supervisor);
    }

    /// Returns whether the stage was ended because it makes what no layer can hold.
    pub(crate) fn needs_plain_tree(&self) -> bool {
        self.service_loop.needs_plain_tree()
    }

    /// Serves until there is something to read from `awaited`.
    pub(crate) fn wait(&mut self, awaited: impl AsFd) -> io::Result<()> {
        self.service_loop.wait(awaited, None).map(drop)
    }

    /// The exception that the stage reported, or that a service before it raised.
    pub(crate) fn exception(&self) -> Option<Value> {
        self.report.borrow().exception.clone()
    }

    /// The loop devices that the stage got.
    pub(crate) fn take_loops(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.report.borrow_mut().loops)
    }

    /// Opens the sockets of an on-disk stage below its root.
    ///
    /// # Errors
    /// They cannot be made.
    pub(crate) fn listen(&mut self, root: &Path) -> io::Result<()> {
        let directory = open_directory(&root.join(spec::API.trim_start_matches('/')))?;
        self.service_loop.listen(directory.as_fd(), "osbuild", api::exceptions(&self.report))?;
        let nodes = root.with_file_name("loops");
        make_directory(&nodes, 0o700).map_err(io::Error::other)?;
        self.service_loop.listen(directory.as_fd(), "remoteloop", api::loop_devices(&self.report, nodes))
    }

    /// Lets an input's module make it visible at the directory `target`, and returns its reply.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) fn map_input(
        &mut self,
        request: &StageRequest,
        input: &InputRequest,
        module: &OnDisk,
        target: &Path,
    ) -> Result<Value, StageFailure> {
        if self.store.is_none() {
            self.store = Some(self.serve_store(request).map_err(|error| format!("cannot serve the store: {error}"))?);
        }
        let directory = self.store.as_ref().map(AsFd::as_fd).ok_or_else(|| "the store's socket is gone".to_owned())?;
        let mut references = osbc_module_api::Map::new();
        for reference in &input.references {
            references.insert(reference.id.clone(), reference.options.clone());
        }
        let arguments = json!({
            "origin": input.origin.as_str(),
            "refs": references,
            "target": target,
            "options": input.options,
            "api": {"store": event_loop::address(directory, STORE)},
        });
        self.start(request, Role::Input, &format!("input/{}", input.name), module, "map", &arguments)
    }

    /// Lets a device's module open it, and returns its reply.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) fn open_device(
        &mut self,
        request: &StageRequest,
        index: usize,
        module: &OnDisk,
        places: &Places<'_>,
        parent: Option<&Path>,
    ) -> Result<Value, StageFailure> {
        let device = &request.devices[index];
        let arguments = json!({"dev": places.dev, "tree": places.tree, "parent": parent, "options": device.options});
        self.start(request, Role::Device(index), &format!("device/{}", device.name), module, "open", &arguments)
    }

    /// Lets a mount's module make it, and returns its reply.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) fn mount(
        &mut self,
        request: &StageRequest,
        mount: &MountRequest,
        module: &OnDisk,
        places: &Places<'_>,
        source: Option<&Path>,
    ) -> Result<Value, StageFailure> {
        let arguments = json!({
            "source": source,
            "target": mount.target,
            "root": places.mounts,
            "tree": places.tree,
            "options": mount.options,
        });
        self.start(request, Role::Mount, &format!("mount/{}", mount.name), module, "mount", &arguments)
    }

    /// Stops the services of a role, last first, and returns what did not work.
    pub(crate) fn stop(&mut self, role: Role) -> Vec<String> {
        let mut problems = Vec::new();
        while let Some(position) = self.services.iter().rposition(|(of, _)| *of == role) {
            let (_, service) = self.services.remove(position);
            problems.extend(service.stop(&mut self.service_loop).err());
        }
        problems
    }

    /// Starts a service and calls its one method.
    fn start(
        &mut self,
        request: &StageRequest,
        role: Role,
        uid: &str,
        module: &OnDisk,
        method: &str,
        arguments: &Value,
    ) -> Result<Value, StageFailure> {
        let host = request.host.as_ref().ok_or_else(|| "the request says nothing of the host".to_owned())?;
        let started =
            Service::start(uid, module, &host.environment, self.store.as_ref(), Home::Stage, &mut self.service_loop);
        let mut service = started.map_err(|error| StageFailure::environment(error.to_string(), &error))?;
        match service.call(method, arguments, &mut self.service_loop) {
            Ok(reply) => {
                self.services.push((role, service));
                Ok(reply)
            }
            Err(error) => {
                let reason = error.to_string();
                if let CallError::Exception { name, value, backtrace } = error {
                    let text = format!("Traceback (most recent call last):\n{backtrace}{reason}");
                    text.lines().for_each(|line| self.service_loop.say(&format!("{uid}: {line}\n")));
                    let exception = json!({"type": name, "value": value, "traceback": backtrace});
                    self.report.borrow_mut().exception = Some(exception);
                    // What it made until then is its own to take down.
                    service.stop(&mut self.service_loop)?;
                }
                self.service_loop.drain().ok();
                Err(reason.into())
            }
        }
    }

    fn serve_store(&mut self, request: &StageRequest) -> io::Result<OwnedFd> {
        let host = request.host.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = request.scratch.join("sandbox/api");
        make_directory(&directory, 0o700).map_err(io::Error::other)?;
        let directory = open_directory(&directory)?;
        self.service_loop.listen(directory.as_fd(), STORE, StoreApi::new(request, host).answers())?;
        Ok(directory)
    }
}

/// Where services find what the stage works on.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// The stage's private `/dev`.
    pub(crate) dev: &'a PathBuf,
    pub(crate) tree: &'a PathBuf,
    pub(crate) mounts: &'a PathBuf,
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
