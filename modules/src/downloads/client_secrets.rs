//! What a client shows a server that wants to know it, as the sources of files name it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use osbc_module_api::{Error, SourceContext};

use crate::downloads::download::Secrets;
use crate::downloads::rhsm::Subscriptions;

/// Read when the first item needs them.
static SUBSCRIPTIONS: Mutex<Option<Subscriptions>> = Mutex::new(None);

/// The secrets that a provider has for a URL.
///
/// # Errors
/// There is no such provider, or it has none.
pub(crate) fn secrets(context: &SourceContext, provider: &str, url: &str) -> Result<Secrets, Error> {
    match provider {
        "org.osbuild.mtls" => {
            let file = |name: &str| context.environment.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
            let needed = |name: &str| {
                file(name).ok_or_else(|| Error::failed(format!("the secrets org.osbuild.mtls need {name} to be set")))
            };
            Ok(Secrets {
                authority: file("OSBUILD_SOURCES_CURL_SSL_CA_CERT"),
                certificate: needed("OSBUILD_SOURCES_CURL_SSL_CLIENT_CERT")?,
                key: needed("OSBUILD_SOURCES_CURL_SSL_CLIENT_KEY")?,
            })
        }
        "org.osbuild.rhsm" => {
            let mut known = SUBSCRIPTIONS.lock().unwrap_or_else(PoisonError::into_inner);
            let subscriptions = match known.take() {
                Some(subscriptions) => subscriptions,
                None => Subscriptions::read(Path::new("/"))?,
            };
            known.insert(subscriptions).secrets_for(url)
        }
        other => {
            let reason = format!("the secrets {other} are not known; there are org.osbuild.rhsm and org.osbuild.mtls");
            Err(Error::failed(reason))
        }
    }
}
