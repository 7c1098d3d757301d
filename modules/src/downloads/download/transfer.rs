//! One request with its redirections and its answer, on a thread of its own: whoever waits for it can stop waiting at
//! any time.
//!
//! The thread then ends by itself, at the latest when the connection times out.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use osbc_ir::redact;
use osbc_module_api::Error;
use ureq::Body;
use ureq::http::{HeaderName, Response, header};

use super::agents::{Access, Agents};
use super::target::Target;
use super::{Again, Failure};
use crate::downloads::proxy;
use crate::downloads::url::Url;

/// How many chunks may wait to be written.
const AHEAD: usize = 8;

const CHUNK: usize = 128 << 10;

/// How many redirections are followed, which is curl's number.
const REDIRECTIONS: u32 = 50;

/// A request that is under way.
pub(super) struct Transfer {
    /// What comes of it.
    pub(super) messages: Receiver<Message>,
}

/// Where to go on with a download.
pub(super) struct Resume {
    /// The first byte that is missing.
    pub(super) from: u64,
    /// By what the server knows whether the file is still the same.
    pub(super) validator: Option<String>,
}

pub(super) enum Message {
    /// The first to come, if the server answers.
    Head(Head),
    Chunk(Vec<u8>),
    /// All came; the last message.
    End,
    /// Nothing more will come; the last message.
    Failed(Failure),
}

/// What an answer says about itself.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    /// The first byte that comes, when it is a part.
    pub(super) start: Option<u64>,
    /// How long the whole file is.
    pub(super) total: Option<u64>,
    /// By what the server will know whether the file is still the same.
    pub(super) validator: Option<String>,
    /// When to ask again.
    pub(super) retry_after: Option<Duration>,
    /// Where it comes from.
    pub(super) place: Place,
}

impl Transfer {
    /// Asks for what `url` names, by way of `agents`.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start(way: Way, url: &Url, resume: Option<Resume>) -> Result<Self, Error> {
        let target = Target::first(url);
        let (sender, messages) = sync_channel(AHEAD);
        let work = move || {
            // Nobody may be waiting any more.
            run(&way, target, resume.as_ref(), &sender).ok();
        };
        let name = "download".to_owned();
        thread::Builder::new().name(name).spawn(work).map_err(Error::io("start a thread for", url.display()))?;
        Ok(Self { messages })
    }
}

/// How servers are reached.
pub(super) struct Way {
    pub(super) agents: Arc<Agents>,
    pub(super) access: Access,
    /// Names the proxies.
    pub(super) environment: BTreeMap<String, String>,
    /// How long a server may take for the head of an answer, and between two parts of it.
    pub(super) stall: Duration,
}

/// Nobody waits for the messages.
struct Abandoned;

fn run(way: &Way, first: Target, resume: Option<&Resume>, sender: &SyncSender<Message>) -> Result<(), Abandoned> {
    let send = |message| sender.send(message).map_err(|_| Abandoned);
    let (response, place) = match ask(way, first, resume) {
        Ok(answer) => answer,
        Err(failure) => return send(Message::Failed(failure)),
    };
    let head = Head::of(&response, &place);
    let wanted = matches!(head.status, 200 | 206);
    send(Message::Head(head))?;
    if !wanted {
        return Ok(());
    }
    let mut body = response.into_body().into_reader();
    loop {
        let mut chunk = vec![0; CHUNK];
        match body.read(&mut chunk) {
            Ok(0) => return send(Message::End),
            Ok(length) => {
                chunk.truncate(length);
                send(Message::Chunk(chunk))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return send(Message::Failed(explain(error.into(), way.stall).at(&place))),
        }
    }
}

/// Where an answer comes from, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Where redirections led.
    pub(super) redirected: Option<String>,
    /// The proxy that was gone through.
    proxy: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(url) = &self.redirected {
            write!(f, " for {url}")?;
        }
        if let Some(proxy) = &self.proxy {
            write!(f, " (through the proxy {proxy})")?;
        }
        Ok(())
    }
}

/// Asks, and goes where redirections lead.
fn ask(way: &Way, first: Target, resume: Option<&Resume>) -> Result<(Response<Body>, Place), Failure> {
    let mut target = first;
    let mut redirected = None;
    for _ in 0..=REDIRECTIONS {
        let proxy = proxy::choose(&Url::parse(&target.url)?, &way.environment)?;
        let place = Place { redirected: redirected.clone(), proxy: proxy.as_ref().map(proxy::name) };
        let agent = way.agents.get(&way.access, proxy.as_ref(), way.stall)?;
        let mut request = agent.get(&target.url);
        if let Some(authorization) = &target.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(resume) = resume {
            request = request.header(header::RANGE, format!("bytes={}-", resume.from));
            if let Some(validator) = &resume.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let response = request.call().map_err(|error| explain(error, way.stall).at(&place))?;
        let location = response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection());
        let Some(location) = location else { return Ok((response, place)) };
        target = target.follow(location.as_bytes()).map_err(|reason| Failure::lasting(reason).at(&place))?;
        redirected = Some(redact::url(&target.url).into_owned());
    }
    Err(Failure::lasting(format!("the server redirects more than {REDIRECTIONS} times")))
}

impl Head {
    fn of(response: &Response<Body>, place: &Place) -> Self {
        let get = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::trim);
        let length = get(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let status = response.status().as_u16();
        let (start, total) = match status {
            206 => part(get(header::CONTENT_RANGE).unwrap_or_default()),
            _ => (None, length),
        };
        let strong = get(header::ETAG).filter(|tag| tag.starts_with('"'));
        Self {
            status,
            start,
            total,
            validator: strong.or_else(|| get(header::LAST_MODIFIED)).map(str::to_owned),
            retry_after: get(header::RETRY_AFTER).and_then(|wait| wait.parse().ok()).map(Duration::from_secs),
            place: place.clone(),
        }
    }

    /// What it means that this is not the answer which was hoped for.
    pub(super) fn refusal(&self) -> Failure {
        let again =
            if matches!(self.status, 408 | 429 | 500..) { Again::After(self.retry_after) } else { Again::Never };
        let reason = format!("the server answered {}{}", self.status, self.phrase());
        Failure::Remote { reason, again }.at(&self.place)
    }

    /// What the status means, where that is common knowledge.
    fn phrase(&self) -> String {
        let status = ureq::http::StatusCode::from_u16(self.status).ok();
        status.and_then(|status| status.canonical_reason()).map_or(String::new(), |reason| format!(" {reason}"))
    }
}

/// The first byte and the length of the whole out of `bytes 5-9/10`.
fn part(range: &str) -> (Option<u64>, Option<u64>) {
    let range = range.strip_prefix("bytes ").unwrap_or_default();
    let (part, total) = range.split_once('/').unwrap_or((range, ""));
    (part.split('-').next().and_then(|start| start.trim().parse().ok()), total.trim().parse().ok())
}

/// How the C library ends its message about a name that does not exist (`EAI_NONAME`), which has no other sign in an
/// [`io::Error`]; one that no server could be asked about has another one (`EAI_AGAIN`).
const NO_SUCH_NAME: &str = "Name or service not known";

/// Why a request failed, and whether another try may help.
fn explain(error: ureq::Error, stall: Duration) -> Failure {
    use ureq::{Error, Timeout};

    match error {
        Error::Timeout(Timeout::Resolve) => Failure::remote("the look-up of the host's name took too long"),
        Error::Timeout(Timeout::Connect) => Failure::remote("the host did not take the connection in time"),
        Error::Timeout(Timeout::RecvResponse) => {
            Failure::remote(format!("the server stalled: no whole head of an answer in {:.1} s", stall.as_secs_f32()))
        }
        Error::Timeout(_) => Failure::remote(format!("the server stalled: nothing in {:.1} s", stall.as_secs_f32())),
        Error::HostNotFound => Failure::remote("the host was not found"),
        Error::ConnectionFailed => Failure::remote("the connection failed"),
        Error::ConnectProxyFailed(reason) => {
            let lasting = reason.contains("responded 4");
            let reason = format!("the {}", reason.split('/').next().unwrap_or_default());
            if lasting { Failure::lasting(reason) } else { Failure::remote(reason) }
        }
        Error::LargeResponseHeader(_, longest) => {
            Failure::lasting(format!("the server's headers are longer than {} KiB", longest >> 10))
        }
        Error::Protocol(reason) => Failure::lasting(format!("the server does not speak HTTP: {reason}")),
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::remote("the server cut the transfer off")
        }
        // So come all faults of certificates.
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Failure::lasting(error.to_string()),
        Error::Io(error) if error.to_string().ends_with(NO_SUCH_NAME) => {
            Failure::lasting("no name server knows the host's name")
        }
        Error::Io(error) => Failure::remote(error.to_string()),
        Error::Rustls(error) => Failure::lasting(error.to_string()),
        other => Failure::lasting(redact::text(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_is_asked_for_once_and_one_that_nobody_was_asked_about_again() {
        let explained = |reason: &str| {
            let error = io::Error::other(format!("failed to lookup address information: {reason}"));
            match explain(error.into(), Duration::from_secs(1)) {
                Failure::Remote { again, .. } => again,
                Failure::Local(error) => panic!("{error}"),
            }
        };
        assert_eq!(explained(NO_SUCH_NAME), Again::Never);
        assert_eq!(explained("Temporary failure in name resolution"), Again::After(None));
    }

    #[test]
    fn the_start_of_a_part_and_the_length_of_the_whole_are_read() {
        assert_eq!(part("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(part("bytes 5-9/*"), (Some(5), None));
        assert_eq!(part("bytes */10"), (None, Some(10)));
        assert_eq!(part("lines 1-2/3"), (None, None));
    }
}
