//! Proxies for downloads: which one, by curl's rules, and how a plain `http` request goes through one.
//!
//! The HTTP library asks every proxy for a tunnel (`CONNECT`), which most grant to port 443 alone. [`Forward`] makes
//! plain requests of plain requests instead: the proxy gets the whole URL.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use osbc_module_api::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Proxy, ProxyProtocol};

/// The proxy for URLs of a scheme, by the environment: osbuild's own variable, else those that curl knows.
pub(crate) fn choose(scheme: &str, environment: &BTreeMap<String, String>) -> Result<Option<Proxy>, Error> {
    let names: &[&str] = match scheme {
        // Not `HTTP_PROXY`, which a web server may have set from a request.
        "http" => &["OSBUILD_SOURCES_CURL_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"],
        _ => &["OSBUILD_SOURCES_CURL_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let Some((name, url)) = first(environment, names) else { return Ok(None) };
    let proxy = Proxy::new(url).map_err(|_| Error::failed(format!("the value of {name} is not a proxy's URL")))?;
    let exceptions = first(environment, &["no_proxy", "NO_PROXY"]).map_or("", |(_, list)| list);
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(user) = proxy.username() {
        builder = builder.username(user);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for exception in exceptions.split([',', ' ']).filter(|exception| !exception.is_empty()) {
        // A name stands for itself and all below it, with a leading dot or without.
        let name = exception.trim_start_matches('.');
        builder = builder.no_proxy(name);
        if name != "*" {
            builder = builder.no_proxy(&format!(".{name}"));
        }
    }
    builder.build().map(Some).map_err(|_| Error::failed(format!("the value of {name} is not a proxy's URL")))
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
        let Some(authority) = authority.filter(|_| !proxy.is_no_proxy(details.uri)) else { return Ok(None) };
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

    fn chosen(scheme: &str, variables: &[(&str, &str)]) -> Option<Proxy> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        choose(scheme, &environment).unwrap()
    }

    #[test]
    fn osbuilds_variable_wins_over_the_schemes_and_those_over_the_one_for_all() {
        let all = [
            ("OSBUILD_SOURCES_CURL_PROXY", "http://own:1"),
            ("http_proxy", "http://plain:2"),
            ("HTTPS_PROXY", "secure:3"),
            ("ALL_PROXY", "socks5://any:4"),
        ];
        let host = |scheme, variables: &[_]| chosen(scheme, variables).map(|proxy| proxy.host().to_owned());
        assert_eq!(host("http", &all).unwrap(), "own");
        assert_eq!(host("http", &all[1..]).unwrap(), "plain");
        assert_eq!(host("https", &all[1..]).unwrap(), "secure");
        assert_eq!(host("http", &all[2..]).unwrap(), "any");
        assert_eq!(host("http", &[("HTTP_PROXY", "http://cgi:1"), ("http_proxy", "")]), None);
    }

    #[test]
    fn exceptions_hold_for_a_name_and_all_below_it() {
        let proxy = chosen("http", &[("http_proxy", "http://u:p%40ss@p:1"), ("no_proxy", "a.test, .b.test,127.0.0.1")]);
        let proxy = proxy.unwrap();
        let direct = |url: &str| proxy.is_no_proxy(&url.parse().unwrap());
        for url in ["http://a.test/x", "http://sub.a.test", "http://b.test", "http://c.b.test:80/", "http://127.0.0.1/"]
        {
            assert!(direct(url), "{url}");
        }
        for url in ["http://aa.test", "http://a.test.other", "http://127.0.0.2"] {
            assert!(!direct(url), "{url}");
        }
        assert_eq!((proxy.username(), proxy.password()), (Some("u"), Some("p@ss")));
        let none = chosen("http", &[("http_proxy", "http://p"), ("NO_PROXY", "*")]).unwrap();
        assert!(none.is_no_proxy(&"http://any.test".parse().unwrap()));
    }

    #[test]
    fn what_is_no_proxy_is_refused_by_the_variables_name() {
        let environment = BTreeMap::from([("http_proxy".to_owned(), "gopher://p".to_owned())]);
        let refusal = choose("http", &environment).unwrap_err().to_string();
        assert_eq!(refusal, "the value of http_proxy is not a proxy's URL");
    }

    #[test]
    fn a_request_is_completed_once_at_its_start() {
        let request = b"GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n";
        let done = complete(request, "http://h:8080", "X: y\r\n").unwrap();
        assert_eq!(done, b"GET http://h:8080/a?b HTTP/1.1\r\nX: y\r\nhost: h\r\n\r\n");
        assert_eq!(complete(b"accept: */*\r\n\r\n", "http://h", ""), None);
    }
}
