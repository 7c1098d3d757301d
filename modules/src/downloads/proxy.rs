//! Proxies for downloads: which one, by curl's rules, and how a plain `http` request goes through one.
//!
//! The HTTP library asks every proxy for a tunnel (`CONNECT`), which most grant to port 443 alone. [`Forward`] makes
//! plain requests of plain requests instead: the proxy gets the whole URL.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use osbc_module_api::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Proxy, ProxyProtocol};

use crate::downloads::url::{Url, unquote};

/// Returns the proxy for a URL, by the environment: osbuild's own variable, else those that curl knows.
///
/// `None` if there is none, or the URL is an exception of theirs.
///
/// # Errors
/// The value of the variable that counts is no proxy's URL.
pub(crate) fn choose(url: &Url<'_>, environment: &BTreeMap<String, String>) -> Result<Option<Proxy>, Error> {
    let names: &[&str] = match url.scheme.as_str() {
        // Not `HTTP_PROXY`, which a web server may have set from a request.
        "http" => &["OSBUILD_SOURCES_CURL_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"],
        _ => &["OSBUILD_SOURCES_CURL_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let Some((name, value)) = first(environment, names) else { return Ok(None) };
    let exceptions = first(environment, &["no_proxy", "NO_PROXY"]).map_or("", |(_, list)| list);
    let (host, port) = url.address();
    if exceptions.split([',', ' ', '\t']).any(|exception| is_exception(exception, &host, port)) {
        return Ok(None);
    }
    let no_url =
        || Error::failed(format!("the value of {name} is not a proxy's URL; it is like http://proxy.test:3128"));
    parse(value).map(Some).ok_or_else(no_url)
}

/// Returns the name of a proxy, for people.
pub(crate) fn name(proxy: &Proxy) -> String {
    format!("{}://{}:{}", proxy.protocol().to_string().to_ascii_lowercase(), proxy.host(), proxy.port())
}

/// A proxy as curl reads one: `http` if there is no scheme, 1080 if there is no port.
fn parse(value: &str) -> Option<Proxy> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let protocol = match scheme.to_ascii_lowercase().as_str() {
        "http" => ProxyProtocol::Http,
        "https" => ProxyProtocol::Https,
        "socks" | "socks4" => ProxyProtocol::Socks4,
        "socks4a" => ProxyProtocol::Socks4A,
        "socks5" => ProxyProtocol::Socks5,
        "socks5h" => ProxyProtocol::Socks5h,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
    let usual = if protocol == ProxyProtocol::Https { 443 } else { 1080 };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (place, usual),
    };
    if host.is_empty() {
        return None;
    }
    let mut builder = Proxy::builder(protocol).host(host).port(port);
    if let Some(user) = user {
        let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
        builder = builder.username(&String::from_utf8(unquote(user)).ok()?);
        if let Some(password) = password {
            builder = builder.password(&String::from_utf8(unquote(password)).ok()?);
        }
    }
    builder.build().ok()
}

/// Whether an exception of `no_proxy` is about a host: `*` is about all, a network about the addresses in it, a name
/// about itself and all below it, with a leading dot or without.
///
/// A port behind it must be the same.
fn is_exception(exception: &str, host: &str, port: u16) -> bool {
    let own = host.parse::<IpAddr>().ok();
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    if let (Some((network, bits)), Some(own)) = (exception.split_once('/'), own) {
        return bare(network).zip(bits.parse().ok()).is_some_and(|(network, bits)| is_within(own, network, bits));
    }
    if let Some(address) = bare(exception) {
        return own == Some(address);
    }
    let (name, only) = match exception.rsplit_once(':').map(|(name, only)| (name, only.parse::<u16>())) {
        Some((name, Ok(only))) => (name, Some(only)),
        _ => (exception, None),
    };
    if only.is_some_and(|only| only != port) {
        return false;
    }
    let name = name.trim_matches('.').to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    match own {
        Some(own) if name != "*" => bare(&name) == Some(own),
        _ => name == "*" || !name.is_empty() && (host == name || host.ends_with(&format!(".{name}"))),
    }
}

/// Whether the first `bits` of two addresses are the same.
fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            (address.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            (address.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// The first of these variables that is set to something.
fn first<'a>(environment: &'a BTreeMap<String, String>, names: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let value = |name: &&'a str| Some((*name, environment.get(*name)?.as_str()));
    names.iter().filter_map(value).find(|(_, value)| !value.is_empty())
}

/// Connects `http` requests that go through an HTTP proxy to that one.
#[derive(Debug)]
pub(crate) struct Forward {
    /// The settings for the connection to the proxy itself: the usual ones without the proxy.
    pub(crate) direct: Config,
}

impl Connector<()> for Forward {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(proxy) = details.config.proxy() else { return Ok(None) };
        let speaks_http = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
        let authority = details.uri.authority().filter(|_| speaks_http && details.uri.scheme_str() == Some("http"));
        let Some(authority) = authority else { return Ok(None) };
        let to_proxy = ConnectionDetails {
            uri: proxy.uri(),
            addrs: details.resolver.resolve(proxy.uri(), &self.direct, details.timeout)?,
            config: &self.direct,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let transport = (details.run_connector)(&to_proxy)?;
        let credentials = proxy.username().map(|user| {
            let credentials = BASE64_STANDARD.encode(format!("{user}:{}", proxy.password().unwrap_or_default()));
            format!("Proxy-Authorization: Basic {credentials}\r\n")
        });
        let origin = format!("http://{authority}");
        Ok(Some(Box::new(Forwarded { transport, origin, header: credentials.unwrap_or_default() })))
    }
}

/// A connection to a proxy on which every request is completed by what the proxy must know.
#[derive(Debug)]
struct Forwarded {
    transport: Box<dyn Transport>,
    /// Scheme and host of the requests.
    origin: String,
    /// Who asks, as a header, or nothing.
    header: String,
}

impl Transport for Forwarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.transport.buffers().output();
        let Some(request) = complete(&output[..amount], &self.origin, &self.header) else {
            return self.transport.transmit_output(amount, timeout);
        };
        let place = output.get_mut(..request.len()).ok_or(ureq::Error::LargeResponseHeader(request.len(), amount))?;
        place.copy_from_slice(&request);
        self.transport.transmit_output(request.len(), timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.transport.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }
}

/// The request with the whole URL and the header; nothing where this is not the start of a request.
fn complete(request: &[u8], origin: &str, header: &str) -> Option<Vec<u8>> {
    let target = request.strip_prefix(b"GET ")?;
    let line_end = target.windows(2).position(|pair| pair == b"\r\n")? + 2;
    Some([b"GET ", origin.as_bytes(), &target[..line_end], header.as_bytes(), &target[line_end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        choose(&Url::parse(url).unwrap(), &environment).unwrap().map(|proxy| name(&proxy))
    }

    #[test]
    fn osbuilds_variable_wins_over_the_schemes_and_those_over_the_one_for_all() {
        let all = [
            ("OSBUILD_SOURCES_CURL_PROXY", "http://own:1"),
            ("http_proxy", "http://plain:2"),
            ("HTTPS_PROXY", "secure:3"),
            ("ALL_PROXY", "socks5://any:4"),
        ];
        assert_eq!(chosen("http://h", &all).unwrap(), "http://own:1");
        assert_eq!(chosen("http://h", &all[1..]).unwrap(), "http://plain:2");
        assert_eq!(chosen("https://h", &all[1..]).unwrap(), "http://secure:3");
        assert_eq!(chosen("http://h", &all[2..]).unwrap(), "socks5://any:4");
        assert_eq!(chosen("http://h", &[("HTTP_PROXY", "http://cgi:1"), ("http_proxy", "")]), None);
    }

    #[test]
    fn proxies_are_read_as_curl_reads_them() {
        for (value, read) in [
            ("proxy.test", "http://proxy.test:1080"),
            ("proxy.test:3128/", "http://proxy.test:3128"),
            ("me:p%40ss@proxy.test:3128", "http://proxy.test:3128"),
            ("https://proxy.test", "https://proxy.test:443"),
            ("socks5h://[::1]:9", "socks5h://[::1]:9"),
            ("SOCKS://s", "socks4://s:1080"),
        ] {
            assert_eq!(parse(value).map(|proxy| name(&proxy)).as_deref(), Some(read), "{value}");
        }
        let proxy = parse("me:p%40s%3As@p").unwrap();
        assert_eq!((proxy.username(), proxy.password()), (Some("me"), Some("p@s:s")));
        for value in ["gopher://p", "http://", "http://p:port", "user@"] {
            assert!(parse(value).is_none(), "{value}");
        }
    }

    #[test]
    fn exceptions_hold_for_names_networks_and_ports() {
        let list = "a.test, .b.test,127.0.0.1\t10.0.0.0/8 [::1] fe80::/10 c.test:81 D.test. 192.168.1.1/33";
        let direct = |url: &str| chosen(url, &[("http_proxy", "p"), ("no_proxy", list)]).is_none();
        for url in [
            "http://a.test/x",
            "http://sub.A.test",
            "http://b.test",
            "http://c.b.test:80/",
            "http://127.0.0.1/",
            "http://10.1.2.3:8080",
            "http://[::1]:81/",
            "http://[FE80::1]/",
            "http://c.test:81",
            "http://d.test.",
        ] {
            assert!(direct(url), "{url}");
        }
        for url in [
            "http://aa.test",
            "http://a.test.other",
            "http://127.0.0.2",
            "http://11.0.0.1",
            "http://10.test",
            "http://[::2]/",
            "http://c.test",
            "http://192.168.1.1",
        ] {
            assert!(!direct(url), "{url}");
        }
        assert!(chosen("http://any.test", &[("http_proxy", "http://p"), ("NO_PROXY", "*")]).is_none());
        assert!(chosen("http://1.2.3.4", &[("http_proxy", "http://p"), ("NO_PROXY", "0.0.0.0/0")]).is_none());
    }

    #[test]
    fn what_is_no_proxy_is_refused_by_the_variables_name() {
        let environment = BTreeMap::from([("http_proxy".to_owned(), "gopher://me:pass@p".to_owned())]);
        let refusal = choose(&Url::parse("http://h").unwrap(), &environment).unwrap_err().to_string();
        assert_eq!(refusal, "the value of http_proxy is not a proxy's URL; it is like http://proxy.test:3128");
    }

    #[test]
    fn a_request_is_completed_once_at_its_start() {
        let request = b"GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n";
        let done = complete(request, "http://h:8080", "X: y\r\n").unwrap();
        assert_eq!(done, b"GET http://h:8080/a?b HTTP/1.1\r\nX: y\r\nhost: h\r\n\r\n");
        assert_eq!(complete(b"accept: */*\r\n\r\n", "http://h", ""), None);
    }
}
