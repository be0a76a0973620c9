//! TLS to Redis: whom to trust, and who we are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The files and the name, as the settings say; empty: none.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// Certificates (PEM) to trust instead of the system's: authorities, or the server's own.
    pub ca_file: PathBuf,
    /// Our certificate (PEM), if Redis asks for one, with its chain.
    pub client_cert: PathBuf,
    /// Its private key (PEM).
    pub client_key: PathBuf,
    /// The name in the server's certificate, if it is not that of the URL.
    pub server_name: String,
}

/// Why TLS to Redis cannot be used. What the files hold is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct RedisTlsError {
    key: &'static str,
    message: String,
}

impl RedisTlsError {
    fn new(key: &'static str, message: &impl ToString) -> Self {
        Self { key, message: message.to_string() }
    }
}

impl RedisTls {
    /// Reads the files.
    pub(super) fn config(&self) -> Result<ClientConfig, RedisTlsError> {
        let provider = Arc::new(ring::default_provider());
        let known = if is_set(&self.ca_file) {
            certificates("redis.ca_file", &self.ca_file)?
        } else {
            Vec::new()
        };
        let mut roots = RootCertStore::empty();
        if known.is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        roots.add_parsable_certificates(known.clone());
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| RedisTlsError::new("redis.ca_file", &error))?;
        let trust = Arc::new(Trust { authorities, known });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RedisTlsError::new("redis.url", &error))?
            .dangerous()
            .with_custom_certificate_verifier(trust);
        if !is_set(&self.client_cert) {
            return Ok(config.with_no_client_auth());
        }
        let chain = certificates("redis.client_cert", &self.client_cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.client_key)
            .map_err(|error| RedisTlsError::new("redis.client_key", &fault(&error)))?;
        config
            .with_client_auth_cert(chain, key)
            .map_err(|error| RedisTlsError::new("redis.client_key", &error))
    }

    /// The name that the server's certificate has to have, `host` if no other is set.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, RedisTlsError> {
        let (key, name) = match self.server_name.as_str() {
            "" => ("redis.url", host),
            name => ("redis.server_name", name),
        };
        // An address of IPv6 stands in brackets in a URL.
        let name = name.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(name.to_owned()).map_err(|error| RedisTlsError::new(key, &error))
    }
}

fn is_set(file: &Path) -> bool {
    !file.as_os_str().is_empty()
}

fn certificates(
    key: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, RedisTlsError> {
    let text = fs::read(file).map_err(|error| RedisTlsError::new(key, &error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| RedisTlsError::new(key, &fault(&error)))?;
    if certificates.is_empty() {
        return Err(RedisTlsError::new(key, &"there is no certificate in the file"));
    }
    Ok(certificates)
}

fn fault(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => io::Error::to_string(error),
        pem::Error::NoItemsFound => "there is none in the file".to_owned(),
        _ => "the file is not in the format PEM".to_owned(),
    }
}

/// Trusts what the authorities have signed, and a certificate of the file for itself: one that signs
/// itself is often marked as an authority, which a server's certificate may not be (RFC 5280).
#[derive(Debug)]
struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        // Its dates are looked at before its marks are, so it is valid today.
        let is_marked =
            matches!(verified, Err(Error::InvalidCertificate(CertificateError::Other(_))));
        if !is_marked || !self.known.contains(end_entity) {
            return verified;
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
