//! The HTTP library, set up: which certificates count, which proxy is gone through, which connectors make a connection.
//!
//! Connections are kept and shared between requests that need the same settings.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use osbc_module_api::Error;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, SocksConnector, TcpConnector};
use ureq::{Agent, Proxy};

use super::head::LeanHeads;
use crate::downloads::proxy::Forward;

/// How long the look-up of a name and a connection may take, each.
const CONNECT: Duration = Duration::from_secs(30);

/// The files by which client and server know each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secrets {
    /// The authorities to trust instead of the system's.
    pub(crate) authority: Option<PathBuf>,
    /// The client's certificate, perhaps followed by those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// The client's key.
    pub(crate) key: PathBuf,
}

/// With what settings a server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Access {
    /// Whether any server is trusted.
    pub(crate) insecure: bool,
    /// The files for a server that wants to know its clients.
    pub(crate) secrets: Option<Secrets>,
}

/// Makes agents and keeps them.
#[derive(Debug, Default)]
pub(super) struct Agents(Mutex<HashMap<(Access, Option<Proxy>), Agent>>);

impl Agents {
    /// Returns the agent for these settings, which waits for a server as long as `stall`.
    ///
    /// # Errors
    /// A file of the settings cannot be read or is something else.
    pub(super) fn get(&self, access: &Access, proxy: Option<&Proxy>, stall: Duration) -> Result<Agent, Error> {
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (access.clone(), proxy.cloned());
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = make(access, proxy, stall)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

fn make(access: &Access, proxy: Option<&Proxy>, stall: Duration) -> Result<Agent, Error> {
    let tls = tls(access)?;
    let config = |proxy: Option<Proxy>| {
        Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(format!("osbc/{} (Linux.{})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH))
            .accept_encoding("identity")
            // Redirections are followed by `transfer`.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .timeout_per_write(Some(stall))
            .max_idle_connections_per_host(8)
            .tls_config(tls.clone())
            .proxy(proxy)
            .build()
    };
    let connector = Forward { direct: config(None) }
        .chain(SocksConnector::default())
        .chain(ConnectProxyConnector::default())
        .chain(TcpConnector::default())
        .chain(RustlsConnector::default())
        .chain(LeanHeads);
    Ok(Agent::with_parts(config(proxy.cloned()), connector, DefaultResolver::default()))
}

fn tls(access: &Access) -> Result<TlsConfig, Error> {
    let mut builder = TlsConfig::builder()
        .disable_verification(access.insecure)
        // The system's, or those that the environment names in SSL_CERT_FILE.
        .root_certs(RootCerts::PlatformVerifier);
    if let Some(secrets) = &access.secrets {
        if let Some(authority) = &secrets.authority {
            builder = builder.root_certs(RootCerts::new_with_certs(&certificates(authority)?));
        }
        let client = ClientCert::new_with_certs(&certificates(&secrets.certificate)?, key(&secrets.key)?);
        builder = builder.client_cert(Some(client));
    }
    Ok(builder.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    let none = || Error::failed(format!("{} holds no certificate in PEM form", path.display()));
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn key(path: &Path) -> Result<PrivateKey<'static>, Error> {
    let found = pem(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    found.ok_or_else(|| Error::failed(format!("{} holds no unencrypted key in PEM form", path.display())))
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let items = parse_pem(&text).collect::<Result<_, _>>();
    items.map_err(|error| Error::failed(format!("{} is broken: {error}", path.display())))
}
