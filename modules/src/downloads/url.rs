//! URLs as manifests give them: made fit for a request, and fit to be shown.

use osbc_ir::redact;
use osbc_module_api::Error;

/// The parts of a URL that matter to a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    /// In lower case.
    pub(crate) scheme: String,
    /// `user:password`, where the URL holds one.
    pub(crate) user: Option<&'a str>,
    /// Host and port.
    pub(crate) host: &'a str,
    /// The path, as it stands there.
    pub(crate) path: &'a str,
    /// What follows the path: `;` parameters of its last component and the query, with their marks.
    pub(crate) rest: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a URL apart.
    pub(crate) fn parse(url: &'a str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            let whole = format!("http://{url}");
            let shown = redact::url(&whole);
            let shown = shown.strip_prefix("http://").unwrap_or_default();
            Error::failed(format!("`{shown}` is not a URL; it begins with http://, https:// or file://"))
        })?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let address = host.rfind(']').map_or(host, |end| &host[end..]);
        if let Some((_, port)) = address.split_once(':')
            && !(port.is_empty() || port.parse::<u16>().is_ok())
        {
            let shown = redact::url(url);
            return Err(Error::failed(format!("{shown} is not a URL: what follows the `:` of its host is no port")));
        }
        let query = rest.find('?').unwrap_or(rest.len());
        let last = rest[..query].rfind('/').unwrap_or(0);
        let end = rest[last..query].find(';').map_or(query, |parameters| last + parameters);
        let (path, rest) = rest.split_at(end);
        Ok(Self { scheme: scheme.to_ascii_lowercase(), user, host, path, rest })
    }

    /// What to ask for.
    ///
    /// As in osbuild the path is quoted whatever it holds: `%` too, so that a manifest gives paths as they are. In a
    /// query only what cannot be sent is quoted.
    pub(crate) fn request(&self) -> String {
        let mut request = format!("{}://{}", self.scheme, self.host);
        quote(&mut request, without_dots(self.path).as_bytes(), |byte| {
            byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte)
        });
        quote(&mut request, self.rest.as_bytes(), |byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
        request
    }

    /// The host, an address without its brackets, and the port.
    pub(crate) fn address(&self) -> (String, u16) {
        let usual = if self.scheme == "https" { 443 } else { 80 };
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(usual)),
            _ => (self.host, usual),
        };
        (host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(), port)
    }

    /// For people to see: without what may be secret.
    pub(crate) fn display(&self) -> String {
        redact::url(&format!("{}://{}{}{}", self.scheme, self.host, self.path, self.rest)).into_owned()
    }
}

/// Appends a text, with codes for the bytes that are not kept.
pub(crate) fn quote(out: &mut String, text: &[u8], keep: impl Fn(u8) -> bool) {
    for byte in text {
        if keep(*byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// A path without `.` and `..`, as RFC 3986 takes them out.
pub(crate) fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part {
            "." => {}
            ".." if kept.len() > 1 => drop(kept.pop()),
            ".." => {}
            part => {
                kept.push(part);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    kept.join("/")
}

/// Text in which `%XX` stands for a byte.
pub(crate) fn unquote(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')));
        out.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> String {
        Url::parse(url).unwrap().request()
    }

    #[test]
    fn the_path_is_quoted_as_osbuild_does_it() {
        assert_eq!(request("http://h/plain_1.0~a-b"), "http://h/plain_1.0~a-b");
        assert_eq!(request("http://h/a b/c++:@é"), "http://h/a%20b/c%2B%2B%3A%40%C3%A9");
        assert_eq!(request("http://h/a%20b"), "http://h/a%2520b");
        assert_eq!(request("HTTP://h:80"), "http://h:80");
        assert_eq!(request("http://h/a/../b/./c/.."), "http://h/b/");
    }

    #[test]
    fn parameters_and_query_are_left_as_they_are_where_they_can_be_sent() {
        assert_eq!(request("http://h/a;v=1+?q=%20&r=a b#part"), "http://h/a;v=1+?q=%20&r=a%20b");
        assert_eq!(request("http://h/a;b/c"), "http://h/a%3Bb/c");
        assert_eq!(request("http://h?q=/;"), "http://h?q=/;");
    }

    #[test]
    fn user_and_password_are_taken_out_of_what_is_sent_and_shown() {
        let url = Url::parse("https://me:secret@h:8443/a").unwrap();
        assert_eq!((url.user, url.host), (Some("me:secret"), "h:8443"));
        assert_eq!(url.request(), "https://h:8443/a");
        assert_eq!(url.display(), "https://h:8443/a");
        assert_eq!(Url::parse("HTTP://h/a b?token=1&d").unwrap().display(), "http://h/a b?token=***&***");
    }

    #[test]
    fn what_is_no_url_is_refused_by_name() {
        let refusal = Url::parse("me:pass@example.com/a").unwrap_err().to_string();
        assert_eq!(refusal, "`example.com/a` is not a URL; it begins with http://, https:// or file://");
    }

    #[test]
    fn dots_lead_nowhere_above_the_root() {
        for (path, without) in [
            ("/a/b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("", ""),
            ("/a..b//c", "/a..b//c"),
        ] {
            assert_eq!(without_dots(path), without, "{path}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let address = |url: &str| Url::parse(url).unwrap().address();
        assert_eq!(address("https://A.test/os"), ("a.test".to_owned(), 443));
        assert_eq!(address("http://u:p@a.test:8080"), ("a.test".to_owned(), 8080));
        assert_eq!(address("http://[::1]/"), ("::1".to_owned(), 80));
        assert_eq!(address("http://[::1]:81/"), ("::1".to_owned(), 81));
    }

    #[test]
    fn a_password_with_a_slash_is_no_port_and_not_shown() {
        let refusal = Url::parse("http://me:pa/ss@h/a").unwrap_err().to_string();
        assert_eq!(refusal, "http://h/a is not a URL: what follows the `:` of its host is no port");
        assert!(Url::parse("http://[::1]:70000/").is_err());
        assert!(Url::parse("http://h:/").is_ok());
    }

    #[test]
    fn quoted_bytes_are_read_back() {
        assert_eq!(unquote("a%20b%C3%A9"), "a bé".as_bytes());
        assert_eq!(unquote("100%, %+1 %zz %4"), b"100%, %+1 %zz %4");
    }
}
