//! One stage while it runs: sends it its request, passes on its output, ends it when it must, and takes its reply.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::StageIo;
use super::text::Utf8Stream;
use crate::interrupt::Interrupt;
use crate::request::{StageFailure, StageMessage, StageReply};
use crate::stage::message;

/// How much of a stage's output is read at once.
const CHUNK: usize = 64 << 10;
/// How long a text is waited for to become whole once it has begun: what a program writes in one go, such as a
/// traceback that Python writes mark by mark, is passed on in one piece.
const COALESCE_DELAY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// A stage that runs.
pub(crate) struct RunningStage {
    worker: PidState,
    /// None after its end.
    socket: Option<UnixStream>,
    unsent: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    reply: Option<StageReply>,
    output: Option<File>,
    text: Utf8Stream,
    /// Where a call shows that the stage makes what no layer can hold; `None` if that is not watched here.
    listener: Option<OwnedFd>,
}

/// The first process of the stage's pid namespace, whose end is the end of everything in there.
#[derive(Debug)]
enum PidState {
    /// It has not sent its handle yet.
    Unknown,
    /// It has, by this handle.
    Known(OwnedFd),
    /// There is none. The reason comes on the socket.
    Refused,
    /// There is none, or it has ended.
    Gone,
}

impl RunningStage {
    /// A stage whose worker has been asked for, by our ends of what it is connected by, neither of which blocks.
    pub(crate) fn new(request: Vec<u8>, socket: UnixStream, output: OwnedFd) -> Self {
        Self {
            worker: PidState::Unknown,
            socket: Some(socket),
            unsent: request,
            sent: 0,
            received: Vec::new(),
            reply: None,
            output: Some(File::from(output)),
            text: Utf8Stream::default(),
            listener: None,
        }
    }

    /// Talks to the worker until it and all that it started is gone. `None` if no worker took the stage, which thus has
    /// not begun.
    ///
    /// # Errors
    /// The system refuses something that should always work.
    pub(crate) fn attend(&mut self, timeout: Option<Duration>, io: &StageIo<'_>) -> io::Result<Option<StageReply>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (mut taken, mut ending) = (false, None);
        let mut chunk = vec![0; CHUNK];
        while !matches!(self.worker, PidState::Gone) {
            let going_on = ending.is_none();
            let ready = self.wait(going_on.then_some(io.interrupt), deadline.filter(|_| going_on))?;
            if !ready.output.is_empty() {
                self.gather()?;
                self.read_output(&mut chunk, io)?;
            }
            if !ready.socket.is_empty() {
                self.talk(&mut chunk, io)?;
            }
            taken |= matches!(self.worker, PidState::Known(_));
            if !ready.worker.is_empty() {
                self.worker = PidState::Gone;
            }
            if !ready.interrupt.is_empty() {
                ending = Some(StageFailure::Interrupted);
            } else if going_on && ready.listener.contains(PollFlags::IN) {
                ending = Some(StageFailure::NeedsPlainTree);
            } else if going_on && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                ending = timeout.map(StageFailure::TimedOut);
            }
            if !ready.listener.is_empty() && !ready.listener.contains(PollFlags::IN) {
                // Nobody is left who could call; it would be ready until the end.
                self.listener = None;
            }
            if ending.is_some() {
                self.end();
            }
        }
        // Nobody is left to write: what is in the socket and in the pipe is the rest.
        while self.talk(&mut chunk, io)? {}
        while self.read_output(&mut chunk, io)? {}
        self.text.finish(io.output);
        if ending == Some(StageFailure::NeedsPlainTree) {
            return Ok(ending.map(StageReply::failed));
        }
        let failure = ending.or_else(|| {
            let reason = "the stage's process ended before it was done; was it killed?";
            taken.then(|| StageFailure::Died(reason.into()))
        });
        Ok(self.reply.take().or(failure.map(StageReply::failed)))
    }

    /// Ends the stage, or sees to it that it does not begin.
    fn end(&mut self) {
        self.sent = self.unsent.len();
        // Each may be gone already.
        if let Some(socket) = &self.socket {
            socket.shutdown(Shutdown::Write).ok();
        }
        if let PidState::Known(worker) = &self.worker {
            pidfd_send_signal(worker, Signal::KILL).ok();
        }
    }

    /// Waits until something happens, or until `deadline`.
    fn wait(&self, interrupt: Option<&Interrupt>, deadline: Option<Instant>) -> io::Result<Ready> {
        let none = PollFlags::empty();
        let mut ready = Ready { output: none, socket: none, worker: none, interrupt: none, listener: none };
        let mut flags: Vec<&mut PollFlags> = Vec::with_capacity(5);
        let mut polled = Vec::with_capacity(5);
        if let Some(output) = &self.output {
            polled.push(PollFd::new(output, PollFlags::IN));
            flags.push(&mut ready.output);
        }
        if let Some(socket) = &self.socket {
            let writes = if self.sent < self.unsent.len() { PollFlags::OUT } else { PollFlags::empty() };
            polled.push(PollFd::new(socket, PollFlags::IN | writes));
            flags.push(&mut ready.socket);
        }
        if let PidState::Known(worker) = &self.worker {
            polled.push(PollFd::new(worker, PollFlags::IN));
            flags.push(&mut ready.worker);
        }
        if let Some(listener) = &self.listener {
            polled.push(PollFd::new(listener, PollFlags::IN));
            flags.push(&mut ready.listener);
        }
        let interrupt = interrupt.map(Interrupt::descriptor);
        if let Some(descriptor) = &interrupt {
            polled.push(PollFd::new(descriptor, PollFlags::IN));
            flags.push(&mut ready.interrupt);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        match poll(&mut polled, left.as_ref()) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                for (flag, polled) in flags.into_iter().zip(&polled) {
                    *flag = polled.revents();
                }
            }
        }
        Ok(ready)
    }

    /// Lets the stage write on for a moment, unless it has ended.
    fn gather(&self) -> io::Result<()> {
        if let PidState::Known(worker) = &self.worker {
            match poll(&mut [PollFd::new(worker, PollFlags::IN)], Some(&COALESCE_DELAY)) {
                Err(Errno::INTR) => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// Passes on some output; returns whether there may be more.
    fn read_output(&mut self, chunk: &mut [u8], io: &StageIo<'_>) -> io::Result<bool> {
        let Some(pipe) = &mut self.output else { return Ok(false) };
        match pipe.read(chunk) {
            Ok(0) => self.output = None,
            Ok(length) => self.text.push(&chunk[..length], io.output),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(self.output.is_some())
    }

    /// Sends what can be without waiting, and receives some; returns whether there may be more.
    fn talk(&mut self, chunk: &mut [u8], io: &StageIo<'_>) -> io::Result<bool> {
        while let Some(socket) = &mut self.socket
            && self.sent < self.unsent.len()
        {
            match socket.write(&self.unsent[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It ended before it had read all; what it sent says why.
                Err(_) => self.sent = self.unsent.len(),
            }
        }
        while let Some(socket) = &mut self.socket {
            let received = match self.worker {
                PidState::Unknown => message::receive_descriptor(&*socket).map(|worker| {
                    self.worker = worker.map_or(PidState::Refused, PidState::Known);
                    None
                }),
                _ => message::receive_some(&*socket, chunk).map(|(length, descriptors)| {
                    self.listener = descriptors.into_iter().next().or(self.listener.take());
                    Some(length)
                }),
            };
            match received {
                Ok(Some(0)) => self.socket = None,
                Ok(Some(length)) => {
                    self.hear(&chunk[..length], io)?;
                    return Ok(true);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Its end with our request unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.socket = None,
                Err(error) => return Err(error),
            }
        }
        if self.socket.is_none() && matches!(self.worker, PidState::Unknown | PidState::Refused) {
            self.worker = PidState::Gone;
        }
        Ok(false)
    }

    /// Takes what the worker says, as far as it has said it to the end.
    fn hear(&mut self, piece: &[u8], io: &StageIo<'_>) -> io::Result<()> {
        self.received.extend_from_slice(piece);
        while let Some((said, length)) = message::decode(&self.received)? {
            self.received.drain(..length);
            match said {
                StageMessage::ServiceOutput(text) => (io.service_output)(&text),
                StageMessage::Watch => {}
                StageMessage::Reply(reply) => self.reply = Some(*reply),
            }
        }
        Ok(())
    }
}

impl Drop for RunningStage {
    /// Ends what still runs after an error or a panic on our side.
    fn drop(&mut self) {
        if !matches!(self.worker, PidState::Gone) {
            self.end();
        }
    }
}

/// What became possible on the descriptors of a stage.
struct Ready {
    output: PollFlags,
    socket: PollFlags,
    worker: PollFlags,
    interrupt: PollFlags,
    listener: PollFlags,
}
