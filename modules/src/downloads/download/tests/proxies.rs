//! Downloads through proxies.

use super::*;

fn through(proxy: &Server, exceptions: &str) -> BTreeMap<String, String> {
    let variables = [
        ("http_proxy", format!("http://me:pass@{}", proxy.address)),
        ("https_proxy", format!("http://me:pass@{}", proxy.address)),
        ("no_proxy", exceptions.to_owned()),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[test]
fn a_plain_request_goes_to_the_proxy_with_the_whole_url() {
    let proxy = Server::new(|_, _, out| say(out, "200 OK", &[], b"hello"));
    let download = Download { environment: through(&proxy, ""), ..Download::new() };
    assert_eq!(download.fetch("http://nowhere.test:8080/a b?c", &checksum_of(b"hello")).unwrap(), b"hello");
    let request = &proxy.requests()[0];
    assert_eq!(request[0], "GET http://nowhere.test:8080/a%20b?c HTTP/1.1");
    assert_eq!(header(request, "host"), Some("nowhere.test:8080"));
    assert_eq!(header(request, "proxy-authorization"), Some("Basic bWU6cGFzcw=="));
}

#[test]
fn a_request_that_is_to_be_secret_asks_the_proxy_for_a_tunnel() {
    let proxy = Server::new(|_, _, out| say(out, "403 Forbidden", &[], b""));
    let download = Download { environment: through(&proxy, ""), ..Download::new() };
    let refusal = download.fetch("https://nowhere.test/a", &checksum_of(b"hello")).unwrap_err();
    let way = format!("(through the proxy http://{})", proxy.address);
    assert_eq!(refusal, format!("cannot download https://nowhere.test/a: the proxy server responded 403 {way}"));
    assert_eq!(proxy.requests()[0][0], "CONNECT nowhere.test:443 HTTP/1.1");
    assert_eq!(header(&proxy.requests()[0], "proxy-authorization"), Some("Basic bWU6cGFzcw=="));
    assert_eq!(proxy.count(), 1);
}

#[test]
fn an_exception_goes_past_the_proxy() {
    let proxy = Server::new(|_, _, out| say(out, "403 Forbidden", &[], b""));
    let server = Server::new(|_, _, out| say(out, "200 OK", &[], b"hello"));
    let download = Download { environment: through(&proxy, "127.0.0.1"), ..Download::new() };
    assert_eq!(download.fetch(&server.url("/a"), &checksum_of(b"hello")).unwrap(), b"hello");
    assert_eq!((proxy.count(), server.count()), (0, 1));
    assert_eq!(server.requests()[0][0], "GET /a HTTP/1.1");
}

#[test]
fn a_proxy_that_fails_is_named_without_its_password() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let environment = BTreeMap::from([("ALL_PROXY".to_owned(), format!("me:pass@{gone}"))]);
    let download = Download { environment, ..Download::new() };
    let refusal = download.fetch("http://nowhere.test/a", &checksum_of(b"hello")).unwrap_err();
    assert!(
        refusal.contains(&format!("Connection refused (os error 111) (through the proxy http://{gone})")),
        "{refusal}"
    );
    let proxy = Server::new(|_, _, out| say(out, "407 Proxy Authentication Required", &[], b""));
    let download = Download { environment: through(&proxy, ""), ..Download::new() };
    let refusal = download.fetch("http://nowhere.test/a", &checksum_of(b"hello")).unwrap_err();
    let reason = "the server answered 407 Proxy Authentication Required";
    let way = format!("(through the proxy http://{})", proxy.address);
    assert_eq!(refusal, format!("cannot download http://nowhere.test/a: {reason} {way}"));
    assert_eq!(proxy.count(), 1);
}
