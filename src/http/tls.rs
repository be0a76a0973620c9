//! TLS: the gateway's certificate, and the handshake that a connection begins with.
//!
//! A handshake runs in the task of its connection, so one that hangs holds nobody up. The files are
//! read once, at the start: a new certificate needs a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::settings::ServerSettings;
use crate::shutdown::Stop;

/// What is offered to clients that ask, the best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Chooses the cryptography of every TLS connection of this process, unless that was done before.
pub fn choose_cryptography() {
    // Whoever has chosen before has chosen for us too.
    ring::default_provider().install_default().unwrap_or_default();
}

/// What connections are encrypted with.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    /// How long a handshake may take.
    patience: Duration,
}

/// Why the certificate cannot be used. What the files hold is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificate cannot be read.
    #[error("server.tls_cert: {}", fault(.0))]
    Certificate(pem::Error),
    /// The file of the key cannot be read.
    #[error("server.tls_key: {}", fault(.0))]
    Key(pem::Error),
    /// The key is that of another certificate.
    #[error("server.tls_key: it does not belong to the certificate")]
    Strangers,
    /// They were read and cannot be used.
    #[error("server.tls_cert: {0}")]
    Unusable(rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::Strangers,
            error => Self::Unusable(error),
        }
    }
}

fn fault(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none in the file".to_owned(),
        _ => "the file is not in the format PEM".to_owned(),
    }
}

impl Tls {
    /// Reads the files that the settings name; `None` if they name none.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn read(settings: &ServerSettings) -> Result<Option<Self>, TlsError> {
        if !settings.has_tls() {
            return Ok(None);
        }
        let certificates = certificates(&settings.tls_cert).map_err(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_file(&settings.tls_key).map_err(TlsError::Key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // Clients that come back resume; nothing is kept for them here.
        config.ticketer = ring::Ticketer::new()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Some(Self { acceptor, patience: settings.header_timeout }))
    }

    /// Shakes hands. `None` when the client is too slow, does not speak TLS, or trusts another; or
    /// when the gateway stops meanwhile.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        stop: &Stop,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = timeout(self.patience, self.acceptor.accept(stream));
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            // Whoever comes while the gateway stops is answered first.
            () = stop.requested(), if !stop.is_requested() => return None,
        };
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
        None
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(certificates) }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key.
        f.debug_struct("Tls").field("patience", &self.patience).finish_non_exhaustive()
    }
}
