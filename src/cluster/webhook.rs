//! The HTTPS server that the API server asks: about new pods, about the custom resources, and for their conversion.
//!
//! Its bias: availability over injection. Whatever goes wrong, the answer lets the object through and says why; what
//! cannot be answered within the limits is cut off, and the registration's failure policy lets the object through as
//! well. This file is the server and its limits; what is answered is in `pods`, `resources` and `conversion`.

mod conversion;
mod pods;
mod resources;

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Metrics;
use super::admission::{self, Answer, Unreadable};
use super::certificates::Served;
use super::refusals::{Cause, Refusals};
use super::registration::Path;
use resources::Kind;

pub(super) use pods::Pods;

/// The API server takes objects of up to 3 MiB as JSON; the review around it adds a little. Twice that is plenty.
const BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// A conversion is about a whole list: 500 collectors of 40 KiB, or 3,000 of the usual size.
const CONVERSION_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bodies of all requests together; the largest objects are rare. What does not fit waits, which slows its sender down.
const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests being decided at once.
const DECISIONS_MAX: usize = 64;
/// Values of JSON in one body: as a tree each takes 32 bytes or more, however short its text. The largest pods have a
/// tenth of that.
const VALUES_MAX: usize = 1_000_000;
/// Values of all requests being decided.
const ALL_VALUES_MAX: usize = 2 * VALUES_MAX;
/// Per connection. An API server opens few connections with many streams each.
const STREAMS_MAX: u32 = 64;
/// What a connection may send ahead of being read: bounds what is buffered before bodies are counted.
const WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without a request for so long is closed: places are few, and who holds one needs no credentials.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// What a request may take; its times count from its arrival.
#[derive(Debug, Clone, Copy)]
struct Limits {
    body_bytes: usize,
    /// For a whole request.
    request: Duration,
    /// Of these, for the body. The API server has it in memory.
    body: Duration,
    /// Of these, until its turn must have come; the rest is for deciding, which may ask the API server in turn.
    turn: Duration,
}

/// The API server gives up after 3 s.
const ADMISSION: Limits = Limits {
    body_bytes: BODY_BYTES_MAX,
    request: Duration::from_secs(3),
    body: Duration::from_millis(1500),
    turn: Duration::from_secs(2),
};
/// The API server gives up after 30 s.
const CONVERSION: Limits = Limits {
    body_bytes: CONVERSION_BODY_BYTES_MAX,
    request: Duration::from_secs(25),
    body: Duration::from_secs(10),
    turn: Duration::from_secs(20),
};
/// A conversion's answer is as large as its body, and not counted.
const CONVERSIONS_MAX: usize = 1;
/// Running answers may finish at shutdown; the API server waits no longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// After a failed accept (no file descriptors left), wait instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that answers share.
pub(super) struct Webhook {
    pods: Arc<Pods>,
    metrics: Metrics,
    /// One permit per byte of a body.
    body_bytes: Semaphore,
    /// One permit per decision.
    turns: Semaphore,
    /// One permit per value in the bodies being decided about.
    values: Semaphore,
    conversions: Semaphore,
    refusals: Refusals,
}

/// A request without a usable body.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is larger than {} MiB", .0 / (1024 * 1024))]
    TooLarge(usize),
    #[error("the body has more than a million values")]
    TooManyValues,
    #[error("the body did not come within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the body was not read: {0}")]
    Broken(String),
}

impl BodyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) | Self::TooManyValues => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl Webhook {
    pub(super) fn new(pods: Arc<Pods>) -> Self {
        let metrics = pods.metrics.clone();
        let refusals = Refusals::new(metrics.clone());
        let (body_bytes, turns) = (Semaphore::new(BODIES_BYTES_MAX), Semaphore::new(DECISIONS_MAX));
        let (values, conversions) = (Semaphore::new(ALL_VALUES_MAX), Semaphore::new(CONVERSIONS_MAX));
        Self { pods, metrics, body_bytes, turns, values, conversions, refusals }
    }

    /// The answer to one review, as JSON; `Err`: it cannot be answered as a review.
    async fn answer(&self, path: Path, body: Vec<u8>) -> Result<Vec<u8>, String> {
        if path != Path::Conversion {
            return self.review(path, &body).await.map(|review| review.to_string().into_bytes());
        }
        // It takes longer than others may wait for a thread.
        let converted = tokio::task::spawn_blocking(move || conversion::answer(&body)).await;
        converted.map_err(|error| error.to_string())?
    }

    async fn review(&self, path: Path, body: &[u8]) -> Result<serde_json::Value, String> {
        let request = match admission::Request::read(body) {
            Ok(request) => request,
            Err(Unreadable::Unknown { uid, why }) => return Ok(unread(path, &why).into_review(&uid)),
            Err(error @ Unreadable::NoReview(_)) => return Err(error.to_string()),
        };
        let settings = self.pods.settings.load_full();
        let answer = match path {
            Path::Pods => self.pods.review(&request).await,
            Path::MutateInstrumentation => resources::mutate(Kind::Instrumentation, &request, &settings.images),
            Path::ValidateInstrumentation => resources::validate(Kind::Instrumentation, &request, &settings.images),
            Path::MutateCollector => resources::mutate(Kind::Collector, &request, &settings.images),
            Path::ValidateCollector => resources::validate(Kind::Collector, &request, &settings.images),
            // Its reviews are of another kind.
            Path::Conversion => Answer::default(),
        };
        Ok(answer.into_review(&request.uid))
    }

    /// Answers one request that arrived at `arrived`, within the limits.
    async fn respond<B>(&self, request: Request<B>, arrived: Instant) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let Some(path) = Path::of(request.uri().path()) else {
            let paths: Vec<&str> = Path::ALL.iter().map(|path| path.as_str()).collect();
            return text(StatusCode::NOT_FOUND, format!("only these are served here: {}", paths.join(" ")));
        };
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST a review".to_owned());
        }
        let limits = if path == Path::Conversion { CONVERSION } else { ADMISSION };
        let answer = self.respond_untimed(path, request, limits, arrived);
        match tokio::time::timeout_at((arrived + limits.request).into(), answer).await {
            Ok(answer) => answer,
            Err(_) => {
                self.refusals.refused(Cause::Late);
                let seconds = limits.request.as_secs();
                text(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {seconds} s"))
            }
        }
    }

    async fn respond_untimed<B>(
        &self,
        path: Path,
        request: Request<B>,
        limits: Limits,
        arrived: Instant,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        // No turn is taken before the body is here: who sends none must not hold up who does.
        let read = self.read_body(request.into_body(), limits.body_bytes);
        let read = tokio::time::timeout_at((arrived + limits.body).into(), read).await;
        let (body, _held) = match read.unwrap_or(Err(BodyError::Timeout(limits.body))) {
            Ok(read) => read,
            Err(error) => {
                if !matches!(error, BodyError::Broken(_)) {
                    self.refusals.refused(Cause::Body);
                }
                return text(error.status(), error.to_string());
            }
        };
        // Of a conversion one object at a time is read.
        let values = if path == Path::Conversion { VALUES_MAX } else { values_at_most(&body) };
        let Some(weight) = u32::try_from(values).ok().filter(|_| values <= VALUES_MAX) else {
            self.refusals.refused(Cause::Body);
            return text(BodyError::TooManyValues.status(), BodyError::TooManyValues.to_string());
        };
        self.refusals.passed(Cause::Body);
        let complete = Instant::now();
        let turn = async {
            let alone = if path == Path::Conversion { Some(self.conversions.acquire().await?) } else { None };
            tokio::try_join!(self.turns.acquire(), self.values.acquire_many(weight)).map(|turn| (alone, turn))
        };
        let turn = tokio::time::timeout_at((arrived + limits.turn).into(), turn);
        let Ok(Ok(_turn)) = turn.await else {
            self.refusals.refused(Cause::Busy);
            let why = "too many requests at once";
            return match admission::uid(&body) {
                Some(uid) if path != Path::Conversion => {
                    json(unread(path, why).into_review(&uid).to_string().into_bytes())
                }
                _ => text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()),
            };
        };
        self.refusals.passed(Cause::Busy);
        let answer = self.answer(path, body).await;
        if path == Path::Pods {
            self.metrics.record_latency(complete.elapsed());
        }
        self.refusals.passed(Cause::Late);
        match answer {
            Ok(review) => json(review),
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        }
    }

    /// The whole body, and the memory it counts as for as long as it is held.
    async fn read_body<B>(
        &self,
        mut body: B,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let mut bytes = Vec::new();
        let mut held: Option<SemaphorePermit<'_>> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > bytes_max {
                return Err(BodyError::TooLarge(bytes_max));
            }
            let count = u32::try_from(data.len()).map_err(|_| BodyError::TooLarge(bytes_max))?;
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

/// How many values a JSON text has at most: each but the first comes behind one of these.
fn values_at_most(body: &[u8]) -> usize {
    1 + body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b':')).count()
}

fn json(review: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(review)));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// What could not be looked at goes through.
fn unread(path: Path, why: &str) -> Answer {
    if path == Path::Pods {
        Answer::unchanged(why)
    } else {
        Answer::warned(format!("{why}; the resource is neither completed nor checked"))
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
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = match shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return tracing::debug!(%peer, %error, "TLS handshake with the webhook failed"),
        Some(Err(_)) | None => return,
    };
    let (requests, used) = tokio::sync::watch::channel(());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let webhook = Arc::clone(&webhook);
        requests.send_replace(());
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
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = without_requests(used, IDLE_MAX) => tracing::debug!(%peer, "a connection without requests is closed"),
    }
    connection.as_mut().graceful_shutdown();
    // Who does not close in turn is cut off.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connection).await;
}

/// Ends when no request came for so long.
async fn without_requests(mut requests: tokio::sync::watch::Receiver<()>, limit: Duration) {
    while let Ok(Ok(())) = tokio::time::timeout(limit, requests.changed()).await {}
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use serde_json::{Value, json};

    use tokio::sync::mpsc::Receiver;

    use super::super::events::{Dated, Events};
    use super::super::lookup::Lookup;
    use super::*;
    use crate::inject::Instrumentation;

    fn webhook() -> Webhook {
        webhook_with_events().0
    }

    fn webhook_with_events() -> (Webhook, Receiver<Dated>) {
        // Never called: the index is not synced, so nothing is looked up.
        let config = kube::Config::new("http://192.0.2.1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let (events, published) = Events::channel(Metrics::default());
        let webhook = Webhook::new(Arc::new(Pods {
            index: Arc::default(),
            lookup: Lookup::new(client),
            settings: Arc::default(),
            built_in: Instrumentation::built_in("http://x:4318"),
            events,
            metrics: Metrics::default(),
        }));
        (webhook, published)
    }

    fn post<B>(body: B) -> Request<B> {
        Request::post(Path::Pods.as_str()).body(body).unwrap()
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

        let late = Instant::now().checked_sub(ADMISSION.body).unwrap();
        assert_eq!(webhook.respond(silent(), late).await.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(refusals(&webhook), "spanreel_webhook_refusals_total{cause=\"body\"} 1");
    }

    #[tokio::test]
    async fn a_request_waits_for_its_turn_and_says_so_when_it_does_not_come() {
        let webhook = webhook();
        let all = webhook.turns.acquire_many(u32::try_from(DECISIONS_MAX).unwrap()).await.unwrap();
        let mut waiting = Box::pin(webhook.respond(review(), Instant::now()));
        assert!(waiting.as_mut().now_or_never().is_none(), "waits");

        let late = Instant::now().checked_sub(ADMISSION.turn - Duration::from_millis(600)).unwrap();
        let answer = read(webhook.respond(review(), late).await).await;
        assert_eq!(answer["response"]["uid"], "u");
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("too many requests at once"));
        assert_eq!(refusals(&webhook), "spanreel_webhook_refusals_total{cause=\"busy\"} 1");

        drop(all);
        assert_eq!(read(waiting.await).await["response"]["warnings"], Value::Null);
    }

    #[tokio::test]
    async fn pods_that_ask_too_early_or_cannot_be_read_are_counted_and_their_workloads_told() {
        let (webhook, mut published) = webhook_with_events();
        let metadata = json!({
            "annotations": {"instrumentation.opentelemetry.io/inject-sdk": "i"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}],
        });
        for (object, expected) in
            [(json!({"metadata": metadata}), "starting"), (json!({"metadata": metadata, "spec": 7}), "cannot be read")]
        {
            let mut request = admission::Request {
                operation: "CREATE".to_owned(),
                resource: "pods".to_owned(),
                namespace: "shop".to_owned(),
                object,
                ..admission::Request::default()
            };
            let answer = webhook.pods.review(&request).await;
            assert!(answer.denial.is_none() && answer.warnings[0].contains(expected), "{answer:?}");
            let text = format!("{:?}", published.try_recv().unwrap());
            assert!([expected, "StatefulSet", "db", "shop"].iter().all(|word| text.contains(word)), "{text}");
            request.dry_run = true;
            webhook.pods.review(&request).await;
            assert!(published.try_recv().is_err(), "a dry run leaves nothing behind");
        }
        let counted = refusals(&webhook);
        assert!(
            counted.contains("{cause=\"starting\"} 2") && counted.contains("{cause=\"unreadable\"} 2"),
            "{counted}"
        );
    }

    #[tokio::test]
    async fn bodies_that_would_take_far_more_memory_as_a_tree_are_refused() {
        let webhook = webhook();
        let bomb = format!("{{\"request\":{{\"uid\":\"u\",\"object\":[0{}]}}}}", ",0".repeat(BODY_BYTES_MAX / 2 - 50));
        let answer = webhook.respond(post(Full::new(Bytes::from(bomb))), Instant::now()).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refusals(&webhook), "spanreel_webhook_refusals_total{cause=\"body\"} 1");

        let all = webhook.values.acquire_many(u32::try_from(ALL_VALUES_MAX).unwrap()).await.unwrap();
        let mut waiting = Box::pin(webhook.respond(review(), Instant::now()));
        assert!(waiting.as_mut().now_or_never().is_none(), "waits for memory");
        drop(all);
        assert_eq!(read(waiting.await).await["response"]["allowed"], true);
        assert_eq!(webhook.values.available_permits(), ALL_VALUES_MAX);
    }

    #[tokio::test]
    async fn hundreds_of_large_collectors_are_converted_at_once() {
        const OBJECTS: usize = 500;
        let webhook = webhook();
        let (config, managed) = ("receivers: {otlp: {}}\n# ".to_owned() + &"x".repeat(20_000), "y".repeat(10_000));
        let object = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "x", "namespace": "n", "managedFields": [managed]}, "spec": {"config": config},
        });
        let request = |objects: usize| {
            let objects = vec![object.clone(); objects];
            let review = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "request": {"uid": "u", "desiredAPIVersion": "opentelemetry.io/v1beta1", "objects": objects},
            });
            Request::post(Path::Conversion.as_str()).body(Full::new(Bytes::from(review.to_string()))).unwrap()
        };
        let answer = read(webhook.respond(request(OBJECTS), Instant::now()).await).await;
        let converted = answer["response"]["convertedObjects"].as_array().unwrap();
        assert_eq!(converted.len(), OBJECTS);
        assert!(converted.iter().all(|object| object["spec"]["config"]["receivers"] == json!({"otlp": {}})));
        let answer = webhook.respond(request(1200), Instant::now()).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(webhook.body_bytes.available_permits(), BODIES_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_connection_is_idle_when_its_requests_cease() {
        const LIMIT: Duration = Duration::from_millis(300);
        let (requests, used) = tokio::sync::watch::channel(());
        let mut idle = Box::pin(without_requests(used, LIMIT));
        for _ in 0..4 {
            assert!(tokio::time::timeout(LIMIT / 3, idle.as_mut()).await.is_err(), "in use");
            requests.send_replace(());
        }
        tokio::time::timeout(LIMIT * 10, idle).await.unwrap();
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
