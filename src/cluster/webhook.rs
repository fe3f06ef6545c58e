//! The HTTPS server that the API server asks about every new pod.
//!
//! Its bias: availability over injection. Whatever goes wrong, the answer lets the pod through and says why; what cannot
//! be answered within the limits is cut off, and the registration's failure policy lets the pod through as well.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{self, Answer, Unreadable};
use super::certificates::Served;
use super::index::Index;
use super::lookup::Lookup;
use super::{Metrics, registration};
use crate::inject::{self, Decision, Instrumentation, OwnerMap, PodRequest, Verdict, View};

/// The API server takes objects of up to 3 MiB as JSON; the review around it adds a little. Twice that is plenty.
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Requests being read or decided at once: bounds memory. An API server opens few connections with many streams each.
const REQUESTS_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole request; the API server gives up after 3 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Running answers may finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// After a failed accept (no file descriptors left), wait instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that answers share.
pub(super) struct Webhook {
    pub(super) index: Arc<Index>,
    pub(super) lookup: Lookup,
    pub(super) built_in: Instrumentation,
    pub(super) metrics: Metrics,
    pub(super) requests: Semaphore,
}

impl Webhook {
    pub(super) fn new(index: Arc<Index>, lookup: Lookup, built_in: Instrumentation, metrics: Metrics) -> Self {
        Self { index, lookup, built_in, metrics, requests: Semaphore::new(REQUESTS_MAX) }
    }

    /// The answer to one review, as JSON; `Err`: it cannot be answered as a review.
    async fn review(&self, body: &[u8]) -> Result<serde_json::Value, String> {
        match admission::Request::read(body) {
            Ok(request) => Ok(self.answer(&request).await.into_review(&request.uid)),
            Err(Unreadable::NoPod { uid, why }) => Ok(Answer::unchanged(&why).into_review(&uid)),
            Err(error @ Unreadable::NoReview(_)) => Err(error.to_string()),
        }
    }

    async fn answer(&self, request: &admission::Request) -> Answer {
        let pod: Pod = match serde_json::from_value(request.object.clone()) {
            Ok(pod) => pod,
            Err(error) => return Answer::unchanged(&format!("the pod cannot be read: {error}")),
        };
        if !self.index.synced().borrow().all() {
            // The registration may be an earlier process's. Only who asked for something needs to know.
            let asks =
                pod.metadata.annotations.iter().flatten().any(|(key, _)| key.contains("opentelemetry.io/inject"));
            return if asks { Answer::unchanged("Spanreel is still starting") } else { Answer::default() };
        }
        let namespace = request.namespace.as_str();
        let annotations: Arc<BTreeMap<String, String>> = match self.index.namespace(namespace) {
            Some(known) => known,
            None => Arc::new(self.lookup.namespace(namespace).await.unwrap_or_default()),
        };
        let asked = PodRequest { pod: &pod, namespace, namespace_annotations: &annotations };
        let mut catalog = self.index.catalog();
        let view = View { catalog: &catalog, built_in: &self.built_in, owners: &OwnerMap::new(), absent: &[] };
        // An Instrumentation that was applied together with the pod may not have reached the watch.
        let unseen = inject::unseen_instrumentations(&asked, &view);
        if !unseen.is_empty() {
            self.lookup.add_instrumentations(Arc::make_mut(&mut catalog), &unseen).await;
        }
        let view = View { catalog: &catalog, built_in: &self.built_in, owners: &OwnerMap::new(), absent: &[] };
        let found = self.lookup.find(&inject::look_ups(&asked, &view)).await;
        let decision = inject::decide(&asked, &View { owners: &found.owners, absent: &found.absent, ..view });
        self.metrics.record(&decision);
        log(&pod, namespace, &decision);
        let warnings = decision.warnings();
        match decision.pod.as_ref().map(|mutated| inject::patch(&request.object, &pod, mutated)) {
            None => Answer { patch: None, warnings },
            Some(Ok(patch)) => Answer { patch: Some(patch), warnings },
            Some(Err(error)) => Answer::unchanged(&error.to_string()),
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != registration::PATH {
            return text(StatusCode::NOT_FOUND, format!("only {} is served here", registration::PATH));
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview".to_owned());
        }
        let Ok(_permit) = self.requests.try_acquire() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once".to_owned());
        };
        let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body was not read: {error}")),
        };
        let started = Instant::now();
        let answer = self.review(&body).await;
        self.metrics.record_latency(started.elapsed());
        match answer {
            Ok(review) => {
                let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
                let json = header::HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        }
    }
}

/// One line per language and container; what a reinvocation finds done is not worth one.
fn log(pod: &Pod, namespace: &str, decision: &Decision) {
    let pod = pod.metadata.name.as_deref().or(pod.metadata.generate_name.as_deref()).unwrap_or_default();
    for outcome in decision.outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Skipped) {
        tracing::info!(
            namespace,
            pod,
            language = outcome.language.as_str(),
            container = outcome.container.as_deref().unwrap_or_default(),
            result = outcome.verdict.as_str(),
            reason = outcome.reason.as_str(),
            message = %outcome.message,
            "injection"
        );
    }
}

fn text(status: StatusCode, message: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(message)));
    *response.status_mut() = status;
    response
}

/// TLS with whatever certificate is served at the moment of the handshake.
pub(super) fn tls_acceptor(served: Arc<Served>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until shutdown, then lets running answers finish.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    webhook: Arc<Webhook>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the webhook cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (acceptor, webhook, shutdown) = (acceptor.clone(), Arc::clone(&webhook), shutdown.clone());
        connections.spawn(async move {
            serve_connection(stream, peer, acceptor, webhook, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    webhook: Arc<Webhook>,
    shutdown: CancellationToken,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake with the webhook failed"),
        Err(_) => return,
    };
    let service = hyper::service::service_fn(move |request| {
        let webhook = Arc::clone(&webhook);
        async move {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, webhook.respond(request)).await;
            let late = |_| text(StatusCode::GATEWAY_TIMEOUT, "no answer within 3 s".to_owned());
            Ok::<_, Infallible>(answer.unwrap_or_else(late))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(u32::try_from(REQUESTS_MAX).unwrap_or(u32::MAX));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
