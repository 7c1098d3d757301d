//! Downloads files over HTTP and HTTPS.
//!
//! Each item is a URL, or an object with a `url` and what its server wants: `insecure` trusts any server, `secrets`
//! names where the client's certificate comes from. `org.osbuild.rhsm` takes that of the host's Red Hat subscription,
//! `org.osbuild.mtls` the files that `OSBUILD_SOURCES_CURL_SSL_CLIENT_KEY`, `OSBUILD_SOURCES_CURL_SSL_CLIENT_CERT` and
//! perhaps `OSBUILD_SOURCES_CURL_SSL_CA_CERT` name. The path of a URL is given as it is, without `%` codes.
//!
//! A download is tried up to ten times, goes on where it was cut off, and must have the item's checksum. What another
//! try will not mend (404, a wrong certificate) fails at once, and so do files that the disk has no room for.
//! Redirections are followed up to 50 times, but not from `https` to `http`. Proxies are found as curl does, or named
//! by `OSBUILD_SOURCES_CURL_PROXY`. `file://` URLs are copied.
//!
//! ```json
//! {
//!   "type": "org.osbuild.curl",
//!   "items": {
//!     "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03": "https://example.com/hello.txt",
//!     "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824": {
//!       "url": "https://example.com/secret.txt",
//!       "secrets": { "name": "org.osbuild.mtls" }
//!     }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use osbc_module_api::*;

use crate::downloads::checksum::{Checksum, PATTERN};
use crate::downloads::client_secrets::secrets;
use crate::downloads::download::{Access, DOWNLOADER};
use crate::downloads::url::Url;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.curl",
    revision: 1,
    capabilities: &[],
    requires: &[],
    schema: || Schema::same(schema()),
    rejects: &[
        r#"{}"#,
        r#"{"items": {}, "urls": {}}"#,
        r#"{"items": {"crc:0": "https://example.com/a"}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"insecure": true}}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"url": "https://example.com/a", "insecure": "yes"}}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"url": "https://example.com/a", "secrets": {}}}}"#,
        r#"{"items": {"md5:d41d8cd98f00b204e9800998ecf8427e": {"url": "https://example.com/a", "mirror": "b"}}}"#,
        r#"{"items": {}, "options": {}}"#,
    ],
    parse: |description| {
        let description = Description::deserialize(description).map_err(Error::Options)?;
        let mut items = description.items.values().chain(description.urls.values());
        items.try_for_each(|item| Item::read(item).map(drop))
    },
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.files", size: |_| None, fetch }),
};

fn schema() -> Value {
    let url = json!({"description": "Where the file is.", "type": "string"});
    let items = json!({
        "description": "Where the files are, by their checksums.",
        "type": "object",
        "additionalProperties": false,
        "patternProperties": {PATTERN: {"oneOf": [url, options_schema::<Item>()]}}
    });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"items": items, "urls": items},
        "oneOf": [{"required": ["items"]}, {"required": ["urls"]}]
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(default)]
    items: BTreeMap<String, Value>,
    #[serde(default)]
    urls: BTreeMap<String, Value>,
}

/// An item that is more than a URL.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    /// Where the file is.
    url: String,
    /// Whether to trust any server.
    #[serde(default)]
    insecure: bool,
    /// What the server wants to know of its client.
    secrets: Option<Provider>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Provider {
    /// Who provides the secrets: `org.osbuild.rhsm` or `org.osbuild.mtls`.
    name: String,
}

impl Item {
    fn read(description: &Value) -> Result<Self, Error> {
        match description {
            Value::String(url) => Ok(Item { url: url.clone(), insecure: false, secrets: None }),
            item => Item::deserialize(item).map_err(Error::Options),
        }
    }
}

fn fetch(context: &SourceContext, checksum: &str, description: &Value) -> Result<(), Error> {
    let expected = Checksum::parse(checksum)?;
    let item = Item::read(description)?;
    let url = Url::parse(&item.url)?;
    match url.scheme.as_str() {
        "file" => copy(context, &url, &expected),
        "http" | "https" => {
            let secrets = item.secrets.map(|provider| secrets(context, &provider.name, &item.url)).transpose()?;
            DOWNLOADER.fetch(context, &url, &Access { insecure: item.insecure, secrets }, &expected)
        }
        scheme => {
            let reason =
                format!("cannot download {}: {scheme} is not supported; use http, https or file", url.display());
            Err(Error::failed(reason))
        }
    }
}

/// Copies a file of this host.
fn copy(context: &SourceContext, url: &Url, expected: &Checksum) -> Result<(), Error> {
    if !matches!(url.host, "" | "localhost" | "127.0.0.1") {
        return Err(Error::failed(format!("cannot copy {}: a file:// URL is of this host", url.display())));
    }
    let path = PathBuf::from(url.path);
    // Opening a pipe that nobody writes to would wait, and a device may have no end.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut source = File::options().read(true).custom_flags(flags).open(&path).map_err(Error::io("open", &path))?;
    let metadata = source.metadata().map_err(Error::io("inspect", &path))?;
    if !metadata.is_file() {
        return Err(Error::failed(format!("cannot copy {}: it is no regular file", path.display())));
    }
    let total = metadata.len();
    let mut target = File::create(context.target).map_err(Error::io("write", context.target))?;
    let mut hasher = expected.hasher();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        if (context.interrupted)() {
            return Err(Error::Interrupted);
        }
        let length = source.read(&mut buffer).map_err(Error::io("read", &path))?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        if let Err(error) = target.write_all(&buffer[..length]) {
            // Others may have use for the room.
            std::fs::remove_file(context.target).ok();
            return Err(Error::io("write", context.target)(error));
        }
        done += length as u64;
        (context.progress)(done, Some(total));
    }
    expected.check(&hasher).map_err(|found| {
        // Whoever comes next overwrites it anyway.
        std::fs::remove_file(context.target).ok();
        Error::failed(format!("{} has the checksum {found} instead of {expected}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HELLO: &str = "md5:5d41402abc4b2a76b9719d911017c592";

    /// Fetches an item; what it is, or why not.
    fn item(checksum: &str, description: Value, environment: &[(&str, &str)]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let context = SourceContext {
            options: &json!({}),
            target: &directory.path().join("item"),
            shared: directory.path(),
            progress: &|_, _| {},
            interrupted: &|| false,
            environment: &environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let fetched = fetch(&context, checksum, &description).map_err(|error| error.to_string());
        assert_eq!(context.target.exists(), fetched.is_ok());
        fetched.map(|()| fs::read_to_string(context.target).unwrap())
    }

    #[test]
    fn a_file_of_this_host_is_copied_and_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b%20c");
        fs::write(&path, "hello").unwrap();
        let url = format!("file://{}", path.display());
        assert_eq!(item(HELLO, json!(url), &[]).unwrap(), "hello");
        assert_eq!(item(HELLO, json!({"url": format!("file://localhost{}", path.display())}), &[]).unwrap(), "hello");
        let other = "md5:00000000000000000000000000000000";
        let refused = item(other, json!(url), &[]).unwrap_err();
        assert_eq!(refused, format!("{} has the checksum {HELLO} instead of {other}", path.display()));
        assert!(item(HELLO, json!("file:///nowhere/at/all"), &[]).unwrap_err().starts_with("cannot open /nowhere"));
        let refused = item(HELLO, json!("file:///dev/zero"), &[]).unwrap_err();
        assert_eq!(refused, "cannot copy /dev/zero: it is no regular file");
        let refused = item(HELLO, json!("file://elsewhere/a"), &[]).unwrap_err();
        assert_eq!(refused, "cannot copy file://elsewhere/a: a file:// URL is of this host");
    }

    #[test]
    fn schemes_secrets_and_checksums_that_are_not_known_are_refused_by_name() {
        let refused = item(HELLO, json!("ftp://h.test/a"), &[]).unwrap_err();
        assert_eq!(refused, "cannot download ftp://h.test/a: ftp is not supported; use http, https or file");
        let refused = item("crc:0", json!("http://h.test/a"), &[]).unwrap_err();
        assert!(refused.starts_with("`crc:0` is not a checksum"), "{refused}");
        let with = |name: &str| json!({"url": "https://h.test/a", "secrets": {"name": name}});
        let refused = item(HELLO, with("org.other"), &[]).unwrap_err();
        assert!(refused.starts_with("the secrets org.other are not known"), "{refused}");
        let key = ("OSBUILD_SOURCES_CURL_SSL_CLIENT_KEY", "/nowhere/key.pem");
        let refused = item(HELLO, with("org.osbuild.mtls"), &[key]).unwrap_err();
        assert_eq!(refused, "the secrets org.osbuild.mtls need OSBUILD_SOURCES_CURL_SSL_CLIENT_CERT to be set");
        let certificate = ("OSBUILD_SOURCES_CURL_SSL_CLIENT_CERT", "/nowhere/cert.pem");
        let refused = item(HELLO, with("org.osbuild.mtls"), &[key, certificate]).unwrap_err();
        assert!(refused.starts_with("cannot read /nowhere/cert.pem:"), "{refused}");
    }
}
