//! Fetches OSTree commits from repositories.
//!
//! Each item is a commit, by its id, and the remote that has it. The commit is verified if there are `gpgkeys`. Calls
//! `ostree` of the host. All commits are kept in one repository, so that those that share files share them there too.
//!
//! `secrets` names what the client shows the server: `org.osbuild.mtls` the files that
//! `OSBUILD_SOURCES_OSTREE_SSL_CLIENT_KEY`, `OSBUILD_SOURCES_OSTREE_SSL_CLIENT_CERT` and perhaps
//! `OSBUILD_SOURCES_OSTREE_SSL_CA_CERT` name, `org.osbuild.rhsm.consumer` the identity by which the host is known to
//! Red Hat. With the former, `OSBUILD_SOURCES_OSTREE_PROXY` names a proxy, and `OSBUILD_SOURCES_OSTREE_INSECURE=true`
//! trusts any server.
//!
//! ```json
//! {
//!   "type": "org.osbuild.ostree",
//!   "items": {
//!     "439911411ce7868f7030c7b5b1a1a3ccf3b6a8b0e7b0a4c0e7b9d2f3c1d5e6f7": {
//!       "remote": { "url": "https://example.com/repo", "secrets": { "name": "org.osbuild.mtls" } }
//!     }
//!   }
//! }
//! ```

use std::collections::BTreeMap;
use std::fs;

use osbc_module_api::*;

use crate::ostrees::ostree_repository::{Repository, SHARED};

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Source,
    name: "org.osbuild.ostree",
    revision: 1,
    capabilities: &[],
    requires: &[Requirement::HostTool("ostree")],
    schema: || Schema::same(schema()),
    rejects: &[
        r#"{}"#,
        r#"{"items": {}, "commits": {}}"#,
        r#"{"items": {"xyz": {"remote": {"url": "u"}}}}"#,
        r#"{"items": {"0123456789": {}}}"#,
        r#"{"items": {"0123456789": {"remote": {}}}}"#,
        r#"{"items": {"0123456789": {"remote": {"url": "u", "gpgkeys": "k"}}}}"#,
        r#"{"items": {"0123456789": {"remote": {"url": "u", "secrets": {}}}}}"#,
        r#"{"items": {"0123456789": {"remote": {"url": "u"}, "ref": "r"}}}"#,
    ],
    parse: parse::<Description>,
    entry: Entry::Source(SourceEntry { content_type: "org.osbuild.ostree", size: |_| None, fetch }),
};

fn schema() -> Value {
    let items = json!({
        "description": "The commits.",
        "type": "object",
        "additionalProperties": false,
        "patternProperties": {"[0-9a-f]{5,64}": options_schema::<Item>()}
    });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"items": items, "commits": items},
        "oneOf": [{"required": ["items"]}, {"required": ["commits"]}]
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(rename = "items", default)]
    _items: BTreeMap<String, Item>,
    #[serde(rename = "commits", default)]
    _commits: BTreeMap<String, Item>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    /// Where the commit is.
    remote: Remote,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Remote {
    /// The repository.
    url: String,
    /// Where its content is, if elsewhere.
    contenturl: Option<String>,
    /// Keys, one of which must have signed the commit.
    #[serde(default)]
    gpgkeys: Vec<String>,
    /// What the server wants to know of its client.
    secrets: Option<Provider>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Provider {
    /// Who provides the secrets: `org.osbuild.mtls` or `org.osbuild.rhsm.consumer`.
    name: String,
}

/// What the remote is called while a commit is fetched.
const NAME: &str = "origin";

/// The host's identity, as Red Hat knows it.
const CONSUMER_KEY: &str = "/etc/pki/consumer/key.pem";
const CONSUMER_CERTIFICATE: &str = "/etc/pki/consumer/cert.pem";

fn fetch(context: &SourceContext, commit: &str, description: &Value) -> Result<(), Error> {
    let Item { remote } = Item::deserialize(description).map_err(Error::Options)?;
    let shared = context.shared.join(SHARED);
    let shared = Repository { path: &shared, interrupted: context.interrupted };
    shared.init()?;
    if !shared.has(commit) {
        // In a repository of its own, which knows the remote for the moment, and what there is already.
        let own = Repository { path: context.target, interrupted: context.interrupted };
        own.init()?;
        own.call(&["config", "set", "core.parent", &shared.path.to_string_lossy()], "")?;
        own.call(&["remote", "delete", "--if-exists", NAME], "")?;
        let pulled = remote.pull(&own, commit, context.environment);
        // What it is and who asks it may be secret; what has come of the commit stays for another try.
        own.call(&["remote", "delete", "--if-exists", NAME], "")?;
        pulled?;
        shared.pull_local(own.path, commit)?;
    }
    if context.target.is_dir() {
        fs::remove_dir_all(context.target).map_err(Error::io("remove", context.target))?;
    }
    // The item itself says no more than that the commit is there.
    fs::write(context.target, commit).map_err(Error::io("write", context.target))
}

impl Remote {
    /// Pulls a commit into a repository that does not know the remote yet.
    fn pull(&self, to: &Repository<'_>, commit: &str, environment: &BTreeMap<String, String>) -> Result<(), Error> {
        let settings = self.settings(environment)?;
        let words: Vec<&str> = settings.iter().map(String::as_str).collect();
        to.call(&[&["remote", "add", NAME, &self.url], &words[..]].concat(), "")?;
        for key in &self.gpgkeys {
            to.call(&["remote", "gpg-import", "--stdin", NAME], key)?;
        }
        to.call(&["pull", NAME, commit], "").map(drop)
    }

    /// Returns the arguments of `ostree remote add` other than name and URL.
    fn settings(&self, environment: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
        let mut settings = Vec::new();
        if self.gpgkeys.is_empty() {
            settings.push("--no-gpg-verify".to_owned());
        }
        if let Some(url) = &self.contenturl {
            settings.push(format!("--contenturl={url}"));
        }
        let mut set = |key: &str, value: &str| settings.push(format!("--set={key}={value}"));
        match self.secrets.as_ref().map(|provider| provider.name.as_str()) {
            None => {}
            Some("org.osbuild.rhsm.consumer") => {
                set("tls-client-key-path", CONSUMER_KEY);
                set("tls-client-cert-path", CONSUMER_CERTIFICATE);
            }
            Some("org.osbuild.mtls") => {
                let variable = |name: &str| environment.get(&format!("OSBUILD_SOURCES_OSTREE_{name}"));
                let files = [
                    ("tls-ca-path", "SSL_CA_CERT"),
                    ("tls-client-cert-path", "SSL_CLIENT_CERT"),
                    ("tls-client-key-path", "SSL_CLIENT_KEY"),
                    ("proxy", "PROXY"),
                ];
                for (key, name) in files {
                    if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
                        set(key, value);
                    }
                }
                let insecure = variable("INSECURE").map(|value| value.to_ascii_lowercase());
                if matches!(insecure.as_deref(), Some("true" | "yes" | "1")) {
                    set("tls-permissive", "true");
                }
            }
            Some(other) => {
                return Err(Error::failed(format!(
                    "the secrets {other} are not known; there are org.osbuild.mtls and org.osbuild.rhsm.consumer"
                )));
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use osbc_fixtures::has_tool;

    use super::*;
    use crate::ostrees::ostree_repository::sample;

    fn fetched(shared: &Path, commit: &str, url: &str, interrupted: bool) -> Result<(), String> {
        let context = SourceContext {
            options: &json!({}),
            target: &shared.join("item"),
            shared,
            progress: &|_, _| {},
            interrupted: &|| interrupted,
            environment: &BTreeMap::new(),
        };
        fetch(&context, commit, &json!({"remote": {"url": url}})).map_err(|error| error.to_string())
    }

    #[test]
    fn a_commit_comes_into_the_shared_repository_and_is_not_asked_for_again() {
        if !has_tool("ostree") {
            return;
        }
        let (remote, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let commit = sample(remote.path());
        let url = format!("file://{}", remote.path().display());
        fetched(shared.path(), &commit, &url, false).unwrap();
        assert_eq!(fs::read_to_string(shared.path().join("item")).unwrap(), commit);
        let repository = shared.path().join("repo");
        assert!(Repository { path: &repository, interrupted: &|| false }.has(&commit));
        assert!(!fs::read_to_string(repository.join("config")).unwrap().contains("remote"));
        fs::remove_file(shared.path().join("item")).unwrap();
        fetched(shared.path(), &commit, "file:///nowhere", false).unwrap();
    }

    #[test]
    fn what_is_not_there_fails_in_the_tools_words_and_an_end_is_heeded() {
        if !has_tool("ostree") {
            return;
        }
        let (remote, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let commit = sample(remote.path());
        let url = format!("file://{}", remote.path().display());
        let missing = "0".repeat(64);
        let refused = fetched(shared.path(), &missing, &url, false).unwrap_err();
        assert!(refused.contains("ostree pull origin") && refused.contains("error: "), "{refused}");
        assert_eq!(fetched(shared.path(), &commit, &url, true).unwrap_err(), "interrupted");
        // Goes on where it failed.
        fetched(shared.path(), &commit, &url, false).unwrap();
    }

    #[test]
    fn secrets_and_keys_become_settings_of_the_remote() {
        let environment: BTreeMap<String, String> = [
            ("OSBUILD_SOURCES_OSTREE_SSL_CLIENT_KEY", "/k"),
            ("OSBUILD_SOURCES_OSTREE_SSL_CLIENT_CERT", "/c"),
            ("OSBUILD_SOURCES_OSTREE_PROXY", "http://p"),
            ("OSBUILD_SOURCES_OSTREE_INSECURE", "Yes"),
        ]
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        let settings = |remote: Value| {
            let remote = Remote::deserialize(remote).unwrap();
            remote.settings(&environment).map(|words| words.join(" ")).map_err(|error| error.to_string())
        };
        assert_eq!(settings(json!({"url": "u"})).unwrap(), "--no-gpg-verify");
        assert_eq!(settings(json!({"url": "u", "gpgkeys": ["k"], "contenturl": "c"})).unwrap(), "--contenturl=c");
        let with = |name: &str| settings(json!({"url": "u", "gpgkeys": ["k"], "secrets": {"name": name}}));
        assert_eq!(
            with("org.osbuild.mtls").unwrap(),
            "--set=tls-client-cert-path=/c --set=tls-client-key-path=/k --set=proxy=http://p --set=tls-permissive=true"
        );
        assert!(with("org.osbuild.rhsm.consumer").unwrap().contains("key-path=/etc/pki/consumer/key.pem"));
        assert!(with("org.other").unwrap_err().starts_with("the secrets org.other are not known"));
    }
}
