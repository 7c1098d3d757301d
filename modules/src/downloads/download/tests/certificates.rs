//! Servers that are known by their certificates and want to know their clients.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use osbc_fixtures::has_tool;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// An authority, and a certificate and key signed by it for the server and for a client.
struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// None where there is no tool to make them.
    fn new() -> Option<Self> {
        if !has_tool("openssl") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let script = r#"
            set -e
            new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch -days 2"
            openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=authority \
                -addext basicConstraints=critical,CA:TRUE
            for name in server client; do
                printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > ext
                openssl req $new -keyout $name.key -out $name.csr -subj /CN=$name
                openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
            done
        "#;
        let made = Command::new("sh").args(["-c", script]).current_dir(&directory).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server that knows itself by its certificate and wants its clients to do so.
    fn server(&self) -> Server {
        let certificate = CertificateDer::from_pem_file(self.path("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let answer = |request: &Request, _: usize, out: &mut dyn Write| match request[0].as_str() {
            "GET /down HTTP/1.1" => say(out, "302 Found", &["Location: http://127.0.0.1:1/?token=1"], b""),
            _ => say(out, "200 OK", &[], b"hello"),
        };
        Server::start(Arc::new(answer), Some(Arc::new(config)))
    }

    fn secrets(&self, authority: Option<&str>) -> Secrets {
        Secrets {
            authority: authority.map(|name| self.path(name)),
            certificate: self.path("client.pem"),
            key: self.path("client.key"),
        }
    }
}

#[test]
fn client_and_server_know_each_other_by_their_certificates() {
    let Some(certificates) = Certificates::new() else { return };
    let server = certificates.server();
    let url = format!("https://{}/a", server.address);
    let fetch = |insecure, secrets| {
        let access = Access { insecure, secrets };
        Download { access, ..Download::new() }.fetch(&url, &checksum_of(b"hello"))
    };
    assert_eq!(fetch(false, Some(certificates.secrets(Some("ca.pem")))).unwrap(), b"hello");
    assert_eq!(fetch(true, Some(certificates.secrets(None))).unwrap(), b"hello", "any server is trusted");
    assert_eq!(server.count(), 2);

    let stranger = fetch(false, Some(certificates.secrets(None))).unwrap_err();
    assert!(stranger.contains("certificate") && !stranger.contains("tried"), "{stranger}");
    let unknown = fetch(true, None).unwrap_err();
    assert!(unknown.to_lowercase().contains("certificate") && !unknown.contains("tried"), "{unknown}");
    assert_eq!(server.count(), 2, "no request was made");

    let access = Access { insecure: true, secrets: Some(certificates.secrets(None)) };
    let url = format!("https://{}/down", server.address);
    let refusal = Download { access, ..Download::new() }.fetch(&url, &checksum_of(b"hello")).unwrap_err();
    let reason = "redirection leads from https to http://127.0.0.1:1/?token=***, which anybody on the way could change";
    assert!(refusal.ends_with(reason), "{refusal}");
    assert_eq!(server.count(), 3);
}

/// Runs itself once more, since the environment of a process is fixed once it has threads.
#[test]
fn ssl_cert_file_names_the_authorities_of_the_system() {
    if let Ok(url) = std::env::var("OSBC_TEST_URL") {
        let directory = PathBuf::from(std::env::var_os("OSBC_TEST_CERTIFICATES").unwrap());
        let secrets =
            Secrets { authority: None, certificate: directory.join("client.pem"), key: directory.join("client.key") };
        let access = Access { secrets: Some(secrets), ..Access::default() };
        Download { access, ..Download::new() }.fetch(&url, &checksum_of(b"hello")).unwrap();
        return;
    }
    let Some(certificates) = Certificates::new() else { return };
    let server = certificates.server();
    let (_, module) = module_path!().split_once("::").unwrap();
    let again = Command::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg(format!("{module}::ssl_cert_file_names_the_authorities_of_the_system"))
        .env("OSBC_TEST_URL", format!("https://{}/a", server.address))
        .env("OSBC_TEST_CERTIFICATES", certificates.directory.path())
        .env("SSL_CERT_FILE", certificates.path("ca.pem"))
        .output()
        .unwrap();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(server.count(), 1);
}

#[test]
fn files_that_hold_no_certificate_or_key_are_refused_by_name() {
    let Some(certificates) = Certificates::new() else { return };
    let refused = |secrets| {
        let access = Access { secrets: Some(secrets), ..Access::default() };
        Download { access, ..Download::new() }.fetch("https://127.0.0.1:1/a", &checksum_of(b"hello")).unwrap_err()
    };
    let swapped = Secrets { key: certificates.path("client.pem"), ..certificates.secrets(None) };
    assert!(refused(swapped).ends_with("client.pem holds no unencrypted key in PEM form"));
    let swapped = Secrets { certificate: certificates.path("client.key"), ..certificates.secrets(None) };
    assert!(refused(swapped).ends_with("client.key holds no certificate in PEM form"));
    let missing = Secrets { authority: Some(certificates.path("gone.pem")), ..certificates.secrets(None) };
    assert!(refused(missing).starts_with("cannot read "));
}
