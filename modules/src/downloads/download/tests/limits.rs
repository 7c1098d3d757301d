//! Servers that send too much, too slowly, or for ever.

use nix::mount::{MsFlags, mount};
use osbc_fixtures::has_root;

use super::*;
use crate::trees::bind::in_own_namespace;

#[test]
fn a_server_that_stalls_is_given_up_before_and_within_the_answer() {
    let before = Server::new(|_, _, _| sleep(Duration::from_secs(20)));
    let within = Server::new(|_, _, out| {
        say(out, "200 OK", &["Content-Length: 1000000"], b"some");
        sleep(Duration::from_secs(20));
    });
    let trickle = Server::new(|_, _, out| {
        say(out, "200 OK", &["Content-Length: 1000000"], b"");
        while out.write_all(b"x").is_ok() {
            sleep(Duration::from_millis(20));
        }
    });
    for server in [before, within, trickle] {
        let mut download = Download::new();
        download.downloader.patience.tries = 2;
        download.downloader.patience.stall = Duration::from_millis(400);
        let start = Instant::now();
        let refusal = download.fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
        assert!(refusal.contains(": the server stalled: "), "{refusal}");
        assert!(refusal.ends_with(" (tried 2 times)"), "{refusal}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn many_headers_are_taken_and_endless_ones_are_not() {
    let server = Server::new(|_, _, out| {
        let many: Vec<String> = (0..300).map(|number| format!("X-{number}: {}", "y".repeat(100))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        say(out, "200 OK", &many, b"hello");
    });
    assert_eq!(Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap(), b"hello");
    let after_hints = Server::new(|_, _, out| {
        out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").ok();
        say(out, "200 OK", &[], b"hello");
    });
    assert_eq!(Download::new().fetch(&after_hints.url("/a"), &checksum_of(b"hello")).unwrap(), b"hello");
    let endless: [&[u8]; 3] = [b"X-A: b\r\n", b"a", b"\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n"];
    for part in endless {
        let server = Server::new(move |_, _, out| {
            out.write_all(b"HTTP/1.1 100 Continue\r\n").ok();
            let part = part.repeat(100);
            while out.write_all(&part).is_ok() {}
        });
        let refusal = Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
        assert!(refusal.ends_with(": the server's headers are longer than 100 KiB"), "{refusal}");
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn what_no_retry_can_mend_is_tried_once() {
    let other = Server::new(|_, _, out| out.write_all(b"220 mail.example.org ready\r\n").unwrap());
    let refusal = Download::new().fetch(&other.url("/a"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.contains(": the server does not speak HTTP: "), "{refusal}");
    assert_eq!(other.count(), 1);
}

#[test]
fn headers_and_interim_answers_that_drip_are_given_up() {
    for part in ["X-A: b\r\n", "a", "\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n"] {
        let server = Server::new(move |_, _, out| {
            out.write_all(b"HTTP/1.1 100 Continue\r\n").ok();
            while out.write_all(part.as_bytes()).is_ok() {
                sleep(Duration::from_millis(20));
            }
        });
        let mut download = Download::new();
        download.downloader.patience.tries = 2;
        download.downloader.patience.stall = Duration::from_millis(400);
        let start = Instant::now();
        let refusal = download.fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
        let reason = "the server stalled: no whole head of an answer in 0.4 s (tried 2 times)";
        assert!(refusal.ends_with(reason), "{refusal}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn what_cannot_become_the_file_is_not_kept() {
    // As much as a file of unknown length may be is asked of the disk; a server that announces more than there is room
    // for is refused at once.
    let huge = Server::new(|_, _, out| say(out, "200 OK", &["Content-Length: 999999999999999999"], b"x"));
    let download = Download::new();
    let refusal = download.fetch(&huge.url("/a"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.contains(": 999999999999999999 bytes are missing of the file, and its disk has "), "{refusal}");
    assert_eq!((huge.count(), download.target().exists()), (1, false));

    // A body that ends with the connection, after as many bytes as nobody has announced.
    let cut = Server::new(|_, _, out| {
        let chunk = [b"3e8\r\n".to_vec(), vec![b'x'; 1000], b"\r\n".to_vec()].concat();
        out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .and_then(|()| out.write_all(&chunk))
            .ok();
    });
    let download = Download::new();
    let refusal = download.fetch(&cut.url("/a"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.ends_with(" (tried 4 times)"), "{refusal}");
    assert!(!download.target().exists());

    // More than was announced.
    let more = Server::new(|_, _, out| {
        let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/5\r\nTransfer-Encoding: chunked\r\n\r\n";
        out.write_all(format!("{head}6\r\nllo!!!\r\n0\r\n\r\n").as_bytes()).ok();
    });
    let download = Download::new();
    fs::write(download.target(), b"he").unwrap();
    let refusal = download.fetch(&more.url("/a"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.ends_with(": the server sends more than the 5 bytes that it has announced"), "{refusal}");
    assert!(!download.target().exists());
}

#[test]
fn a_body_without_end_leaves_room_on_the_disk_and_nothing_else() {
    if !has_root() {
        return;
    }
    let server = Server::new(|_, _, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
        while out.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let url = server.url("/a");
    in_own_namespace(|| {
        let download = Download::new();
        let (disk, size) = (Some("tmpfs"), Some("size=16m"));
        mount(disk, download.directory.path(), disk, MsFlags::empty(), size).unwrap();
        let refusal = download.fetch(&url, &checksum_of(b"hello")).unwrap_err();
        assert!(refusal.contains(": the file has no announced length, "), "{refusal}");
        assert!(!download.target().exists());

        // What is announced is taken as long as there is room, and dropped when others have filled the disk meanwhile.
        let server = Server::new(|_, _, out| {
            say(out, "200 OK", &["Content-Length: 15000000"], &[b'x'; 1000]);
            sleep(Duration::from_millis(300));
            out.write_all(&vec![b'x'; 15_000_000]).ok();
        });
        let other = download.directory.path().join("other");
        let progress = |_, _| {
            if !other.exists() {
                fs::write(&other, vec![0; 10_000_000]).unwrap();
            }
        };
        let context = SourceContext {
            options: &json!({}),
            target: &download.target(),
            shared: Path::new("/nowhere"),
            progress: &progress,
            interrupted: &|| false,
            environment: &BTreeMap::new(),
        };
        let url = server.url("/b");
        let fetched =
            download.downloader.fetch(&context, &Url::parse(&url).unwrap(), &download.access, &checksum_of(b"hello"));
        assert!(fetched.unwrap_err().to_string().contains("No space left on device"));
        assert!(!download.target().exists());
    });
    assert_eq!(server.count(), 1);
}
