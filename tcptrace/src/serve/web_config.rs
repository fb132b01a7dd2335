//! The web configuration file of Prometheus' exporter-toolkit, which users of other exporters have already:
//! TLS and basic authentication. What of it is not supported is refused by name, never passed over.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, version};

/// Larger than any such file.
const MAX_FILE: u64 = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no web configuration.
    #[error("{path}: {why}", path = .path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate or key file does not hold what it should.
    #[error("{path} holds no {what} in PEM: {source}", path = .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why not.
        source: pem::Error,
    },
    /// The parts do not go together.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The authorities of clients cannot be used.
    #[error("client certificates cannot be verified: {0}")]
    ClientAuthority(#[from] VerifierBuilderError),
    /// A hash is none of bcrypt's.
    #[error("the password of {user} is no bcrypt hash; make one with: htpasswd -nBC 10 {user}")]
    Hash {
        /// Whose.
        user: String,
    },
    /// A file with a bearer token is empty, or holds what no header can.
    #[error("{path} holds no token: one line of printable ASCII characters", path = .0.display())]
    Token(PathBuf),
}

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebConfig {
    tls_server_config: Option<TlsServerConfig>,
    /// HTTP/2 is not offered; Prometheus speaks HTTP/1.1 as well.
    #[serde(default, rename = "http_server_config")]
    _http_server_config: Option<HttpServerConfig>,
    /// User and bcrypt hash.
    #[serde(default)]
    pub basic_auth_users: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpServerConfig {
    #[serde(default, rename = "http2")]
    _http2: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsServerConfig {
    cert_file: PathBuf,
    key_file: PathBuf,
    #[serde(default)]
    client_auth_type: ClientAuthType,
    client_ca_file: Option<PathBuf>,
    #[serde(default)]
    min_version: MinVersion,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum ClientAuthType {
    #[default]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum MinVersion {
    #[default]
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

/// What TLS is done with.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates, key, versions.
    pub config: Arc<ServerConfig>,
    /// No client gets in without a certificate.
    pub needs_client_certificate: bool,
}

impl WebConfig {
    /// Reads it.
    ///
    /// # Errors
    /// When the file cannot be read or says what is not understood.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let syntax = |why: String| ConfigError::Syntax { path: path.to_owned(), why };
        let text = String::from_utf8(text).map_err(|_| syntax("not UTF-8".to_owned()))?;
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let mut config: Self = serde_saphyr::from_str(&text).map_err(|error| syntax(error.to_string()))?;
        if let Some(tls) = &mut config.tls_server_config {
            let beside = path.parent().unwrap_or(Path::new(""));
            for file in [&mut tls.cert_file, &mut tls.key_file].into_iter().chain(&mut tls.client_ca_file) {
                *file = beside.join(&*file);
            }
            if tls.client_auth_type != ClientAuthType::NoClientCert && tls.client_ca_file.is_none() {
                return Err(syntax("client_auth_type needs client_ca_file".to_owned()));
            }
            if tls.client_auth_type == ClientAuthType::NoClientCert && tls.client_ca_file.is_some() {
                return Err(syntax("client_ca_file needs client_auth_type".to_owned()));
            }
        }
        Ok(config)
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls_server_config.iter();
        tls.flat_map(|tls| [&tls.cert_file, &tls.key_file].into_iter().chain(&tls.client_ca_file))
            .map(PathBuf::as_path)
    }

    /// Reads certificates and key. `None` without TLS.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        let Some(tls) = &self.tls_server_config else { return Ok(None) };
        let chain = certificates(&tls.cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&tls.key_file)?)
            .map_err(|source| ConfigError::Pem { path: tls.key_file.clone(), what: "private key", source })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[_] = match tls.min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &tls.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate)?;
                }
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if tls.client_auth_type == ClientAuthType::VerifyClientCertIfGiven {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let needs_client_certificate = tls.client_auth_type == ClientAuthType::RequireAndVerifyClientCert;
        Ok(Some(Tls { config: Arc::new(config), needs_client_certificate }))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let failed = |source| ConfigError::Pem { path: path.to_owned(), what: "certificate", source };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

/// A whole file, which must not be unreasonably large.
pub fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(failed(io::Error::other("it is larger than 1 MiB")));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WebConfig, String> {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("web.yml");
        fs::write(&path, text).expect("written");
        WebConfig::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, word) in [
            ("tls_server_config:\n  cert_file: a\n  key_file: b\n  cipher_suites: [X]\n", "cipher_suites"),
            ("tls_server_config:\n  cert_file: a\n", "key_file"),
            ("tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}\n", "TLS10"),
            (
                "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
                "client_ca_file",
            ),
            ("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}", "client_auth_type"),
            ("basic_auth_user:\n  a: b\n", "basic_auth_user"),
            ("- a\n", ""),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn empty_files_configure_nothing() {
        for text in ["", "\n", "# nothing\n", "basic_auth_users: {}\n"] {
            let config = parse(text).expect(text);
            assert!(config.basic_auth_users.is_empty() && config.tls().expect("none").is_none());
        }
        assert!(parse("http_server_config:\n  http2: true\nbasic_auth_users:\n  a: $2y$x\n").is_ok());
    }

    #[test]
    fn files_are_looked_for_beside_the_configuration() {
        let config = parse("tls_server_config:\n  cert_file: a.crt\n  key_file: /k/b.key\n").expect("valid");
        let files: Vec<_> = config.files().collect();
        assert!(files[0].is_absolute() && files[0].ends_with("a.crt"));
        assert_eq!(files[1], Path::new("/k/b.key"));
        let missing = config.tls().expect_err("no such file").to_string();
        assert!(missing.contains("a.crt"), "{missing}");
    }
}
