//! Connections to destinations: addresses, TCP, TLS.

use super::proxy::Proxy;
use super::settings::{ClientTlsSettings, Pem};
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Name resolution, TCP and TLS together. An address that swallows packets must not hold a retry for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One address of several; the next one is tried after that.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);

/// Where a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// The endpoint or a file that it needs is not usable; the text names it.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("endpoint {0:?}: expected host:port, http://host:port or https://host:port")]
    Endpoint(String),
    #[error("proxy_url: expected http://[user:password@]host:port")]
    Proxy,
    #[error("tls {path}: {problem}")]
    TlsFile { path: String, problem: String },
    #[error("tls: cert_file and key_file belong together: give both or none")]
    HalfAKeyPair,
    #[error("tls: no trusted root certificates found on this system; give tls::ca_file")]
    NoRoots,
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("tls: {0:?} is not a server name")]
    ServerName(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{target}: {problem}")]
    Unreachable { target: String, problem: String },
    /// Retrying does not help until a person changes certificates or settings.
    #[error("TLS with {target} fails: {problem}")]
    Tls { target: String, problem: String },
}

impl Target {
    /// Reads `host:port`, with the default port of the scheme if there is none.
    pub(super) fn parse(authority: &str, default_port: Option<u16>) -> Option<Self> {
        let parsed: http::uri::Authority = authority.parse().ok()?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        let port = match parsed.port_u16() {
            Some(port) => port,
            // A port that is there but is no number is an error, not the default.
            None if authority.ends_with(parsed.host()) => default_port?,
            None => return None,
        };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Opens connections to one destination, each time with the addresses that its name has then.
#[derive(Clone)]
pub(super) struct Connector {
    target: Target,
    tls: Option<Arc<Tls>>,
    proxy: Option<Proxy>,
    /// In place of the target's address.
    socket: Option<PathBuf>,
}

/// Whom to trust and who we are, as files say it now and then.
struct Tls {
    settings: ClientTlsSettings,
    /// What ALPN offers.
    protocol: &'static [u8],
    name: ServerName<'static>,
    current: ArcSwap<rustls::ClientConfig>,
    read: Mutex<Instant>,
}

/// A connection, plain or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Connector {
    /// `tls` of `None` is plain text; `protocol` is what ALPN offers.
    ///
    /// # Errors
    /// If a certificate or key cannot be read or used.
    pub(super) fn new(
        target: Target,
        tls: Option<&ClientTlsSettings>,
        protocol: &'static [u8],
    ) -> Result<Self, TargetError> {
        let tls = tls.map(|settings| Tls::new(settings, &target, protocol).map(Arc::new)).transpose()?;
        let environment = |name: &str| std::env::var(name).ok();
        let proxy = Proxy::of_environment(&target, tls.is_some(), environment);
        Ok(Self { target, tls, proxy, socket: None })
    }

    /// By `proxy_url` in place of what the environment says.
    ///
    /// # Errors
    /// It is no URL of an HTTP proxy.
    pub(super) fn through(mut self, proxy_url: Option<&str>) -> Result<Self, TargetError> {
        if let Some(url) = proxy_url {
            self.proxy = Some(Proxy::parse(url).ok_or(TargetError::Proxy)?);
        }
        Ok(self)
    }

    /// To a Unix socket of this machine, whatever the target's address.
    pub(super) fn at_socket(self, socket: Option<PathBuf>) -> Self {
        Self { socket, ..self }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let unreachable = |problem: String| ConnectError::Unreachable { target: self.target.to_string(), problem };
        match tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    /// As [`Connector::connect`], to one of [`Connector::addresses`].
    pub(super) async fn connect_to(&self, address: SocketAddr) -> Result<Box<dyn Stream>, ConnectError> {
        let unreachable = |problem: String| ConnectError::Unreachable { target: self.target.to_string(), problem };
        let open = async {
            let stream = Self::dial_one(address).await.map_err(|error| unreachable(format!("{address}: {error}")))?;
            self.secured(stream).await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!("{address}: no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    /// The addresses that the name has now, in the resolver's order.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let unreachable = |problem: String| ConnectError::Unreachable { target: self.target.to_string(), problem };
        let lookup = tokio::net::lookup_host((self.target.host.as_str(), self.target.port));
        match tokio::time::timeout(CONNECT_TIMEOUT, lookup).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("the name is not resolved in time".to_owned())),
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the name has no addresses of its own here: a proxy looks it up, or a socket stands in for it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.proxy.is_some() || self.socket.is_some()
    }

    async fn open(&self) -> Result<Box<dyn Stream>, ConnectError> {
        if let Some(path) = &self.socket {
            let unreachable = |error: io::Error| ConnectError::Unreachable {
                target: path.display().to_string(),
                problem: error.to_string(),
            };
            return self.secured(UnixStream::connect(path).await.map_err(unreachable)?).await;
        }
        let unreachable = |problem: String| ConnectError::Unreachable { target: self.target.to_string(), problem };
        let stream = self.tcp().await.map_err(|error| unreachable(error.to_string()))?;
        self.secured(stream).await
    }

    async fn secured(&self, stream: impl Stream + 'static) -> Result<Box<dyn Stream>, ConnectError> {
        let unreachable = |problem: String| ConnectError::Unreachable { target: self.target.to_string(), problem };
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        match tokio_rustls::TlsConnector::from(tls.config().await).connect(tls.name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            // rustls reports what is wrong with the other side as InvalidData; everything else is the network.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(ConnectError::Tls { target: self.target.to_string(), problem: error.to_string() })
            }
            Err(error) => Err(unreachable(error.to_string())),
        }
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let Some(proxy) = &self.proxy else { return Self::dial(&self.target).await };
        let mut stream = Self::dial(&proxy.address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("proxy {}: {error}", proxy.address)))?;
        proxy.open(&mut stream, &self.target).await?;
        Ok(stream)
    }

    async fn dial(target: &Target) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((target.host.as_str(), target.port)).await? {
            match Self::dial_one(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_one(address: SocketAddr) -> io::Result<TcpStream> {
        match tokio::time::timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(stream) => {
                let stream = stream?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"))),
        }
    }
}

impl Tls {
    fn new(settings: &ClientTlsSettings, target: &Target, protocol: &'static [u8]) -> Result<Self, TargetError> {
        let name = settings.server_name_override.clone().unwrap_or_else(|| target.host.clone());
        let name = ServerName::try_from(name.clone()).map_err(|_| TargetError::ServerName(name))?;
        let current = ArcSwap::from_pointee(tls_config(settings, protocol)?);
        Ok(Self { settings: settings.clone(), protocol, name, current, read: Mutex::new(Instant::now()) })
    }

    /// For the next handshake: read again if it is time for that. What cannot be read or used stays as it was.
    async fn config(self: &Arc<Self>) -> Arc<rustls::ClientConfig> {
        if self.is_due() {
            let tls = Arc::clone(self);
            let read = tokio::task::spawn_blocking(move || match tls_config(&tls.settings, tls.protocol) {
                Ok(config) => tls.current.store(Arc::new(config)),
                Err(error) => tracing::warn!(%error, "certificates could not be read again; those before are used"),
            });
            let _ = read.await;
        }
        self.current.load_full()
    }

    fn is_due(&self) -> bool {
        let Some(interval) = self.settings.reload_interval else { return false };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = read.elapsed() >= interval;
        if is_due {
            *read = Instant::now();
        }
        is_due
    }
}

fn tls_config(settings: &ClientTlsSettings, protocol: &[u8]) -> Result<rustls::ClientConfig, TargetError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&settings.versions.among(&TLS12, &TLS13))?;
    let builder = if settings.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyServer { provider }))
    } else {
        builder.with_root_certificates(roots(settings)?)
    };
    let mut config = match (&settings.certificate, &settings.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let certificates = certificates(certificate, "cert_pem")?;
            let key = match key {
                Pem::File(path) => PrivateKeyDer::from_pem_file(path),
                Pem::Text(text) => PrivateKeyDer::from_pem_slice(text.as_bytes()),
            }
            .map_err(|error| pem_error(key, "key_pem", &error))?;
            builder.with_client_auth_cert(certificates, key)?
        }
        _ => return Err(TargetError::HalfAKeyPair),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn roots(settings: &ClientTlsSettings) -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &settings.ca {
        for certificate in certificates(ca, "ca_pem")? {
            roots.add(certificate)?;
        }
    }
    if settings.ca.is_none() || settings.include_system_roots {
        // A single odd certificate among the system's does not matter; none at all does.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() { Err(TargetError::NoRoots) } else { Ok(roots) }
}

fn certificates(pem: &Pem, key: &str) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    let found: Result<Vec<_>, _> = match pem {
        Pem::File(path) => CertificateDer::pem_file_iter(path).and_then(Iterator::collect),
        Pem::Text(text) => CertificateDer::pem_slice_iter(text.as_bytes()).collect(),
    };
    match found {
        Ok(certificates) if certificates.is_empty() => Err(pem_error(pem, key, &"holds no certificate")),
        found => found.map_err(|error| pem_error(pem, key, &error)),
    }
}

/// Names the file, or the key of the configuration where the text stands.
fn pem_error(pem: &Pem, key: &str, problem: &dyn std::fmt::Display) -> TargetError {
    let path = match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) => key.to_owned(),
    };
    TargetError::TlsFile { path, problem: problem.to_string() }
}

/// `insecure_skip_verify`: the connection is encrypted, to whomever.
#[derive(Debug)]
struct AcceptAnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let table = [
            ("tempo:4317", None, Some(("tempo", 4317))),
            ("tempo.obs.svc.cluster.local:4317", Some(80), Some(("tempo.obs.svc.cluster.local", 4317))),
            ("[::1]:4317", None, Some(("::1", 4317))),
            ("tempo", Some(443), Some(("tempo", 443))),
            ("[::1]", Some(80), Some(("::1", 80))),
            ("tempo", None, None),
            (":4317", None, None),
            ("tempo:otlp", Some(80), None),
            ("tempo:99999", Some(80), None),
            ("", Some(80), None),
        ];
        for (text, default_port, expected) in table {
            let target = Target::parse(text, default_port);
            assert_eq!(target.as_ref().map(|target| (target.host.as_str(), target.port)), expected, "{text}");
        }
    }

    #[test]
    fn missing_files_are_named() {
        let target = || Target { host: "localhost".to_owned(), port: 1 };
        let settings = ClientTlsSettings { ca: Some(Pem::File("/nowhere/ca.pem".into())), ..Default::default() };
        let error = Connector::new(target(), Some(&settings), b"h2").err().unwrap();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
        let settings = ClientTlsSettings {
            certificate: Some(Pem::File("/nowhere/cert.pem".into())),
            insecure_skip_verify: true,
            ..Default::default()
        };
        assert!(matches!(Connector::new(target(), Some(&settings), b"h2").err(), Some(TargetError::HalfAKeyPair)));
    }
}
