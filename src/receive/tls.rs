//! TLS of a listener. Certificates are read when a port opens and, where an interval is set, again when a client comes
//! and they may have changed; connections that are open stay as they began.

use super::settings::{Pem, ServerTlsSettings};
use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The acceptor of a port.
pub struct Acceptor {
    settings: ServerTlsSettings,
    current: ArcSwap<ServerConfig>,
    read: Mutex<Instant>,
}

impl Acceptor {
    /// Reads the certificates; the error names the file.
    pub fn new(settings: &ServerTlsSettings) -> Result<Self, String> {
        let current = ArcSwap::new(server_config(settings)?);
        Ok(Self { settings: settings.clone(), current, read: Mutex::new(Instant::now()) })
    }

    /// For the next handshake.
    pub fn get(&self) -> TlsAcceptor {
        if let Some(interval) = self.settings.reload_interval
            && let Ok(mut read) = self.read.try_lock()
            && read.elapsed() >= interval
        {
            *read = Instant::now();
            match server_config(&self.settings) {
                Ok(config) => self.current.store(config),
                Err(error) => tracing::warn!(error, "a certificate could not be read again; the one before is shown"),
            }
        }
        TlsAcceptor::from(self.current.load_full())
    }
}

fn server_config(settings: &ServerTlsSettings) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&settings.versions.among(&TLS12, &TLS13))
        .map_err(|error| error.to_string())?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&Pem::File(path.clone()))? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("{}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(&settings.key.read()?)
        .map_err(|error| format!("{}: {error}", settings.key.place()))?;
    let mut config = builder
        .with_single_cert(certificates(&settings.certificate)?, key)
        .map_err(|error| format!("{}: {error}", settings.certificate.place()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl ServerTlsSettings {
    /// When the certificate ends, Unix seconds, as its file is now. Blocking.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn expires(&self) -> Result<i64, String> {
        let place = self.certificate.place();
        let chain = certificates(&self.certificate)?;
        let leaf = chain.first().ok_or_else(|| format!("{place}: holds no certificate"))?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| format!("{place}: {error}"))?;
        Ok(leaf.validity().not_after.timestamp())
    }
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: rustls_pki_types::pem::Error| format!("{}: {error}", pem.place());
    CertificateDer::pem_slice_iter(&pem.read()?).collect::<Result<_, _>>().map_err(failed)
}
