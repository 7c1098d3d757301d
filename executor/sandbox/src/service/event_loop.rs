//! Waiting without leaving anybody else waiting: while one thing is awaited, what services write is passed on and what
//! programs ask at a socket is answered.
//!
//! One thread, no other ones: whoever waits here may fork.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use osbc_module_api::Value;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};

use super::lines::Lines;
use super::protocol::{self, ServiceMessage};
use crate::stage::{Answered, Supervisor};

/// How many connections there may be at a time; who wants one more waits.
const CONNECTIONS: usize = 64;
/// How much of an output is read at once.
const CHUNK: usize = 64 << 10;

/// Answers what is asked at a socket; `None` if nothing is to be answered.
pub(crate) type Answer<'a> = Box<dyn FnMut(ServiceMessage) -> Option<Value> + 'a>;

/// Serves while one waits.
pub struct ServiceLoop<'a> {
    say: Box<dyn FnMut(&str) + 'a>,
    interrupt: Option<BorrowedFd<'a>>,
    outputs: Vec<Output>,
    endpoints: Vec<Endpoint<'a>>,
    supervisor: Option<Supervisor>,
    needs_plain_tree: bool,
}

/// What a service writes.
struct Output {
    /// None after its end.
    pipe: Option<OwnedFd>,
    lines: Lines,
}

/// A socket, and those who have connected to it.
struct Endpoint<'a> {
    listener: OwnedFd,
    connections: Vec<OwnedFd>,
    answer: Answer<'a>,
}

impl<'a> ServiceLoop<'a> {
    /// One that passes on what services write, line by line.
    pub fn new(say: impl FnMut(&str) + 'a) -> Self {
        Self {
            say: Box::new(say),
            interrupt: None,
            outputs: Vec::new(),
            endpoints: Vec::new(),
            supervisor: None,
            needs_plain_tree: false,
        }
    }

    /// The same, which gives up waiting once there is something to read from `interrupt`.
    pub fn until(self, interrupt: BorrowedFd<'a>) -> Self {
        Self { interrupt: Some(interrupt), ..self }
    }

    /// Passes on what comes out of `pipe`, each line behind `prefix`.
    ///
    /// # Errors
    /// The descriptor is broken.
    pub(crate) fn pass_on(&mut self, pipe: OwnedFd, prefix: &str) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.outputs.push(Output { pipe: Some(pipe), lines: Lines::new(prefix) });
        Ok(())
    }

    /// Says a line of our own.
    pub fn say(&mut self, text: &str) {
        (self.say)(text);
    }

    /// Listens at the new socket `name` in an open directory.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn listen(&mut self, directory: BorrowedFd<'_>, name: &str, answer: Answer<'a>) -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(address(directory, name))?)?;
        listen(&listener, 128)?;
        self.endpoints.push(Endpoint { listener, connections: Vec::new(), answer });
        Ok(())
    }

    /// Answers for a stage's mounts too.
    pub(crate) fn watch(&mut self, supervisor: Supervisor) {
        self.supervisor = Some(supervisor);
    }

    /// Returns whether the supervised stage was ended because it makes what no layer can hold.
    pub(crate) fn needs_plain_tree(&self) -> bool {
        self.needs_plain_tree
    }

    /// Serves until there is something to read from `awaited`, or its end; false when `until` came before.
    ///
    /// # Errors
    /// Polling failed, or it was interrupted.
    pub(crate) fn wait(&mut self, awaited: impl AsFd, until: Option<Instant>) -> io::Result<bool> {
        loop {
            let mut polled = vec![PollFd::from_borrowed_fd(awaited.as_fd(), PollFlags::IN)];
            polled.extend(self.interrupt.map(|interrupt| PollFd::from_borrowed_fd(interrupt, PollFlags::IN)));
            polled.extend(self.outputs.iter().filter_map(|output| output.pipe.as_ref()).map(readable));
            for endpoint in &self.endpoints {
                let listening = endpoint.connections.len() < CONNECTIONS;
                let flags = if listening { PollFlags::IN } else { PollFlags::empty() };
                polled.push(PollFd::new(&endpoint.listener, flags));
                polled.extend(endpoint.connections.iter().map(readable));
            }
            polled.extend(self.supervisor.as_ref().map(|supervisor| PollFd::new(supervisor, PollFlags::IN)));
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let ready = match poll(&mut polled, left.as_ref()) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let events: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            // What was written before the end of what is awaited is to come before it too.
            let others = 1 + usize::from(self.interrupt.is_some());
            self.serve(&events[others..])?;
            if events[0] {
                return Ok(true);
            }
            if events[1..others].contains(&true) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if ready == 0 {
                return Ok(false);
            }
        }
    }

    /// Passes on all that is there to be read.
    ///
    /// # Errors
    /// Reading failed.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        for output in &mut self.outputs {
            while output.read(&mut self.say)? {}
        }
        Ok(())
    }

    /// Serves those who are ready, in the order of [`wait`](Self::wait).
    fn serve(&mut self, ready: &[bool]) -> io::Result<()> {
        let mut ready = ready.iter().copied();
        let mut next = || ready.next().unwrap_or(false);
        for output in self.outputs.iter_mut().filter(|output| output.pipe.is_some()) {
            if next() {
                output.read(&mut self.say)?;
            }
        }
        for endpoint in &mut self.endpoints {
            let new = next();
            let Endpoint { listener, connections, answer } = endpoint;
            connections.retain(|connection| !next() || serve(connection, answer));
            if new && let Ok(connection) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                connections.push(connection);
            }
        }
        let asked = self.supervisor.is_some() && next();
        self.outputs.retain(|output| output.pipe.is_some());
        if asked {
            match self.supervisor.as_ref().map(Supervisor::answer) {
                Some(Answered::Over) => self.supervisor = None,
                Some(Answered::NeedsPlainTree) => self.needs_plain_tree = true,
                Some(Answered::Done) | None => {}
            }
        }
        Ok(())
    }
}

fn readable(descriptor: &OwnedFd) -> PollFd<'_> {
    PollFd::new(descriptor, PollFlags::IN)
}

/// Answers one message; false when the connection is over.
fn serve(connection: &OwnedFd, answer: &mut Answer<'_>) -> bool {
    let Ok(Some(message)) = protocol::receive(connection) else { return false };
    answer(message).is_none_or(|answer| protocol::send(connection, &answer).is_ok())
}

/// An address of the socket `name` in an open directory, however long the directory's path is: addresses have 108
/// bytes.
pub(crate) fn address(directory: BorrowedFd<'_>, name: &str) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

impl Output {
    /// Reads once; false when there was nothing.
    fn read(&mut self, say: &mut dyn FnMut(&str)) -> io::Result<bool> {
        let Some(pipe) = &self.pipe else { return Ok(false) };
        let mut chunk = vec![0; CHUNK];
        match rustix::io::read(pipe, &mut chunk) {
            Ok(0) => {
                self.lines.finish(say);
                self.pipe = None;
                Ok(false)
            }
            Ok(length) => {
                self.lines.push(&chunk[..length], say);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::File;
    use std::io::Write;
    use std::time::Duration;

    use rustix::net::{connect, socketpair};
    use rustix::pipe::pipe;
    use serde_json::json;

    use super::*;

    fn soon() -> Option<Instant> {
        Instant::now().checked_add(Duration::from_secs(60))
    }

    #[test]
    fn while_one_waits_others_are_served() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = File::open(directory.path()).expect("a directory");
        let said = RefCell::new(String::new());
        let mut service_loop = ServiceLoop::new(|text| said.borrow_mut().push_str(text));
        let twice = |message: ServiceMessage| message.value.as_i64().map(|number| json!(2 * number));
        service_loop.listen(open.as_fd(), "twice", Box::new(twice)).expect("a socket");
        let (output, mut write) = pipe().map(|(read, write)| (read, File::from(write))).expect("a pipe");
        service_loop.pass_on(output, "who: ").expect("a pipe");

        let client = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("one");
        connect(&client, &SocketAddrUnix::new(directory.path().join("twice")).expect("short")).expect("it listens");
        for number in [1, 20] {
            write.write_all(b"line\nand ").expect("somebody reads");
            protocol::send(&client, &json!(number)).expect("sent");
            assert!(service_loop.wait(&client, soon()).expect("works"));
            assert_eq!(protocol::receive(&client).expect("fine").expect("there").value, json!(2 * number));
        }
        // What gets no answer is no reason to wait for ever, and garbage ends only the connection that it came from.
        protocol::send(&client, &json!("no number")).expect("sent");
        assert!(!service_loop.wait(&client, Instant::now().checked_add(Duration::from_millis(20))).expect("works"));
        rustix::net::send(&client, b"garbage", rustix::net::SendFlags::empty()).expect("sent");
        assert!(service_loop.wait(&client, soon()).expect("works"));
        assert!(protocol::receive(&client).expect("an end").is_none());
        drop(write);
        service_loop.drain().expect("works");
        drop(service_loop);
        assert_eq!(said.into_inner(), "who: line\nwho: and line\nwho: and \n");
    }

    #[test]
    fn the_end_of_what_is_awaited_is_an_end_of_waiting() {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("sockets");
        drop(other);
        assert!(ServiceLoop::new(|_| ()).wait(&one, None).expect("works"));
    }
}
