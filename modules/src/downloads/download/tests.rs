//! Downloads from a server in the test's own process, whose every answer is written out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use osbc_module_api::json;
use tempfile::TempDir;

use super::*;

mod certificates;
mod limits;
mod proxies;
mod redirections;

/// What the server saw of a request: its lines up to the empty one.
type Request = Vec<String>;

/// What the server does with a request, which is its first, second, … one.
type Answer = dyn Fn(&Request, usize, &mut dyn Write) + Send + Sync;

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request on a connection of its own, the last thing of which is what `answer` writes.
    fn new(answer: impl Fn(&Request, usize, &mut dyn Write) + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(answer), None)
    }

    fn start(answer: Arc<Answer>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, answer, log, tls) = (stream.unwrap(), Arc::clone(&answer), Arc::clone(&log), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &*answer, &log),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &*answer, &log);
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How often it was asked.
    fn count(&self) -> usize {
        self.requests().len()
    }
}

fn serve(stream: impl Read + Write, answer: &Answer, log: &Mutex<Vec<Request>>) {
    let mut stream = BufReader::new(stream);
    let mut request = Request::new();
    loop {
        let mut line = String::new();
        // A client that refuses the server's certificate goes away.
        if !stream.read_line(&mut line).is_ok_and(|length| length > 0) {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => request.push(line.to_owned()),
        }
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len()
    };
    answer(&request, number, stream.get_mut());
}

/// A header of a request.
fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let named = |line: &'a String| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name));
    request.iter().find_map(named).map(|(_, value)| value)
}

/// Writes an answer; the client may be gone.
fn say(out: &mut dyn Write, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Content-Length")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    out.write_all(&[head.as_bytes(), b"\r\n", body].concat()).and_then(|()| out.flush()).ok();
}

/// 300,000 bytes in which no two parts are alike.
fn content() -> Vec<u8> {
    (0..75_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn checksum_of(bytes: &[u8]) -> Checksum {
    let zero = Checksum::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let mut hasher = zero.hasher();
    hasher.update(bytes);
    zero.check(&hasher).unwrap_err()
}

fn hurried() -> Patience {
    Patience {
        tries: 4,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        stall: Duration::from_secs(10),
        slowest: 1000,
    }
}

struct Download {
    directory: TempDir,
    downloader: Downloader,
    access: Access,
    environment: BTreeMap<String, String>,
}

impl Download {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (access, environment) = (Access::default(), BTreeMap::new());
        Self { directory, downloader: Downloader::new(hurried()), access, environment }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn fetch(&self, url: &str, expected: &Checksum) -> Result<Vec<u8>, String> {
        self.fetch_unless(url, expected, &|| false)
    }

    fn fetch_unless(
        &self,
        url: &str,
        expected: &Checksum,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<u8>, String> {
        let context = SourceContext {
            options: &json!({}),
            target: &self.target(),
            shared: Path::new("/nowhere"),
            progress: &|_, _| {},
            interrupted,
            environment: &self.environment,
        };
        let fetched = self.downloader.fetch(&context, &Url::parse(url).unwrap(), &self.access, expected);
        fetched.map(|()| fs::read(self.target()).unwrap()).map_err(|error| error.to_string())
    }
}

#[test]
fn a_file_is_downloaded_and_its_bytes_are_counted() {
    let server = Server::new(|_, _, out| say(out, "200 OK", &[], &content()));
    let download = Download::new();
    let progress = Mutex::new(Vec::new());
    let context = SourceContext {
        options: &json!({}),
        target: &download.target(),
        shared: Path::new("/nowhere"),
        progress: &|done, total| progress.lock().unwrap().push((done, total)),
        interrupted: &|| false,
        environment: &BTreeMap::new(),
    };
    let url = server.url("/a b");
    let expected = checksum_of(&content());
    download.downloader.fetch(&context, &Url::parse(&url).unwrap(), &download.access, &expected).unwrap();
    assert_eq!(fs::read(download.target()).unwrap(), content());
    assert_eq!(progress.lock().unwrap().last(), Some(&(300_000, Some(300_000))));
    let request = &server.requests()[0];
    assert_eq!(request[0], "GET /a%20b HTTP/1.1");
    assert!(header(request, "user-agent").unwrap().starts_with("osbc/"));
    assert_eq!(header(request, "range"), None);
}

#[test]
fn what_is_not_there_is_asked_for_once() {
    for status in ["404 Not Found", "403 Forbidden", "401 Unauthorized", "410 Gone"] {
        let server = Server::new(move |_, _, out| say(out, status, &[], b"no such thing"));
        let download = Download::new();
        let refusal = download.fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
        assert_eq!(refusal, format!("cannot download {}: the server answered {status}", server.url("/a")));
        assert_eq!(server.count(), 1);
        assert!(!download.target().exists());
    }
}

#[test]
fn a_busy_server_is_asked_again() {
    for status in ["503 Service Unavailable", "429 Too Many Requests", "500 Internal Server Error"] {
        let server = Server::new(move |_, number, out| match number {
            1 | 2 => say(out, status, &["Retry-After: 0"], b"busy"),
            _ => say(out, "200 OK", &[], b"hello"),
        });
        assert_eq!(Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap(), b"hello");
        assert_eq!(server.count(), 3);
    }
}

#[test]
fn a_server_that_stays_busy_is_given_up_with_the_number_of_tries() {
    let server = Server::new(|_, _, out| say(out, "503 Service Unavailable", &[], b""));
    let refusal = Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
    let expected = "the server answered 503 Service Unavailable (tried 4 times)";
    assert_eq!(refusal, format!("cannot download {}: {expected}", server.url("/a")));
    assert_eq!(server.count(), 4);
}

/// Answers with all of the content, or with what follows the first byte asked for.
fn in_parts(request: &Request, out: &mut dyn Write, all: &[u8], send: usize) {
    let from = header(request, "range").map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    let etag = "ETag: \"one\"";
    match from {
        None => {
            let length = format!("Content-Length: {}", all.len());
            say(out, "200 OK", &[etag, &length], &all[..send.min(all.len())]);
        }
        Some(from) => {
            let range = format!("Content-Range: bytes {from}-{}/{}", all.len() - 1, all.len());
            let length = format!("Content-Length: {}", all.len() - from);
            let part = &all[from..];
            say(out, "206 Partial Content", &[etag, &length, &range], &part[..send.min(part.len())]);
        }
    }
}

#[test]
fn a_download_that_was_cut_off_goes_on_where_it_ended() {
    let server = Server::new(|request, _, out| in_parts(request, out, &content(), 120_000));
    assert_eq!(Download::new().fetch(&server.url("/a"), &checksum_of(&content())).unwrap(), content());
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(header(&requests[0], "range"), None);
    assert_eq!(header(&requests[1], "range"), Some("bytes=120000-"));
    assert_eq!(header(&requests[1], "if-range"), Some("\"one\""));
    assert_eq!(header(&requests[2], "range"), Some("bytes=240000-"));
}

#[test]
fn what_an_earlier_run_left_is_resumed_and_thrown_away_if_it_does_not_fit() {
    let server = Server::new(|request, _, out| in_parts(request, out, &content(), usize::MAX));
    let download = Download::new();
    fs::write(download.target(), &content()[..100]).unwrap();
    assert_eq!(download.fetch(&server.url("/a"), &checksum_of(&content())).unwrap(), content());
    assert_eq!(header(&server.requests()[0], "range"), Some("bytes=100-"));
    assert_eq!(server.count(), 1);

    fs::write(download.target(), b"of another file").unwrap();
    assert_eq!(download.fetch(&server.url("/a"), &checksum_of(&content())).unwrap(), content());
    assert_eq!(server.count(), 3, "once from the middle, once from the start");
    assert_eq!(header(&server.requests()[2], "range"), None);

    assert_eq!(download.fetch(&server.url("/a"), &checksum_of(&content())).unwrap(), content());
    assert_eq!(server.count(), 3, "all was there");
}

#[test]
fn a_server_that_cannot_resume_sends_all_again() {
    for status in ["200 OK", "416 Range Not Satisfiable"] {
        let server = Server::new(move |request, _, out| match header(request, "range") {
            Some(_) if status.starts_with("416") => say(out, status, &["Content-Range: bytes */5"], b""),
            _ => say(out, "200 OK", &[], b"hello"),
        });
        let download = Download::new();
        fs::write(download.target(), b"something longer").unwrap();
        assert_eq!(download.fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap(), b"hello");
    }
}

#[test]
fn a_server_that_always_cuts_off_is_given_up_and_what_came_is_kept_for_later() {
    let server = Server::new(|request, _, out| in_parts(request, out, &content(), 1000));
    let download = Download::new();
    let refusal = download.fetch(&server.url("/a"), &checksum_of(&content())).unwrap_err();
    assert!(refusal.ends_with(": the server cut the transfer off (tried 4 times)"), "{refusal}");
    assert_eq!(fs::read(download.target()).unwrap(), &content()[..4000]);
}

#[test]
fn a_wrong_checksum_is_named_with_the_right_one_and_nothing_is_left() {
    let server = Server::new(|_, _, out| say(out, "200 OK", &[], b"hello"));
    let download = Download::new();
    let refusal = download.fetch(&server.url("/a"), &checksum_of(b"other")).unwrap_err();
    let (found, expected) = (checksum_of(b"hello"), checksum_of(b"other"));
    let reason = format!("the file has the checksum {found} instead of {expected}");
    assert_eq!(refusal, format!("cannot download {}: {reason}", server.url("/a")));
    assert_eq!(server.count(), 1);
    assert!(!download.target().exists());
}

#[test]
fn a_host_that_takes_no_connection_is_tried_again() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refusal = Download::new().fetch(&format!("http://{address}/a"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.ends_with("Connection refused (os error 111) (tried 4 times)"), "{refusal}");
}

#[test]
fn an_interrupted_download_ends_at_once() {
    let server = Server::new(|_, _, _| sleep(Duration::from_secs(20)));
    let mut download = Download::new();
    download.downloader.patience.stall = Duration::from_secs(20);
    let ended = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            sleep(Duration::from_millis(100));
            ended.store(true, Ordering::Relaxed);
        });
        let interrupted = || ended.load(Ordering::Relaxed);
        let refusal = download.fetch_unless(&server.url("/a"), &checksum_of(b"hello"), &interrupted).unwrap_err();
        assert_eq!(refusal, "interrupted");
    });
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn connections_are_kept_for_the_next_download() {
    let connections = Arc::new(Mutex::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::clone(&connections));
    thread::spawn(move || {
        for stream in listener.incoming() {
            *count.lock().unwrap() += 1;
            keep_answering(stream.unwrap());
        }
    });
    let download = Download::new();
    for path in ["a", "b", "c"] {
        fs::remove_file(download.target()).ok();
        download.fetch(&format!("http://{address}/{path}"), &checksum_of(b"hello")).unwrap();
    }
    assert_eq!(*connections.lock().unwrap(), 1);
}

/// Answers all requests of a connection.
fn keep_answering(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line.trim_end().is_empty() {
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        }
        line.clear();
    }
}
