//! Certificates of the tests' own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sluice::settings::Settings;
use tempfile::TempDir;

/// A certificate for this machine, as files. It hangs on a second one, and that on an authority.
pub(crate) struct Certificate(TempDir);

impl Certificate {
    pub(crate) fn new() -> Self {
        let key = || KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(issuer("authority"), key()).unwrap();
        let between = CertifiedIssuer::signed_by(issuer("between"), key(), &authority).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own_key = key();
        let own = CertificateParams::new(names).unwrap().signed_by(&own_key, &between).unwrap();

        let files = Self(tempfile::tempdir().unwrap());
        let write = |name, text| std::fs::write(files.path(name), text).unwrap();
        write("authority.pem", authority.pem());
        write("cert.pem", own.pem() + &between.pem());
        write("key.pem", own_key.serialize_pem());
        files
    }

    /// `authority.pem`, `cert.pem` or `key.pem`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Lets a gateway serve with it.
    pub(crate) fn put_into(&self, settings: &mut Settings) {
        settings.server.tls_cert = self.path("cert.pem");
        settings.server.tls_key = self.path("key.pem");
    }

    /// A client that trusts the authority.
    pub(crate) fn client(&self) -> reqwest::ClientBuilder {
        // Every test may come first.
        sluice::http::choose_cryptography();
        let pem = std::fs::read(self.path("authority.pem")).unwrap();
        let authority = reqwest::Certificate::from_pem(&pem).unwrap();
        reqwest::Client::builder().tls_certs_only([authority])
    }
}

fn issuer(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}
