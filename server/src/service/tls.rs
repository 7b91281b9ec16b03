//! TLS of the TCP listeners: read from files, swapped while connections go on.

use crate::metrics;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};

/// A client that has not shaken hands by then is cut.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificate, then those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates; with it, clients without one are refused.
    pub client_ca: Option<PathBuf>,
}

/// Files that cannot be used. No message shows what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One that cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// One without what belongs in it.
    #[error("`{}` holds no {what} in PEM", path.display())]
    Pem {
        /// File.
        path: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
    },
    /// Certificate and key that do not go together, or that are broken.
    #[error("certificate `{}` and key `{}` cannot be used: {why}", cert.display(), key.display())]
    Pair {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// Authorities that cannot be used.
    #[error("client authority `{}` cannot be used: {why}", path.display())]
    Authority {
        /// File.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate whose time is over.
    #[error("certificate `{}` expired {days} days ago", path.display())]
    Expired {
        /// File.
        path: PathBuf,
        /// Since when.
        days: i64,
    },
    /// A certificate whose time has not come.
    #[error("certificate `{}` is not valid before another {seconds} seconds", path.display())]
    Early {
        /// File.
        path: PathBuf,
        /// Until then.
        seconds: i64,
    },
}

/// What was read, checked and is ready to be put in force.
pub struct Loaded {
    config: Arc<ServerConfig>,
    expires: i64,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Loaded").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(files: &Files) -> Result<Loaded, TlsError> {
        let chain = certificates(&files.cert)?;
        let expires = expiry(&chain, files)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?);
        let key = key.map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites for both");
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let wrong = |why: String| TlsError::Authority { path: path.clone(), why };
                builder.with_client_cert_verifier(verifier.map_err(|e| wrong(e.to_string()))?)
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|e| pair(files, e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Loaded { config: Arc::new(config), expires })
    }

    /// When the first certificate of the chain expires that has not yet, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.expires
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = bytes(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let none = || TlsError::Pem { path: path.to_owned(), what: "certificate" };
    all.ok().filter(|all| !all.is_empty()).ok_or_else(none)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let wrong = |why: String| TlsError::Authority { path: path.to_owned(), why };
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(roots)
}

fn pair(files: &Files, why: String) -> TlsError {
    TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), why }
}

/// When the first certificate of the chain expires that has not yet, in seconds since 1970. The first one has to be valid;
/// clients may do without the others, or know newer ones.
fn expiry(chain: &[CertificateDer<'_>], files: &Files) -> Result<i64, TlsError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let mut first = i64::MAX;
    for (i, certificate) in chain.iter().enumerate() {
        let (_, read) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|e| pair(files, format!("no X.509 certificate: {e}")))?;
        let valid = read.validity();
        let (begin, end) = (valid.not_before.timestamp(), valid.not_after.timestamp());
        if begin <= now && now < end {
            first = first.min(end);
        } else if i > 0 {
            let (path, subject) = (files.cert.display(), read.subject());
            tracing::warn!(
                "certificate `{path}`: {subject}, number {} of the chain, is not valid now",
                i + 1
            );
        } else if end <= now {
            return Err(TlsError::Expired { path: files.cert.clone(), days: (now - end) / 86_400 });
        } else {
            return Err(TlsError::Early { path: files.cert.clone(), seconds: begin - now });
        }
    }
    Ok(first)
}

/// The certificate in use.
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Tls(..)")
    }
}

impl Tls {
    /// Puts a certificate in force.
    pub fn new(loaded: Loaded) -> Tls {
        metrics::certificate(loaded.expires);
        Tls(RwLock::new(loaded.config))
    }

    /// Puts another one in force: for connections that come from now on, the others go on.
    pub fn replace(&self, loaded: Loaded) {
        metrics::certificate(loaded.expires);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded.config;
    }

    /// Shakes hands; `None` when the client cannot, or takes too long.
    pub async fn accept(&self, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket)).await;
        match shaken {
            Ok(Ok(socket)) => Some(socket),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS handshake");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}");
                None
            }
        }
    }
}
