//! Downloads packages from the mirrors of repositories.
//!
//! Each item is a package by its checksum: its `path` in the repository, and the `mirror` of the options that has it. A
//! `baseurl` is the repository itself; a `mirrorlist` or `metalink` is a list of its mirrors, which are tried in the
//! list's order, or with `fastest-mirror` in the order in which they take connections. `max-parallels` limits how many
//! packages come from a mirror at once. Nothing of the host is called.
//!
//! `secrets` are those of `org.osbuild.curl`. Proxies are found as curl does, or named by `OSBUILD_SOURCES_CURL_PROXY`.
//!
//! ```json
//! {
//!   "type": "org.osbuild.librepo",
//!   "items": {
//!     "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03": {
//!       "path": "Packages/b/bash-5.2-1.x86_64.rpm",
//!       "mirror": "base"
//!     }
//!   },
//!   "options": {
//!     "mirrors": { "base": { "url": "https://example.com/metalink?repo=base", "type": "metalink", "max-parallels": 4 } }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use osbc_module_api::*;

use crate::downloads::checksum::Checksum;
use crate::downloads::client_secrets::secrets;
use crate::downloads::download::{Access, DOWNLOADER, Downloader, Patience};
use crate::downloads::mirrors::{fastest_first, of_list, of_metalink};
use crate::downloads::url::{Url, unquote};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.librepo",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::version_2(schema()),
    rejects: &[
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"path": "a.rpm", "mirror": "m"}}}"#,
        r#"{"items": {"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709": {"path": "a.rpm"}}}"#,
        r#"{"items": {"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709": {"path": 1, "mirror": "m"}}}"#,
        r#"{"items": {}, "options": {}}"#,
        r#"{"items": {}, "options": {"mirrors": {"m": {"url": "u"}}}}"#,
        r#"{"items": {}, "options": {"mirrors": {"m": {"url": "u", "type": "rsync"}}}}"#,
        r#"{"items": {}, "options": {"mirrors": {"a b": {"url": "u", "type": "baseurl"}}}}"#,
        r#"{"items": {}, "options": {"mirrors": {"m": {"url": "u", "type": "baseurl", "max-parallels": "4"}}}}"#,
    ],
    parse: parse::<Description>,
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.files", size: |_| None, fetch }),
};

/// What there is besides these properties does not count, here and below. As in osbuild, what is no object at all is
/// refused when it is fetched.
fn schema() -> Value {
    let any_type = |mut schema: Value| {
        if let Some(schema) = schema.as_object_mut() {
            schema.shift_remove("type");
        }
        schema
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "items": {
                "description": "The packages by their checksums.",
                "type": "object",
                "additionalProperties": false,
                "patternProperties": {
                    "^(sha1|sha256|sha384|sha512):[0-9a-f]{40,128}$": any_type(options_schema::<Item>())
                }
            },
            "options": {
                "type": "object",
                "required": ["mirrors"],
                "properties": {
                    "mirrors": {
                        "description": "The repositories.",
                        "type": "object",
                        "additionalProperties": false,
                        "patternProperties": {"^[0-9a-zA-Z-._:]+$": any_type(options_schema::<Mirror>())}
                    }
                }
            }
        }
    })
}

#[derive(Deserialize)]
struct Description {
    #[serde(rename = "items", default)]
    _items: BTreeMap<String, Item>,
    #[serde(rename = "options")]
    _options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    mirrors: BTreeMap<String, Mirror>,
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    /// The package's path in the repository.
    path: String,
    /// The repository, by its name in the options.
    mirror: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    /// Where the repository or the list of its mirrors is.
    url: String,
    /// What is there.
    #[serde(rename = "type")]
    kind: MirrorKind,
    /// How many packages may come at once.
    #[schemars(with = "Option<f64>")]
    max_parallels: Option<u64>,
    /// Whether the mirror that answers first is asked first.
    #[serde(default)]
    fastest_mirror: bool,
    /// Whether to trust any server.
    #[serde(default)]
    insecure: bool,
    /// What the servers want to know of their client.
    secrets: Option<Provider>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum MirrorKind {
    Mirrorlist,
    Metalink,
    Baseurl,
}

#[derive(Deserialize, JsonSchema)]
struct Provider {
    /// Who provides the secrets: `org.osbuild.rhsm` or `org.osbuild.mtls`.
    name: String,
}

/// Less patient, for packages that another mirror has too.
static IMPATIENT: LazyLock<Downloader> =
    LazyLock::new(|| Downloader::new(Patience { tries: 2, ..Patience::default() }));

/// How often all mirrors are tried.
const ROUNDS: u32 = 2;

fn fetch(context: &SourceContext, checksum: &str, description: &Value) -> Result<(), Error> {
    let expected = Checksum::parse(checksum)?;
    let item = Item::deserialize(description).map_err(Error::Options)?;
    let options: Options = context.options()?;
    let mirror = options.mirrors.get(&item.mirror).ok_or_else(|| {
        Error::failed(format!("the mirror {} of {} is not among the options", item.mirror, item.path))
    })?;
    let secrets = mirror.secrets.as_ref().map(|provider| secrets(context, &provider.name, &mirror.url));
    let access = Access { insecure: mirror.insecure, secrets: secrets.transpose()? };
    let _turn = mirror.max_parallels.filter(|most| *most > 0).map(|most| Turn::take(context, &mirror.url, most));
    let _turn = _turn.transpose()?;
    let bases = bases(context, mirror, &access)?;
    let (downloader, rounds) = if bases.len() == 1 { (&DOWNLOADER, 1) } else { (&IMPATIENT, ROUNDS) };
    let mut last = None;
    for base in (0..rounds).flat_map(|_| &bases) {
        let url = package_url(base, &item.path);
        match downloader.fetch(context, &Url::parse(&url)?, &access, &expected) {
            Err(Error::Failed { reason }) => last = Some(reason),
            result => return result,
        }
    }
    Err(Error::failed(last.unwrap_or_else(|| format!("{} has no mirrors", item.mirror))))
}

/// Where a package is below a repository. Requests quote the path, so that it must not be quoted yet.
fn package_url(base: &str, path: &str) -> String {
    let (start, base_path) = match base.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (format!("{scheme}://{host}"), path)
        }
        None => (String::new(), base),
    };
    let base_path = String::from_utf8_lossy(&unquote(base_path)).into_owned();
    format!("{start}{}/{}", base_path.trim_end_matches('/'), path.trim_start_matches('/'))
}

/// The lists that were read in this run.
static LISTS: Mutex<BTreeMap<(String, bool), Vec<String>>> = Mutex::new(BTreeMap::new());

/// The places that have the repository, in the order in which they are tried.
fn bases(context: &SourceContext, mirror: &Mirror, access: &Access) -> Result<Vec<String>, Error> {
    if mirror.kind == MirrorKind::Baseurl {
        return Ok(vec![mirror.url.clone()]);
    }
    // Held while a list is read, so that the first of many packages reads it for all.
    let mut lists = lock(&LISTS);
    let key = (mirror.url.clone(), mirror.fastest_mirror);
    if let Some(known) = lists.get(&key) {
        return Ok(known.clone());
    }
    let text = DOWNLOADER.text(context, &Url::parse(&mirror.url)?, access)?;
    let mut list = if mirror.kind == MirrorKind::Metalink { of_metalink(&text)? } else { of_list(&text)? };
    if mirror.fastest_mirror {
        list = fastest_first(list);
    }
    lists.insert(key, list.clone());
    Ok(list)
}

/// How many packages come from each mirror at the moment.
static BUSY: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
static LESS_BUSY: Condvar = Condvar::new();

/// The right to take a package from a mirror, until it is dropped.
struct Turn(String);

impl Turn {
    /// Waits until fewer than `most` others have it.
    fn take(context: &SourceContext, mirror: &str, most: u64) -> Result<Self, Error> {
        let mut busy = lock(&BUSY);
        while busy.get(mirror).is_some_and(|count| *count >= most) {
            if (context.interrupted)() {
                return Err(Error::Interrupted);
            }
            let waited = LESS_BUSY.wait_timeout(busy, Duration::from_millis(100));
            busy = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *busy.entry(mirror.to_owned()).or_default() += 1;
        Ok(Self(mirror.to_owned()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = lock(&BUSY);
        if let Some(count) = busy.get_mut(&self.0) {
            *count -= 1;
        }
        LESS_BUSY.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    /// A server on loopback that answers every request by `answer`, from its path to a body; returns where it is.
    fn serve(answer: fn(&str, &str) -> Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let own = url.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, own) = (stream.unwrap(), own.clone());
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let first = lines.next().unwrap().unwrap();
                    let path = first.split(' ').nth(1).unwrap().to_owned();
                    for line in lines {
                        if line.unwrap().is_empty() {
                            break;
                        }
                    }
                    let (status, body) = match answer(&own, &path) {
                        Some(body) => ("200 OK", body),
                        None => ("404 Not Found", String::new()),
                    };
                    let length = body.len();
                    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                        .ok();
                });
            }
        });
        url
    }

    fn fetched(mirror: Value, path: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let context = SourceContext {
            options: &json!({"mirrors": {"m": mirror}}),
            target: &directory.path().join("item"),
            shared: directory.path(),
            progress: &|_, _| {},
            interrupted: &|| false,
            environment: &BTreeMap::new(),
        };
        let item = json!({"path": path, "mirror": "m", "note": "does not count"});
        fetch(&context, HELLO, &item).map_err(|error| error.to_string())?;
        Ok(fs::read_to_string(context.target).unwrap())
    }

    #[test]
    fn packages_come_from_the_repository_itself_or_from_the_mirror_that_has_them() {
        let url = serve(|own, path| match path {
            "/os/Packages/a%2Bb.rpm" => Some("hello".to_owned()),
            "/list" => Some(format!("{own}/empty/\n{own}/os\n")),
            "/metalink?repo=os" => Some(format!(
                "<metalink><files><file name=\"repomd.xml\"><resources>\
                 <url preference=\"1\">{own}/os/repodata/repomd.xml</url></resources></file></files></metalink>"
            )),
            _ => None,
        });
        let package = "Packages/a+b.rpm";
        let mirror = |kind: &str, path: &str| json!({"type": kind, "url": format!("{url}{path}"), "max-parallels": 1});
        assert_eq!(fetched(mirror("baseurl", "/os/"), package).unwrap(), "hello");
        assert_eq!(fetched(mirror("mirrorlist", "/list"), package).unwrap(), "hello");
        assert_eq!(fetched(mirror("metalink", "/metalink?repo=os"), package).unwrap(), "hello");
        let mut fastest = mirror("mirrorlist", "/list");
        fastest["fastest-mirror"] = json!(true);
        assert_eq!(fetched(fastest, package).unwrap(), "hello");
        let refused = fetched(mirror("mirrorlist", "/list"), "other.rpm").unwrap_err();
        assert!(refused.contains("other.rpm: the server answered 404"), "{refused}");
        let refused = fetched(mirror("mirrorlist", "/nowhere"), package).unwrap_err();
        assert!(refused.contains("/nowhere: the server answered 404"), "{refused}");
    }

    #[test]
    fn a_mirror_that_the_options_do_not_have_is_refused_by_name() {
        let context = SourceContext {
            options: &json!({"mirrors": {}}),
            target: std::path::Path::new("/nowhere/item"),
            shared: std::path::Path::new("/nowhere"),
            progress: &|_, _| {},
            interrupted: &|| false,
            environment: &BTreeMap::new(),
        };
        let refused = fetch(&context, HELLO, &json!({"path": "a.rpm", "mirror": "m"})).unwrap_err();
        assert_eq!(refused.to_string(), "the mirror m of a.rpm is not among the options");
    }

    #[test]
    fn paths_are_joined_once_and_unquoted_once() {
        assert_eq!(package_url("http://h:1/a%20b/", "/c.rpm"), "http://h:1/a b/c.rpm");
        assert_eq!(package_url("http://h", "c.rpm"), "http://h/c.rpm");
    }

    #[test]
    fn no_more_come_from_a_mirror_at_once_than_it_may_take() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        let context = || SourceContext {
            options: &Value::Null,
            target: std::path::Path::new(""),
            shared: std::path::Path::new(""),
            progress: &|_, _| {},
            interrupted: &|| false,
            environment: const { &BTreeMap::new() },
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let turn = Turn::take(&context(), "test://mirror", 2).unwrap();
                    assert!(NOW.fetch_add(1, Ordering::SeqCst) < 2);
                    thread::yield_now();
                    NOW.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                });
            }
        });
        let interrupted = SourceContext { interrupted: &|| true, ..context() };
        let _turn = Turn::take(&interrupted, "test://other", 1).unwrap();
        assert!(Turn::take(&interrupted, "test://other", 1).is_err());
    }
}
