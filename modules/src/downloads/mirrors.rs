//! Lists of mirrors of a package repository: reading them and putting them in order. Knows nothing of how they are
//! downloaded.

use std::cmp::Reverse;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use osbc_module_api::{Error, threads};

use crate::downloads::url::Url;

/// How many mirrors of a list are tried.
const MAX_MIRRORS: usize = 200;

/// How long a mirror may take to answer before it counts as the slowest.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The mirrors of a list with one URL a line.
///
/// # Errors
/// There are none.
pub(crate) fn of_list(text: &str) -> Result<Vec<String>, Error> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    some(lines.filter(|line| reachable(line)).map(str::to_owned).collect())
}

/// The mirrors of a metalink of a repository's index, the preferred ones first.
///
/// # Errors
/// It is malformed, or there are none.
pub(crate) fn of_metalink(text: &str) -> Result<Vec<String>, Error> {
    const INDEX: &str = "repodata/repomd.xml";
    let document = roxmltree::Document::parse(text)
        .map_err(|error| Error::failed(format!("the metalink is malformed: {error}")))?;
    let file = document
        .descendants()
        .find(|node| node.tag_name().name() == "file" && node.attribute("name") == Some("repomd.xml"))
        .ok_or_else(|| Error::failed("the metalink is not of a package repository"))?;
    let mut mirrors: Vec<(i64, String)> = file
        .descendants()
        .filter(|node| node.tag_name().name() == "url")
        .filter_map(|node| {
            let base = node.text()?.trim().strip_suffix(INDEX)?;
            let preference = node.attribute("preference").and_then(|text| text.parse().ok()).unwrap_or(0);
            reachable(base).then(|| (preference, base.to_owned()))
        })
        .collect();
    mirrors.sort_by_key(|(preference, _)| Reverse(*preference));
    some(mirrors.into_iter().map(|(_, mirror)| mirror).collect())
}

fn some(mirrors: Vec<String>) -> Result<Vec<String>, Error> {
    if mirrors.is_empty() { Err(Error::failed("the list of mirrors has none over HTTP")) } else { Ok(mirrors) }
}

fn reachable(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
}

/// The mirrors in the order in which they take connections; of many the first ones.
pub(crate) fn fastest_first(mut mirrors: Vec<String>) -> Vec<String> {
    mirrors.truncate(MAX_MIRRORS);
    let (sender, times) = mpsc::channel();
    for (index, mirror) in mirrors.iter().enumerate() {
        let (sender, place) = (sender.clone(), Url::parse(mirror).ok().map(|url| url.address()));
        let asked = threads::spawn(move || {
            let start = Instant::now();
            let connected = place.is_some_and(|place| connect(&place));
            // Nobody may be waiting any more.
            sender.send((index, connected.then(|| start.elapsed()))).ok();
        });
        if asked.is_err() {
            // The others keep their places behind those that were asked.
            break;
        }
    }
    drop(sender);
    let mut found = vec![Duration::MAX; mirrors.len()];
    let end = Instant::now() + TIMEOUT;
    while let Ok((index, time)) = times.recv_timeout(end.saturating_duration_since(Instant::now())) {
        found[index] = time.unwrap_or(Duration::MAX);
    }
    let mut order: Vec<(Duration, String)> = found.into_iter().zip(mirrors).collect();
    order.sort_by_key(|(time, _)| *time);
    order.into_iter().map(|(_, mirror)| mirror).collect()
}

fn connect(place: &(String, u16)) -> bool {
    let Ok(addresses) = place.to_socket_addrs() else { return false };
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, TIMEOUT).is_ok())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_list_has_one_mirror_a_line() {
        let list = "# repo = fedora\n\nhttps://a.test/os/\n ftp://b.test/os/\nhttp://c.test/os\n";
        assert_eq!(of_list(list).unwrap(), ["https://a.test/os/", "http://c.test/os"]);
        assert!(of_list("# none\nrsync://a.test/\n").is_err());
    }

    #[test]
    fn a_metalink_says_which_mirrors_it_prefers() {
        let metalink = r#"<?xml version="1.0"?>
            <metalink version="3.0" xmlns="http://www.metalinker.org/"><files><file name="repomd.xml"><resources>
              <url protocol="https" preference="90">https://b.test/os/repodata/repomd.xml</url>
              <url protocol="rsync" preference="100">rsync://b.test/os/repodata/repomd.xml</url>
              <url protocol="http" preference="100"> http://a.test/os/repodata/repomd.xml </url>
            </resources></file></files></metalink>"#;
        assert_eq!(of_metalink(metalink).unwrap(), ["http://a.test/os/", "https://b.test/os/"]);
        let least = metalink.replace("90", &i64::MIN.to_string());
        assert_eq!(of_metalink(&least).unwrap(), ["http://a.test/os/", "https://b.test/os/"]);
        for broken in ["", "<metalink/>", "<metalink><file name=\"repomd.xml\"/></metalink>"] {
            assert!(of_metalink(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_takes_no_connection_comes_last() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let up = format!("http://{}/os", listener.local_addr().unwrap());
        // Nothing listens where something listened a moment ago.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let down = format!("http://{gone}/os");
        assert_eq!(fastest_first(vec![down.clone(), up.clone()]), [up, down]);
    }
}
