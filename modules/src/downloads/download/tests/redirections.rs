//! Where servers redirect to, and where they may not.

use super::*;

#[test]
fn redirections_are_followed_and_passwords_sent_to_the_first_host_alone() {
    let server = Server::new(|_, _, out| say(out, "200 OK", &[], b"hello"));
    let elsewhere = server.url("/there");
    let first = Server::new(move |_, _, out| say(out, "302 Found", &[&format!("Location: {elsewhere}")], b""));
    let url = first.url("/here").replace("://", "://me:pass@");
    assert_eq!(Download::new().fetch(&url, &checksum_of(b"hello")).unwrap(), b"hello");
    assert_eq!(header(&first.requests()[0], "authorization"), Some("Basic bWU6cGFzcw=="));
    assert_eq!(server.requests()[0][0], "GET /there HTTP/1.1");
    assert_eq!(header(&server.requests()[0], "authorization"), None);
}

#[test]
fn redirections_with_blanks_and_raw_bytes_are_followed_and_at_most_50() {
    let server = Server::new(|request, number, out| match request[0].split(' ').nth(1).unwrap() {
        "/start" => say(out, "302 Found", &["Location:   with space/é?a=b c \t"], b"moved"),
        "/with%20space/%C3%A9?a=b%20c" => say(out, "308 Permanent Redirect", &["Location: ../caf%e9"], b""),
        "/caf%e9" => say(out, "200 OK", &[], b"hello"),
        _ => say(out, "302 Found", &[&format!("Location: /{number}")], b""),
    });
    assert_eq!(Download::new().fetch(&server.url("/start"), &checksum_of(b"hello")).unwrap(), b"hello");
    assert_eq!(server.count(), 3);
    let refusal = Download::new().fetch(&server.url("/for/ever"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.ends_with(": the server redirects more than 50 times"), "{refusal}");
    assert_eq!(server.count(), 3 + 51);
}

#[test]
fn a_redirection_that_is_not_followed_is_tried_once_and_shown_without_secrets() {
    for (location, shown) in [
        ("file:///etc/passwd", "leads to file:///etc/passwd, which is not of http or https"),
        ("gopher://u:p@h/?token=1", "leads to gopher://h/?token=***, which is not of http or https"),
    ] {
        let server = Server::new(move |_, _, out| say(out, "302 Found", &[&format!("Location: {location}")], b""));
        let refusal = Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
        assert!(refusal.ends_with(&format!("the server's redirection {shown}")), "{refusal:?}");
        assert_eq!(server.count(), 1, "{location:?}");
    }
}

#[test]
fn behind_a_redirection_that_stays_a_wrong_checksum_is_tried_twice() {
    let broken = Server::new(|_, _, out| say(out, "200 OK", &[], b"broken"));
    let there = broken.url("/a?token=1");
    let server = Server::new(move |_, _, out| say(out, "302 Found", &[&format!("Location: {there}")], b""));
    let refusal = Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap_err();
    assert!(refusal.ends_with(&format!(", got from {} (tried 2 times)", broken.url("/a?token=***"))), "{refusal}");
    assert_eq!(server.count(), 2);
}

#[test]
fn behind_a_redirection_a_wrong_checksum_is_worth_another_try() {
    let broken = Server::new(|_, _, out| say(out, "200 OK", &[], b"broken"));
    let right = Server::new(|_, _, out| say(out, "200 OK", &[], b"hello"));
    let mirrors = [broken.url("/a"), right.url("/a")];
    let server = Server::new(move |_, number, out| {
        say(out, "302 Found", &[&format!("Location: {}", mirrors[(number - 1).min(1)])], b"");
    });
    assert_eq!(Download::new().fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap(), b"hello");
    assert_eq!(server.count(), 2);
}
