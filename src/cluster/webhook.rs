//! The HTTPS server that the API server asks about every new pod.
//!
//! Its bias: availability over injection. Whatever goes wrong, the answer lets the pod through and says why; what cannot
//! be answered within the limits is cut off, and the registration's failure policy lets the pod through as well.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{self, Answer, Unreadable};
use super::certificates::Served;
use super::events::Events;
use super::index::Index;
use super::lookup::Lookup;
use super::refusals::{Cause, Refusals};
use super::{Metrics, registration, sidecar};
use crate::inject::{self, Catalog, Decision, Instrumentation, OwnerMap, PodRequest, Verdict, View};

/// The API server takes objects of up to 3 MiB as JSON; the review around it adds a little. Twice that is plenty.
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Bodies of all requests together; the largest objects are rare. What does not fit waits, which slows its sender down.
const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests being decided at once: a pod as a tree takes far more memory than its text.
const DECISIONS_MAX: usize = 64;
/// Per connection. An API server opens few connections with many streams each.
const STREAMS_MAX: u32 = 64;
/// What a connection may send ahead of being read: bounds what is buffered before bodies are counted.
const WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole request; the API server gives up after 3 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Of these, for the body. The API server has it in memory.
const BODY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Of these, until its turn must have come; the rest is for deciding, which may ask the API server in turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// Running answers may finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// After a failed accept (no file descriptors left), wait instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that answers share.
pub(super) struct Webhook {
    pub(super) index: Arc<Index>,
    pub(super) lookup: Lookup,
    pub(super) settings: inject::Settings,
    pub(super) built_in: Instrumentation,
    pub(super) metrics: Metrics,
    pub(super) events: Events,
    /// One permit per byte of a body.
    body_bytes: Semaphore,
    /// One permit per decision.
    turns: Semaphore,
    refusals: Refusals,
}

/// A request without a usable body.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is larger than 6 MiB")]
    TooLarge,
    #[error("the body did not come within 1.5 s")]
    Timeout,
    #[error("the body was not read: {0}")]
    Broken(String),
}

impl BodyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl Webhook {
    pub(super) fn new(
        index: Arc<Index>,
        lookup: Lookup,
        settings: inject::Settings,
        built_in: Instrumentation,
        metrics: Metrics,
        events: Events,
    ) -> Self {
        let refusals = Refusals::new(metrics.clone());
        let (body_bytes, turns) = (Semaphore::new(BODIES_BYTES_MAX), Semaphore::new(DECISIONS_MAX));
        Self { index, lookup, settings, built_in, metrics, events, body_bytes, turns, refusals }
    }

    /// The answer to one review, as JSON; `Err`: it cannot be answered as a review.
    async fn review(&self, body: &[u8]) -> Result<serde_json::Value, String> {
        match admission::Request::read(body) {
            Ok(request) => Ok(self.answer(&request).await.into_review(&request.uid)),
            Err(Unreadable::NoPod { uid, why }) => Ok(Answer::unchanged(&why).into_review(&uid)),
            Err(error @ Unreadable::NoReview(_)) => Err(error.to_string()),
        }
    }

    /// What is known without asking.
    fn view<'a>(&'a self, catalog: &'a Catalog, owners: &'a OwnerMap) -> View<'a> {
        View { settings: &self.settings, catalog, built_in: &self.built_in, owners, absent: &[] }
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
        let unknown = OwnerMap::new();
        let view = self.view(&catalog, &unknown);
        // An Instrumentation that was applied together with the pod may not have reached the watch.
        let unseen = inject::unseen_instrumentations(&asked, &view);
        if !unseen.is_empty() {
            self.lookup.add_instrumentations(Arc::make_mut(&mut catalog), &unseen).await;
        }
        let view = self.view(&catalog, &unknown);
        let found = self.lookup.find(&inject::look_ups(&asked, &view)).await;
        let decision = inject::decide(&asked, &View { owners: &found.owners, absent: &found.absent, ..view });
        self.metrics.record(&decision);
        sidecar::annotation_refused(&asked, &found.owners).into_iter().for_each(|note| self.events.publish(note));
        log(&pod, namespace, &decision);
        let warnings = decision.warnings();
        match decision.pod.as_ref().map(|mutated| inject::patch(&request.object, &pod, mutated)) {
            None => Answer { patch: None, warnings },
            Some(Ok(patch)) => Answer { patch: Some(patch), warnings },
            Some(Err(error)) => Answer::unchanged(&error.to_string()),
        }
    }

    /// Answers one request that arrived at `arrived`, within the limits.
    async fn respond<B>(&self, request: Request<B>, arrived: Instant) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let answer =
            tokio::time::timeout_at((arrived + REQUEST_TIMEOUT).into(), self.respond_untimed(request, arrived));
        match answer.await {
            Ok(answer) => answer,
            Err(_) => {
                self.refusals.refused(Cause::Late);
                text(StatusCode::GATEWAY_TIMEOUT, "no answer within 3 s".to_owned())
            }
        }
    }

    async fn respond_untimed<B>(&self, request: Request<B>, arrived: Instant) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        if request.uri().path() != registration::PATH {
            return text(StatusCode::NOT_FOUND, format!("only {} is served here", registration::PATH));
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview".to_owned());
        }
        // No turn is taken before the body is here: who sends none must not hold up who does.
        let read = tokio::time::timeout_at((arrived + BODY_TIMEOUT).into(), self.read_body(request.into_body()));
        let (body, _held) = match read.await.unwrap_or(Err(BodyError::Timeout)) {
            Ok(read) => read,
            Err(error) => {
                if !matches!(error, BodyError::Broken(_)) {
                    self.refusals.refused(Cause::Body);
                }
                return text(error.status(), error.to_string());
            }
        };
        self.refusals.passed(Cause::Body);
        let turn = tokio::time::timeout_at((arrived + TURN_TIMEOUT).into(), self.turns.acquire());
        let Ok(Ok(_turn)) = turn.await else {
            self.refusals.refused(Cause::Busy);
            let why = "too many requests at once";
            return match admission::uid(&body) {
                Some(uid) => json(&Answer::unchanged(why).into_review(&uid)),
                None => text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()),
            };
        };
        self.refusals.passed(Cause::Busy);
        let started = Instant::now();
        let answer = self.review(&body).await;
        self.metrics.record_latency(started.elapsed());
        self.refusals.passed(Cause::Late);
        match answer {
            Ok(review) => json(&review),
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        }
    }

    /// The whole body, and the memory it counts as for as long as it is held.
    async fn read_body<B>(&self, mut body: B) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let mut bytes = Vec::new();
        let mut held: Option<SemaphorePermit<'_>> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(BodyError::TooLarge);
            }
            let count = u32::try_from(data.len()).map_err(|_| BodyError::TooLarge)?;
            let more = self.body_bytes.acquire_many(count).await.map_err(|e| BodyError::Broken(e.to_string()))?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes, held))
    }
}

fn json(review: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
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
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            webhook.refusals.refused(Cause::Connections);
            continue;
        };
        webhook.refusals.passed(Cause::Connections);
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
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let webhook = Arc::clone(&webhook);
        async move { Ok::<_, Infallible>(webhook.respond(request, Instant::now()).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use serde_json::{Value, json};

    use super::*;

    fn webhook() -> Webhook {
        // Never called: the index is not synced, so nothing is looked up.
        let config = kube::Config::new("http://192.0.2.1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let built_in = Instrumentation::built_in("http://x:4318");
        let (settings, events) = (inject::Settings::default(), Events::channel().0);
        Webhook::new(Arc::default(), Lookup::new(client), settings, built_in, Metrics::default(), events)
    }

    fn post<B>(body: B) -> Request<B> {
        Request::post(registration::PATH).body(body).unwrap()
    }

    fn review() -> Request<Full<Bytes>> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "operation": "CREATE", "resource": {"group": "", "resource": "pods"}, "object": {}},
        });
        post(Full::new(Bytes::from(review.to_string())))
    }

    async fn read(response: Response<Full<Bytes>>) -> Value {
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    fn refusals(webhook: &Webhook) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        webhook.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| line.starts_with("spanreel_webhook_refusals_total")).collect()
    }

    #[tokio::test]
    async fn requests_without_a_body_hold_up_nobody_and_end() {
        let webhook = webhook();
        let silent = || post(StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>()));
        let arrived = Instant::now();
        let mut held = Box::pin(join_all((0..DECISIONS_MAX * 2).map(|_| webhook.respond(silent(), arrived))));
        assert!(held.as_mut().now_or_never().is_none());
        let answer = read(webhook.respond(review(), Instant::now()).await).await;
        assert_eq!(answer["response"]["allowed"], true);
        assert_eq!(answer["response"]["warnings"], Value::Null);

        let late = Instant::now().checked_sub(BODY_TIMEOUT).unwrap();
        assert_eq!(webhook.respond(silent(), late).await.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(refusals(&webhook), "spanreel_webhook_refusals_total{cause=\"body\"} 1");
    }

    #[tokio::test]
    async fn a_request_waits_for_its_turn_and_says_so_when_it_does_not_come() {
        let webhook = webhook();
        let all = webhook.turns.acquire_many(u32::try_from(DECISIONS_MAX).unwrap()).await.unwrap();
        let mut waiting = Box::pin(webhook.respond(review(), Instant::now()));
        assert!(waiting.as_mut().now_or_never().is_none(), "waits");

        let late = Instant::now().checked_sub(TURN_TIMEOUT - Duration::from_millis(600)).unwrap();
        let answer = read(webhook.respond(review(), late).await).await;
        assert_eq!(answer["response"]["uid"], "u");
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("too many requests at once"));
        assert_eq!(refusals(&webhook), "spanreel_webhook_refusals_total{cause=\"busy\"} 1");

        drop(all);
        assert_eq!(read(waiting.await).await["response"]["warnings"], Value::Null);
    }

    #[tokio::test]
    async fn bodies_are_bounded_one_by_one_and_together() {
        let webhook = webhook();
        let large = post(Full::new(Bytes::from(vec![b' '; BODY_BYTES_MAX + 1])));
        assert_eq!(webhook.respond(large, Instant::now()).await.status(), StatusCode::PAYLOAD_TOO_LARGE);

        let all = webhook.body_bytes.acquire_many(u32::try_from(BODIES_BYTES_MAX).unwrap()).await.unwrap();
        let mut waiting = Box::pin(webhook.respond(review(), Instant::now()));
        assert!(waiting.as_mut().now_or_never().is_none(), "waits for memory");
        drop(all);
        assert_eq!(read(waiting.await).await["response"]["allowed"], true);
        assert_eq!(webhook.body_bytes.available_permits(), BODIES_BYTES_MAX, "all memory is given back");
    }
}
