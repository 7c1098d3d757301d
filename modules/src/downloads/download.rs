//! Downloads: one file from a URL to a place, verified on the way, as often tried as is worth it.
//!
//! Knows URLs, certificates and checksums, and nothing of manifests. Connections are kept and shared between downloads
//! that need the same settings. A download that was cut off goes on where it ended, in this run or the next.

use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use osbc_module_api::{Error, SourceContext};

use crate::downloads::checksum::Checksum;
use crate::downloads::url::Url;

mod agents;
pub(crate) mod head;
mod partial;
pub(crate) mod target;
mod transfer;

use agents::Agents;
pub(crate) use agents::{Access, Secrets};
use partial::Partial;
use transfer::{Head, Message, Place, Resume, Transfer, Way};

/// How often to ask whether the build was ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The longest text that is read, in bytes.
const LONGEST_TEXT: usize = 16 << 20;

/// The longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// How patient downloads are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How often to try.
    pub(crate) tries: u32,
    /// How long to wait after the first failure; twice as long after each further one.
    pub(crate) first_pause: Duration,
    /// The longest of these pauses.
    pub(crate) longest_pause: Duration,
    /// How long a server may send (nearly) nothing.
    pub(crate) stall: Duration,
    /// How many bytes a second are nearly nothing.
    pub(crate) slowest: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 10,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(8),
            stall: Duration::from_secs(30),
            slowest: 1000,
        }
    }
}

/// Makes downloads and keeps their connections.
#[derive(Debug, Default)]
pub(crate) struct Downloader {
    patience: Patience,
    agents: Arc<Agents>,
}

/// Shared by all sources, so that items of one server share its connections.
pub(crate) static DOWNLOADER: LazyLock<Downloader> = LazyLock::new(Downloader::default);

impl Downloader {
    /// A downloader that is as patient as that.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, agents: Arc::default() }
    }

    /// Downloads `url` to the context's target. When it fails for good because of what came, nothing is left there;
    /// what was cut off stays to be resumed.
    ///
    /// # Errors
    /// The server cannot be reached or will not give the file, or what it gives has another checksum.
    pub(crate) fn fetch(
        &self,
        context: &SourceContext,
        url: &Url,
        access: &Access,
        expected: &Checksum,
    ) -> Result<(), Error> {
        let mut partial = Partial::open(context.target, expected)?;
        if partial.length() > 0 && partial.check().is_ok() {
            return Ok(());
        }
        let mut wrong = None;
        let result = self.retry(context, url, || self.attempt(context, access, url, &mut partial, &mut wrong));
        if result.is_err() {
            partial.leave();
        }
        result
    }

    /// Downloads a text that is not known before, such as a list of mirrors.
    ///
    /// # Errors
    /// The server cannot be reached or will not give it, or it is longer than such texts are.
    pub(crate) fn text(&self, context: &SourceContext, url: &Url, access: &Access) -> Result<String, Error> {
        let bytes = self.retry(context, url, || {
            let mut bytes = Vec::new();
            self.receive(context, access, url, None, |part| match part {
                Part::Head(head) if head.status == 200 => Ok(()),
                Part::Head(head) => Err(head.refusal()),
                Part::Chunk(chunk) if bytes.len() + chunk.len() > LONGEST_TEXT => {
                    Err(Failure::lasting("the text is too long"))
                }
                Part::Chunk(chunk) => {
                    bytes.extend_from_slice(chunk);
                    Ok(())
                }
            })?;
            Ok(bytes)
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Tries as often as is worth it.
    fn retry<T>(
        &self,
        context: &SourceContext,
        url: &Url,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut tries = 1;
        loop {
            let (reason, again) = match attempt() {
                Ok(result) => return Ok(result),
                Err(Failure::Local(error)) => return Err(error),
                Err(Failure::Remote { reason, again }) => (reason, again),
            };
            let wait = match again {
                Again::Never => None,
                Again::After(_) if tries >= self.patience.tries => None,
                Again::After(asked) => Some(self.pause(tries, asked)),
            };
            let Some(wait) = wait else {
                let times = if tries > 1 { format!(" (tried {tries} times)") } else { String::new() };
                return Err(Error::failed(format!("cannot download {}: {reason}{times}", url.display())));
            };
            pause(context, wait)?;
            tries += 1;
        }
    }

    /// How long to wait after so many tries; a bit more or less each time, so that many clients do not come back at
    /// once.
    fn pause(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.patience.first_pause.saturating_mul(1 << (tries - 1).min(16));
        let random = RandomState::new().hash_one(tries) % 512;
        let pause = doubled.min(self.patience.longest_pause) * (768 + random as u32) / 1024;
        asked.map_or(pause, |asked| asked.min(LONGEST_ASKED).max(pause))
    }

    /// Asks the server once for what is missing. `wrong` is the last file that was not the right one, and its place.
    fn attempt(
        &self,
        context: &SourceContext,
        access: &Access,
        url: &Url,
        partial: &mut Partial,
        wrong: &mut Option<(Checksum, String)>,
    ) -> Result<(), Failure> {
        let (mut total, mut place) = (None, Place::default());
        self.receive(context, access, url, partial.resume(), |part| match part {
            Part::Head(head) => {
                (total, place) = (head.total, head.place.clone());
                partial.prepare(head)
            }
            Part::Chunk(bytes) => {
                partial.append(bytes)?;
                (context.progress)(partial.length(), total);
                Ok(())
            }
        })?;
        let Err(found) = partial.check() else { return Ok(()) };
        let redirected = place.redirected.unwrap_or_default();
        let from = if redirected.is_empty() { String::new() } else { format!(", got from {redirected}") };
        let reason = format!("the file has the checksum {found} instead of {}{from}", partial.expected());
        // Parts of two files may have been put together, or another server may be more right; else it is hopeless.
        let now = (found, redirected);
        let hopeful = partial.is_pieced() || (!now.1.is_empty() && wrong.as_ref() != Some(&now));
        *wrong = Some(now);
        partial.restart()?;
        let again = if hopeful { Again::After(None) } else { Again::Never };
        Err(Failure::Remote { reason, again })
    }

    /// Asks the server once and hands on what comes, as it comes.
    fn receive(
        &self,
        context: &SourceContext,
        access: &Access,
        url: &Url,
        resume: Option<Resume>,
        mut take: impl FnMut(Part) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let way = Way {
            agents: Arc::clone(&self.agents),
            access: access.clone(),
            environment: context.environment.clone(),
            stall: self.patience.stall,
        };
        let transfer = Transfer::start(way, url, resume)?;
        let mut window: Option<Window> = None;
        loop {
            if (context.interrupted)() {
                return Err(Error::Interrupted.into());
            }
            match transfer.messages.recv_timeout(POLL_INTERVAL) {
                Ok(Message::Head(head)) => {
                    take(Part::Head(&head))?;
                    window = Some(Window { since: Instant::now(), bytes: 0 });
                }
                Ok(Message::Chunk(bytes)) => {
                    take(Part::Chunk(&bytes))?;
                    if let Some(window) = &mut window {
                        window.bytes += bytes.len() as u64;
                    }
                }
                Ok(Message::End) => return Ok(()),
                Ok(Message::Failed(failure)) => return Err(failure),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::remote("the transfer broke off")),
            }
            if let Some(window) = &mut window {
                window.check(&self.patience)?;
            }
        }
    }
}

/// What comes from a server.
enum Part<'a> {
    /// First of all.
    Head(&'a Head),
    /// Then bytes.
    Chunk(&'a [u8]),
}

/// Why an attempt failed.
#[derive(Debug)]
enum Failure {
    /// For a reason on this side: the build was ended, the disk is full.
    Local(Error),
    /// For a reason on the way or on the other side.
    Remote { reason: String, again: Again },
}

/// Whether another try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    /// Not before the time that the server named.
    After(Option<Duration>),
}

impl Failure {
    /// One that another try may mend.
    fn remote(reason: impl Into<String>) -> Self {
        Failure::Remote { reason: reason.into(), again: Again::After(None) }
    }

    /// One that will stay.
    fn lasting(reason: impl Into<String>) -> Self {
        Failure::Remote { reason: reason.into(), again: Again::Never }
    }

    /// The same with its place.
    fn at(self, place: &Place) -> Self {
        match self {
            Failure::Remote { reason, again } => Failure::Remote { reason: format!("{reason}{place}"), again },
            local => local,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Local(error)
    }
}

/// How much came in the last while.
struct Window {
    since: Instant,
    bytes: u64,
}

impl Window {
    fn check(&mut self, patience: &Patience) -> Result<(), Failure> {
        let elapsed = self.since.elapsed();
        if elapsed < patience.stall {
            return Ok(());
        }
        let enough = u128::from(patience.slowest) * elapsed.as_millis() / 1000;
        if u128::from(self.bytes) < enough {
            let reason = format!("the server stalled: {} bytes in {:.1} s", self.bytes, elapsed.as_secs_f32());
            return Err(Failure::remote(reason));
        }
        *self = Window { since: Instant::now(), bytes: 0 };
        Ok(())
    }
}

fn pause(context: &SourceContext, wait: Duration) -> Result<(), Error> {
    let end = Instant::now() + wait;
    loop {
        if (context.interrupted)() {
            return Err(Error::Interrupted);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        sleep(left.min(POLL_INTERVAL));
    }
}

#[cfg(test)]
mod tests;
