//! Downloads: one file from a URL to a place, verified on the way, as often tried as is worth it.
//!
//! Knows URLs, certificates and checksums, and nothing of manifests. Connections are kept and shared between downloads
//! that need the same settings. A download that was cut off goes on where it ended, in this run or the next.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use osbc_module_api::{Error, SourceContext};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, SocksConnector, TcpConnector};
use ureq::{Agent, Proxy};

use crate::checksum::{Checksum, Hasher};
use crate::proxy::Forward;
use crate::url::Url;

mod transfer;

use transfer::{Head, Message, Resume, Transfer};

/// How long the look-up of a name and a connection may take, each.
const CONNECT: Duration = Duration::from_secs(30);

/// How often to ask whether the build was ended.
const BLINK: Duration = Duration::from_millis(100);

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

/// The files by which client and server know each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secrets {
    /// The authorities to trust instead of the system's.
    pub(crate) authority: Option<PathBuf>,
    /// The client's certificate, perhaps followed by those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// The client's key.
    pub(crate) key: PathBuf,
}

/// With what settings a server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Access {
    /// Whether any server is trusted.
    pub(crate) insecure: bool,
    /// The files for a server that wants to know its clients.
    pub(crate) secrets: Option<Secrets>,
    /// The proxy to go through.
    pub(crate) proxy: Option<Proxy>,
}

/// Makes downloads and keeps their connections.
#[derive(Debug, Default)]
pub(crate) struct Downloader {
    patience: Patience,
    agents: Mutex<HashMap<Access, Agent>>,
}

/// Shared by all sources, so that items of one server share its connections.
pub(crate) static DOWNLOADER: LazyLock<Downloader> = LazyLock::new(Downloader::default);

impl Downloader {
    /// A downloader that is as patient as that.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, agents: Mutex::default() }
    }

    /// Downloads `url` to the context's target. When it fails for good because of what came, nothing is left there; what
    /// was cut off stays to be resumed.
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
        let agent = self.agent(access)?;
        let mut partial = Partial::open(context.target, expected)?;
        if partial.length > 0 && partial.check().is_ok() {
            return Ok(());
        }
        let result = self.retry(context, url, || self.attempt(context, &agent, url, &mut partial));
        if result.is_err() {
            partial.discard_if_empty();
        }
        result
    }

    /// Downloads a text that is not known before, such as a list of mirrors.
    ///
    /// # Errors
    /// The server cannot be reached or will not give it, or it is longer than such texts are.
    pub(crate) fn text(&self, context: &SourceContext, url: &Url, access: &Access) -> Result<String, Error> {
        let agent = self.agent(access)?;
        let bytes = self.retry(context, url, || {
            let mut bytes = Vec::new();
            self.receive(context, &agent, url, None, |part| match part {
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

    /// How long to wait after so many tries; a bit more or less each time, so that many clients do not come back at once.
    fn pause(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.patience.first_pause.saturating_mul(1 << (tries - 1).min(16));
        let random = RandomState::new().hash_one(tries) % 512;
        let pause = doubled.min(self.patience.longest_pause) * (768 + random as u32) / 1024;
        asked.map_or(pause, |asked| asked.min(LONGEST_ASKED).max(pause))
    }

    /// The connections with these settings.
    fn agent(&self, access: &Access) -> Result<Agent, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(access) {
            return Ok(agent.clone());
        }
        let agent = make_agent(access, &self.patience)?;
        agents.insert(access.clone(), agent.clone());
        Ok(agent)
    }

    /// Asks the server once for what is missing.
    fn attempt(&self, context: &SourceContext, agent: &Agent, url: &Url, partial: &mut Partial) -> Result<(), Failure> {
        let (mut total, mut redirected) = (None, None);
        self.receive(context, agent, url, partial.resume(), |part| match part {
            Part::Head(head) => {
                (total, redirected) = (head.total, head.redirected.clone());
                partial.prepare(head)
            }
            Part::Chunk(bytes) => {
                partial.append(bytes)?;
                (context.progress)(partial.length, total);
                Ok(())
            }
        })?;
        let Err(found) = partial.check() else { return Ok(()) };
        let from = redirected.as_ref().map_or(String::new(), |url| format!(", got from {url}"));
        let reason = format!("the file has the checksum {found} instead of {}{from}", partial.expected);
        // Parts of two files may have been put together, or another server may be more right; else it is hopeless.
        let hopeful = partial.pieced || redirected.is_some();
        partial.restart()?;
        let again = if hopeful { Again::After(None) } else { Again::Never };
        Err(Failure::Remote { reason, again })
    }

    /// Asks the server once and hands on what comes, as it comes.
    fn receive(
        &self,
        context: &SourceContext,
        agent: &Agent,
        url: &Url,
        resume: Option<Resume>,
        mut take: impl FnMut(Part) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let transfer = Transfer::start(agent.clone(), url, resume)?;
        let mut window: Option<Window> = None;
        loop {
            if (context.interrupted)() {
                return Err(Error::Interrupted.into());
            }
            match transfer.messages.recv_timeout(BLINK) {
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
                Ok(Message::Failed(error)) => return Err(transfer::explain(error, self.patience.stall)),
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
        sleep(left.min(BLINK));
    }
}

/// What is there of the file, and its checksum so far.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    expected: &'a Checksum,
    hasher: Hasher,
    length: u64,
    /// By what the server knows whether the file is still the same.
    validator: Option<String>,
    /// Whether the bytes came by more than one answer.
    pieced: bool,
}

impl<'a> Partial<'a> {
    fn open(path: &'a Path, expected: &'a Checksum) -> Result<Self, Error> {
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.map_err(Error::io("write", path))?;
        let mut hasher = expected.hasher();
        let length = hasher.update_from(&mut file).map_err(Error::io("read", path))?;
        Ok(Self { path, file, expected, hasher, length, validator: None, pieced: false })
    }

    fn check(&self) -> Result<(), Checksum> {
        self.expected.check(&self.hasher)
    }

    /// What to ask the server for.
    fn resume(&self) -> Option<Resume> {
        (self.length > 0).then(|| Resume { from: self.length, validator: self.validator.clone() })
    }

    /// Gets ready for what an answer announces.
    fn prepare(&mut self, head: &Head) -> Result<(), Failure> {
        match head.status {
            200 => self.restart()?,
            206 if self.length > 0 && head.start == Some(self.length) => self.pieced = true,
            // The server has another file, or does not do what it says: from scratch.
            206 | 416 if self.length > 0 => {
                self.restart()?;
                return Err(Failure::remote(format!("the server cannot resume the download ({})", head.status)));
            }
            _ => return Err(head.refusal()),
        }
        self.validator.clone_from(&head.validator);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io("write", self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("write", self.path))?;
        self.hasher = self.expected.hasher();
        (self.length, self.validator, self.pieced) = (0, None, false);
        Ok(())
    }

    /// Leaves no empty file behind.
    fn discard_if_empty(&self) {
        if self.length == 0 {
            // Whoever comes next overwrites it anyway.
            fs::remove_file(self.path).ok();
        }
    }
}

fn make_agent(access: &Access, patience: &Patience) -> Result<Agent, Error> {
    let tls = tls(access)?;
    let config = |proxy: Option<Proxy>| {
        Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(format!("osbc/{} (Linux.{})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH))
            .accept_encoding("identity")
            .max_redirects(50)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(patience.stall))
            .timeout_per_write(Some(patience.stall))
            .max_idle_connections_per_host(8)
            .tls_config(tls.clone())
            .proxy(proxy)
            .build()
    };
    let connector = Forward { direct: config(None) }
        .chain(SocksConnector::default())
        .chain(ConnectProxyConnector::default())
        .chain(TcpConnector::default())
        .chain(RustlsConnector::default());
    Ok(Agent::with_parts(config(access.proxy.clone()), connector, DefaultResolver::default()))
}

fn tls(access: &Access) -> Result<TlsConfig, Error> {
    let mut builder = TlsConfig::builder()
        .disable_verification(access.insecure)
        // The system's, or those that the environment names in SSL_CERT_FILE.
        .root_certs(RootCerts::PlatformVerifier);
    if let Some(secrets) = &access.secrets {
        if let Some(authority) = &secrets.authority {
            builder = builder.root_certs(RootCerts::new_with_certs(&certificates(authority)?));
        }
        let client = ClientCert::new_with_certs(&certificates(&secrets.certificate)?, key(&secrets.key)?);
        builder = builder.client_cert(Some(client));
    }
    Ok(builder.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    let none = || Error::failed(format!("{} holds no certificate in PEM form", path.display()));
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn key(path: &Path) -> Result<PrivateKey<'static>, Error> {
    let found = pem(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    found.ok_or_else(|| Error::failed(format!("{} holds no unencrypted key in PEM form", path.display())))
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let items = parse_pem(&text).collect::<Result<_, _>>();
    items.map_err(|error| Error::failed(format!("{} is broken: {error}", path.display())))
}

#[cfg(test)]
mod tests;
