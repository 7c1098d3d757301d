//! What a request asks for: first what a manifest names, then where redirections lead, taken as curl takes them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::downloads::url::{Url, quote, unquote, without_dots};

/// What a request asks for, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The URL as it is sent, without user information.
    pub(super) url: String,
    /// Who asks, as the value of a header.
    pub(super) authorization: Option<String>,
}

impl Target {
    /// What a manifest names.
    pub(crate) fn first(url: &Url<'_>) -> Self {
        Self { url: url.request(), authorization: url.user.map(basic) }
    }

    /// Returns where a redirection from here leads, or why it is not followed.
    pub(crate) fn follow(&self, location: &[u8]) -> Result<Self, String> {
        let location = location.trim_ascii();
        let mut fit = String::new();
        quote(&mut fit, location, |byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
        let no_url = || "the server's redirection leads to no URL".to_owned();
        if location.is_empty() || location.iter().any(u8::is_ascii_control) {
            return Err(no_url());
        }
        let from = Url::parse(&self.url).map_err(|_| no_url())?;
        let origin = format!("{}://{}", from.scheme, from.host);
        let whole = match fit.as_bytes() {
            _ if has_scheme(&fit) => fit,
            [b'/', b'/', ..] => format!("{}:{fit}", from.scheme),
            [b'/', ..] => format!("{origin}{fit}"),
            [b'?', ..] => format!("{}{fit}", self.url.split('?').next().unwrap_or_default()),
            [b'#', ..] => self.url.clone(),
            _ => format!("{origin}{}/{fit}", from.path.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        let to = Url::parse(&whole).map_err(|_| no_url())?;
        if !matches!(to.scheme.as_str(), "http" | "https") || to.host.is_empty() {
            return Err(format!("the server's redirection leads to {}, which is not of http or https", to.display()));
        }
        if from.scheme == "https" && to.scheme == "http" {
            return Err(format!(
                "the server's redirection leads from https to {}, which anybody on the way could change",
                to.display()
            ));
        }
        let same_place = (&from.scheme, from.address()) == (&to.scheme, to.address());
        let authorization = to.user.map(basic).or_else(|| self.authorization.clone().filter(|_| same_place));
        let url = format!("{}://{}{}{}", to.scheme, to.host, without_dots(to.path), to.rest);
        Ok(Self { url, authorization })
    }
}

fn basic(user: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(unquote(user)))
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            && scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(from: &str, location: impl AsRef<[u8]>) -> Result<String, String> {
        Target::first(&Url::parse(from).unwrap()).follow(location.as_ref()).map(|target| target.url)
    }

    #[test]
    fn redirections_are_taken_as_curl_takes_them() {
        for (location, to) in [
            ("/x", "http://h:1/x"),
            ("x", "http://h:1/a/x"),
            ("../x/./y", "http://h:1/x/y"),
            ("/a/../../x", "http://h:1/x"),
            ("?q", "http://h:1/a/b?q"),
            ("//i/x", "http://i/x"),
            ("https://i/x?y=%20#z", "https://i/x?y=%20"),
            (" \t/with space ", "http://h:1/with%20space"),
            ("/é", "http://h:1/%C3%A9"),
            ("HTTP://u:p@i/", "http://i/"),
        ] {
            assert_eq!(followed("http://h:1/a/b?c", location).unwrap(), to, "{location}");
        }
        assert_eq!(followed("http://h", b"/caf\xe9").unwrap(), "http://h/caf%E9");
    }

    #[test]
    fn what_is_not_followed_is_said_without_its_secrets() {
        let refused = followed("http://h/", "file:///etc/passwd").unwrap_err();
        assert_eq!(refused, "the server's redirection leads to file:///etc/passwd, which is not of http or https");
        let refused = followed("https://h/", "http://u:p@i/?token=1").unwrap_err();
        assert!(refused.starts_with("the server's redirection leads from https to http://i/?token=***,"), "{refused}");
        for location in ["", "/a\u{1b}[2J", "javascript:x"] {
            assert_eq!(followed("http://h/", location).unwrap_err(), "the server's redirection leads to no URL");
        }
    }

    #[test]
    fn who_asks_is_sent_to_the_same_place_alone() {
        let from = Target::first(&Url::parse("http://me:p%40ss@h/a").unwrap());
        assert_eq!(from.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        let sent = |location: &str| from.follow(location.as_bytes()).unwrap().authorization;
        assert_eq!(sent("/b"), from.authorization);
        assert_eq!(sent("http://H:80/b"), from.authorization);
        for elsewhere in ["http://h:81/b", "https://h/b", "http://i/b"] {
            assert_eq!(sent(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(sent("http://i:j@k/").as_deref(), Some("Basic aTpq"));
    }
}
