//! The certificates by which a registered Red Hat host may download: subscription-manager's files, as they lie on the
//! host or as podman hands them to a container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use osbc_ir::redact;
use osbc_module_api::Error;

use crate::downloads::download::Secrets;

/// What stands in base URLs for something that is not known here; see yum.conf(5).
const VARIABLES: [&str; 4] = ["$releasever", "$basearch", "$arch", "$uuid"];

/// The subscriptions of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    repositories: Vec<Repository>,
    /// For URLs of no known repository.
    fallback: Option<Secrets>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    base_urls: Vec<String>,
    secrets: Secrets,
}

impl Subscriptions {
    /// Reads those of the host whose root is `root`.
    pub(crate) fn read(root: &Path) -> Result<Self, Error> {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let in_container = at("/run/.containerenv").exists() && at("/run/secrets").exists();
        let (authorities, entitlements) = if in_container {
            ("/run/secrets/rhsm/ca", "/run/secrets/etc-pki-entitlement")
        } else {
            ("/etc/rhsm/ca", "/etc/pki/entitlement")
        };
        // A host that is registered with a Satellite talks to that one, under its authority.
        let katello = at(authorities).join("katello-server-ca.pem");
        let authority = if katello.exists() { katello } else { at(authorities).join("redhat-uep.pem") };

        let mut repositories = Vec::new();
        for path in ["/run/secrets/redhat.repo", "/etc/yum.repos.d/redhat.repo"] {
            if path.starts_with("/run") && !in_container {
                continue;
            }
            match fs::read_to_string(at(path)) {
                Ok(text) => repositories.extend(parse(&text, root, &authority)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", path)(error)),
            }
        }
        let fallback = entitlement(&at(entitlements), &authority)?;
        if repositories.is_empty() && fallback.is_none() {
            return Err(Error::failed(
                "no Red Hat subscription was found on this host; register it with subscription-manager",
            ));
        }
        Ok(Self { repositories, fallback })
    }

    /// What a download of `url` needs.
    pub(crate) fn secrets_for(&self, url: &str) -> Result<Secrets, Error> {
        let fits = |repository: &&Repository| repository.base_urls.iter().any(|base| begins_with(url, base));
        let known = self.repositories.iter().find(fits).map(|repository| &repository.secrets);
        known
            .or(self.fallback.as_ref())
            .cloned()
            .ok_or_else(|| Error::failed(format!("no Red Hat subscription of this host covers {}", redact::url(url))))
    }
}

/// The repositories of a `.repo` file whose certificate and key are there.
pub(crate) fn parse(text: &str, root: &Path, authority: &Path) -> Vec<Repository> {
    let mut sections: Vec<Vec<(String, String)>> = Vec::new();
    for line in text.lines() {
        let continued = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            sections.push(Vec::new());
        } else if let Some(section) = sections.last_mut() {
            match (continued, section.last_mut(), line.split_once('=')) {
                (true, Some((_, value)), _) => *value = format!("{value} {line}"),
                (_, _, Some((key, value))) => section.push((key.trim().to_lowercase(), value.trim().to_owned())),
                _ => {}
            }
        }
    }
    let repository = |section: &Vec<(String, String)>| {
        let get = |key: &str| section.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let file =
            |key: &str| get(key).filter(|path| !path.is_empty()).map(|path| root.join(path.trim_start_matches('/')));
        let secrets = Secrets {
            authority: Some(file("sslcacert").unwrap_or_else(|| authority.to_owned())),
            certificate: file("sslclientcert")?,
            key: file("sslclientkey")?,
        };
        let base_urls = get("baseurl")?.split([' ', ',']).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        (secrets.certificate.exists() && secrets.key.exists()).then_some(Repository { base_urls, secrets })
    };
    sections.iter().filter_map(repository).collect()
}

/// A key with its certificate out of the directory of entitlements; the last one by name.
fn entitlement(directory: &Path, authority: &Path) -> Result<Option<Secrets>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    let mut keys: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    keys.sort();
    let pair = |key: &PathBuf| {
        let name = key.file_name()?.to_str()?.strip_suffix("-key.pem")?;
        let certificate = directory.join(format!("{name}.pem"));
        let secrets = Secrets { authority: Some(authority.to_owned()), certificate, key: key.clone() };
        secrets.certificate.exists().then_some(secrets)
    };
    Ok(keys.iter().rev().find_map(pair))
}

/// Whether a URL begins with a base URL, whose variables stand for anything without a `/`.
fn begins_with(url: &str, base: &str) -> bool {
    let variable = VARIABLES.iter().filter_map(|name| Some((base.find(name)?, name.len()))).min_by_key(|(at, _)| *at);
    let Some((at, length)) = variable else { return url.starts_with(base) };
    let Some(rest) = url.strip_prefix(&base[..at]) else { return false };
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).filter_map(|split| rest.get(split..)).any(|rest| begins_with(rest, &base[at + length..]))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn host(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn names(root: &TempDir, secrets: &Secrets) -> [String; 3] {
        let name = |path: &Path| path.strip_prefix(root.path()).unwrap().display().to_string();
        [name(secrets.authority.as_ref().unwrap()), name(&secrets.certificate), name(&secrets.key)]
    }

    const REPO: &str = "\
# comment
[rhel-9]
name = RHEL 9
baseurl = https://cdn.test/content/$releasever/$basearch/os
sslcacert = /etc/rhsm/ca/own.pem
sslclientkey = /etc/pki/entitlement/1-key.pem
sslclientcert = /etc/pki/entitlement/1.pem

[gone]
baseurl = https://cdn.test/gone
sslclientkey = /etc/pki/entitlement/9-key.pem
sslclientcert = /etc/pki/entitlement/9.pem
";

    #[test]
    fn the_repository_that_a_url_lies_in_gives_the_certificates() {
        let root = host(&[
            ("etc/yum.repos.d/redhat.repo", REPO),
            ("etc/pki/entitlement/1.pem", ""),
            ("etc/pki/entitlement/1-key.pem", ""),
            ("etc/pki/entitlement/2.pem", ""),
            ("etc/pki/entitlement/2-key.pem", ""),
            ("etc/pki/entitlement/3-key.pem", ""),
        ]);
        let subscriptions = Subscriptions::read(root.path()).unwrap();
        let of = |url| names(&root, &subscriptions.secrets_for(url).unwrap());
        let own = ["etc/rhsm/ca/own.pem", "etc/pki/entitlement/1.pem", "etc/pki/entitlement/1-key.pem"];
        assert_eq!(of("https://cdn.test/content/9/x86_64/os/Packages/a.rpm"), own);
        let any = ["etc/rhsm/ca/redhat-uep.pem", "etc/pki/entitlement/2.pem", "etc/pki/entitlement/2-key.pem"];
        assert_eq!(of("https://cdn.test/content/9/x86_64/debug/a.rpm"), any);
        assert_eq!(of("https://cdn.test/gone/a.rpm"), any);
    }

    #[test]
    fn a_satellites_authority_and_a_containers_secrets_are_preferred() {
        let root = host(&[
            ("run/.containerenv", ""),
            ("run/secrets/rhsm/ca/katello-server-ca.pem", ""),
            ("run/secrets/etc-pki-entitlement/7.pem", ""),
            ("run/secrets/etc-pki-entitlement/7-key.pem", ""),
        ]);
        let secrets = Subscriptions::read(root.path()).unwrap().secrets_for("https://cdn.test/a").unwrap();
        let expected = [
            "run/secrets/rhsm/ca/katello-server-ca.pem",
            "run/secrets/etc-pki-entitlement/7.pem",
            "run/secrets/etc-pki-entitlement/7-key.pem",
        ];
        assert_eq!(names(&root, &secrets), expected);
    }

    #[test]
    fn a_host_without_subscriptions_and_a_url_outside_of_them_are_refused() {
        let refusal = Subscriptions::read(host(&[]).path()).unwrap_err().to_string();
        assert!(refusal.starts_with("no Red Hat subscription was found"), "{refusal}");
        let root = host(&[
            ("etc/yum.repos.d/redhat.repo", REPO),
            ("etc/pki/entitlement/1.pem", ""),
            ("etc/pki/entitlement/1-key.pem", ""),
        ]);
        let mut subscriptions = Subscriptions::read(root.path()).unwrap();
        subscriptions.fallback = None;
        let refusal = subscriptions.secrets_for("https://other.test/a").unwrap_err().to_string();
        assert_eq!(refusal, "no Red Hat subscription of this host covers https://other.test/a");
    }

    #[test]
    fn variables_in_base_urls_stand_for_anything_within_one_component() {
        assert!(begins_with("https://h/9/os/x", "https://h/$releasever/os"));
        assert!(begins_with("https://h/el9-x86/os", "https://h/el$releasever-$basearch/os"));
        assert!(!begins_with("https://h/9/beta/os", "https://h/$releasever/os"));
        assert!(!begins_with("http://h/9/os", "https://h/$releasever/os"));
    }
}
