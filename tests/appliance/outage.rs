//! What forwarding promises while destinations are away, slow, picky or broken: over a real spool, real sockets and the
//! real protocols.

use crate::destination::{Answer, Destination, Options, Received};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use spanreel::forward;
use spanreel::forward::delivery::DeliverySettings;
use spanreel::forward::otlp_grpc::settings::OtlpGrpcSettings;
use spanreel::forward::otlp_http::settings::{Encoding, OtlpHttpSettings};
use spanreel::forward::settings::{
    ClientTlsSettings, Compression, ExporterSettings, Pem, QueueSettings, RetrySettings,
};
use spanreel::otlp::Signal;
use spanreel::spool::{Append, ConsumerAccount, LossReason, PipelineId, Spool, TimeRange};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// How a test's destination is spoken to.
#[derive(Clone)]
pub struct Way {
    pub is_grpc: bool,
    pub compression: Compression,
    pub encoding: Encoding,
    pub retry: Duration,
    pub timeout: Duration,
    pub tls: ClientTlsSettings,
    pub delivery: DeliverySettings,
}

impl Way {
    pub fn grpc() -> Self {
        Self {
            is_grpc: true,
            compression: Compression::Auto,
            encoding: Encoding::Proto,
            retry: Duration::from_millis(50),
            timeout: Duration::from_secs(10),
            tls: ClientTlsSettings { insecure: true, ..Default::default() },
            delivery: DeliverySettings::default(),
        }
    }

    pub fn http() -> Self {
        Self { is_grpc: false, ..Self::grpc() }
    }

    pub fn both() -> [Self; 2] {
        [Self::grpc(), Self::http()]
    }

    fn exporter(&self, address: SocketAddr) -> ExporterSettings {
        let retry = RetrySettings { initial_interval: self.retry, max_interval: self.retry, ..Default::default() };
        let headers = vec![("X-Scope-OrgID".to_owned(), "tenant".to_owned())];
        if self.is_grpc {
            ExporterSettings::OtlpGrpc(OtlpGrpcSettings {
                endpoint: format!("localhost:{}", address.port()),
                tls: self.tls.clone(),
                compression: self.compression,
                headers,
                balancer: Default::default(),
                authority: None,
                timeout: self.timeout,
                retry,
                queue: QueueSettings::default(),
                authenticator: None,
            })
        } else {
            let scheme = if self.tls.insecure { "http" } else { "https" };
            ExporterSettings::OtlpHttp(OtlpHttpSettings {
                urls: vec![(Signal::Traces, format!("{scheme}://localhost:{}/v1/traces", address.port()))],
                tls: self.tls.clone(),
                compression: self.compression,
                encoding: self.encoding,
                headers,
                timeout: self.timeout,
                retry,
                queue: QueueSettings::default(),
                authenticator: None,
                cookies: false,
                proxy_url: None,
            })
        }
    }
}

/// A spool with one destination at work.
pub struct Forwarding {
    pub spool: Spool,
    pipeline: PipelineId,
    pub destination: Arc<forward::Destination>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Forwarding {
    pub async fn start(directory: &Path, way: &Way, address: SocketAddr) -> Self {
        let settings = spanreel::spool::Settings {
            directory: directory.to_owned(),
            bytes_max: u64::MAX,
            age_max: None,
            free_bytes_min: 0,
            sync_interval: Duration::ZERO,
            memory: spanreel::spool::Memory::default(),
            trace_keys: spanreel::otlp::scan::trace_keys,
        };
        let spool = Spool::open(settings, Default::default()).expect("the spool opens");
        let pipeline = spool.pipeline("traces").await.expect("a pipeline");
        let consumer = spool.consumer("otlp/test", pipeline).expect("a cursor");
        let exporter = way.exporter(address);
        let (metrics, budget) = Default::default();
        let around = forward::Surroundings {
            signal: Signal::Traces,
            batch: None,
            delivery: &way.delivery,
            credentials: None,
            metrics: &metrics,
            budget: &budget,
        };
        let destination = forward::Destination::build("otlp/test", &exporter, consumer, around);
        let destination = Arc::new(destination.expect("usable settings"));
        let shutdown = CancellationToken::new();
        let task = {
            let (destination, shutdown) = (Arc::clone(&destination), shutdown.clone());
            tokio::spawn(async move { destination.run(shutdown).await })
        };
        Self { spool, pipeline, destination, shutdown, task }
    }

    /// Stores one request of spans with these names.
    pub async fn append(&self, names: &[String]) {
        let spans = names.iter().zip(1u64..).map(|(name, id)| Span {
            trace_id: [id.to_be_bytes(), [7; 8]].concat(),
            span_id: id.to_be_bytes().to_vec(),
            name: name.clone(),
            ..Default::default()
        });
        let scope_spans = ScopeSpans { spans: spans.collect(), ..Default::default() };
        let resource_spans = ResourceSpans { scope_spans: vec![scope_spans], ..Default::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec();
        let append = Append {
            pipeline: self.pipeline,
            request: request.into(),
            spans: u32::try_from(names.len()).unwrap(),
            rejected: 0,
            filtered: 0,
            sampled_out: 0,
            time: TimeRange { min_start: 1, max_end: 2 },
            keys: vec![7],
        };
        self.spool.append(append).await.expect("stored");
    }

    pub fn account(&self) -> ConsumerAccount {
        let snapshot = self.spool.snapshot();
        for consumer in &snapshot.consumers {
            let stored = snapshot.ledger.account(consumer.account.pipeline).unwrap().stored;
            assert_eq!(stored, consumer.account.accounted() + consumer.queued);
        }
        snapshot.consumers[0].account.clone()
    }

    pub fn lost(&self, reason: LossReason) -> u64 {
        self.account().lost.get(&reason).copied().unwrap_or(0)
    }

    /// Waits until so many spans are accounted for.
    pub async fn accounted(&self, spans: u64) {
        let began = Instant::now();
        while self.account().accounted() < spans {
            assert!(began.elapsed() < PATIENCE, "{:?} {:?}", self.account(), self.destination.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.account().accounted(), spans);
    }

    async fn held(&self) -> String {
        let began = Instant::now();
        loop {
            if let forward::State::Held { because, .. } = self.destination.status().state {
                return because;
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", self.destination.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.expect("stops in time").expect("no panic");
        self.spool.close().await;
    }
}

pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{prefix}-{index:04}")).collect()
}

pub fn take_all(_: &Received) -> Answer {
    Answer::Ok
}

#[tokio::test]
async fn stored_frames_go_through_as_they_are() {
    for way in Way::both() {
        let (directory, destination) =
            (TempDir::new().unwrap(), Destination::start(Options::default(), take_all).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        for round in 0..10 {
            forwarding.append(&names(&format!("round{round}"), 20)).await;
        }
        forwarding.accounted(200).await;
        assert_eq!(destination.taken().len(), 200);
        assert_eq!((forwarding.account().sent, forwarding.lost(LossReason::Poison)), (200, 0));
        for received in destination.received() {
            assert_eq!((received.is_grpc, received.encoding.as_str()), (way.is_grpc, "zstd"));
            assert_eq!(received.headers["x-scope-orgid"], "tenant");
        }
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn json_and_the_other_compressions_are_encoded_anew() {
    for (is_grpc, compression, encoding, expected) in [
        (true, Compression::Gzip, Encoding::Proto, "gzip"),
        (true, Compression::None, Encoding::Proto, ""),
        (false, Compression::Gzip, Encoding::Json, "gzip"),
        (false, Compression::Zstd, Encoding::Json, "zstd"),
        (false, Compression::None, Encoding::Proto, ""),
        (false, Compression::Zlib, Encoding::Proto, "zlib"),
        (false, Compression::Deflate, Encoding::Json, "deflate"),
        (false, Compression::SnappyFramed, Encoding::Proto, "x-snappy-framed"),
        (false, Compression::Lz4, Encoding::Proto, "lz4"),
    ] {
        let way = Way { is_grpc, compression, encoding, ..Way::grpc() };
        let (directory, destination) =
            (TempDir::new().unwrap(), Destination::start(Options::default(), take_all).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("a", 30)).await;
        forwarding.accounted(30).await;
        assert_eq!(destination.taken(), names("a", 30));
        assert!(destination.received().iter().all(|received| received.encoding == expected));
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn a_destination_that_was_away_gets_everything_when_it_is_back() {
    for way in Way::both() {
        // A port that nobody listens on for now.
        let address = Destination::start(Options::default(), take_all).await.address;
        let directory = TempDir::new().unwrap();
        let forwarding = Forwarding::start(directory.path(), &way, address).await;
        for round in 0..20 {
            forwarding.append(&names(&format!("round{round:02}"), 10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(matches!(forwarding.destination.status().state, forward::State::BackingOff { .. }));
        assert_eq!(forwarding.account().accounted(), 0);

        let destination = Destination::start(Options { address: Some(address), ..Default::default() }, take_all).await;
        forwarding.accounted(200).await;
        assert_eq!(destination.taken().len(), 200);
        assert!(forwarding.destination.status().last_error.is_some());
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_wait() {
    for way in Way::both() {
        // A backoff that the test would not outlive.
        let way = Way { retry: Duration::from_secs(600), ..way };
        let directory = TempDir::new().unwrap();
        let first = Destination::start(Options::default(), take_all).await;
        let forwarding = Forwarding::start(directory.path(), &way, first.address).await;
        forwarding.append(&names("a", 1)).await;
        forwarding.accounted(1).await;
        let address = first.address;
        drop(first);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = Destination::start(Options { address: Some(address), ..Default::default() }, take_all).await;
        forwarding.append(&names("b", 1)).await;
        forwarding.accounted(2).await;
        assert_eq!(second.taken(), names("b", 1));
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn a_restart_goes_on_at_the_cursor() {
    let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), take_all).await);
    let forwarding = Forwarding::start(directory.path(), &Way::grpc(), destination.address).await;
    forwarding.append(&names("before", 50)).await;
    forwarding.accounted(50).await;
    // Nothing sends while this is stored.
    forwarding.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    forwarding.append(&names("after", 50)).await;
    forwarding.stop().await;

    let forwarding = Forwarding::start(directory.path(), &Way::grpc(), destination.address).await;
    forwarding.accounted(100).await;
    let mut expected = [names("before", 50), names("after", 50)].concat();
    expected.sort();
    assert_eq!(destination.taken(), expected);
    forwarding.stop().await;
}

#[tokio::test]
async fn one_bad_span_is_parked_and_the_others_arrive() {
    for way in Way::both() {
        let answer = |received: &Received| match received.span_names.iter().any(|name| name == "bad-0017") {
            false => Answer::Ok,
            true if received.is_grpc => {
                Answer::Grpc { code: 3, message: "span ids must be 64 bit and not all zero", retry_after: None }
            }
            true => Answer::Http { status: 400, retry_after: None, body: "span ids must be 64 bit and not all zero" },
        };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("good", 40)).await;
        forwarding.append(&names("bad", 40)).await;
        forwarding.accounted(80).await;
        assert_eq!((forwarding.account().sent, forwarding.lost(LossReason::Poison)), (79, 1));
        assert!(forwarding.account().parked_bytes > 0);
        let taken = destination.taken();
        assert_eq!((taken.len(), taken.contains(&"bad-0017".to_owned())), (79, false));
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn a_bad_span_alone_is_parked_if_the_destination_takes_requests_at_all() {
    let json = Way { encoding: Encoding::Json, ..Way::http() };
    for way in [Way::grpc(), Way::http(), json] {
        let answer = |received: &Received| match received.span_names.is_empty() {
            true => Answer::Ok,
            false if received.is_grpc => Answer::Grpc { code: 3, message: "no", retry_after: None },
            false => Answer::Http { status: 400, retry_after: None, body: "no" },
        };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("bad", 1)).await;
        forwarding.accounted(1).await;
        assert_eq!(forwarding.lost(LossReason::Poison), 1);
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn a_destination_that_refuses_every_request_costs_nothing() {
    for way in Way::both() {
        let answer = |received: &Received| match received.is_grpc {
            true => Answer::Grpc { code: 3, message: "no", retry_after: None },
            false => Answer::Http { status: 400, retry_after: None, body: "no" },
        };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("good", 8)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(forwarding.account().accounted(), 0);
        // Bisected once, and then it waits.
        assert!(destination.received().len() <= 20, "{}", destination.received().len());
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn requests_that_are_too_large_are_split() {
    for way in Way::both() {
        let options = Options { raw_bytes_max: Some(2_000), ..Default::default() };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(options, take_all).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("large", 500)).await;
        forwarding.accounted(500).await;
        assert_eq!(destination.taken(), names("large", 500));
        assert!(destination.received().iter().all(|received| received.raw_bytes <= 2_000));
        assert_eq!(forwarding.account().sent, 500);
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn refused_compressions_are_given_up_one_by_one() {
    for way in Way::both() {
        let options = Options { refused_encodings: vec!["zstd", "gzip"], ..Default::default() };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(options, take_all).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("a", 5)).await;
        forwarding.accounted(5).await;
        forwarding.append(&names("b", 5)).await;
        forwarding.accounted(10).await;
        assert!(destination.received().iter().all(|received| received.encoding.is_empty()));
        assert_eq!(destination.taken().len(), 10);
        forwarding.stop().await;

        // Asked for by name, it is not replaced in silence.
        let forwarding =
            Forwarding::start(directory.path(), &Way { compression: Compression::Zstd, ..way }, destination.address)
                .await;
        forwarding.append(&names("c", 5)).await;
        assert!(forwarding.held().await.contains("zstd"));
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn the_destinations_hint_is_waited_for() {
    for way in Way::both() {
        let is_first = AtomicBool::new(true);
        let answer = move |received: &Received| match is_first.swap(false, Ordering::Relaxed) {
            false => Answer::Ok,
            true if received.is_grpc => Answer::Grpc {
                code: 8,
                message: "RATE_LIMITED: ingestion rate limit exceeded while adding 9 bytes",
                retry_after: Some(Duration::from_millis(1500)),
            },
            true => Answer::Http { status: 429, retry_after: Some("1"), body: "RATE_LIMITED" },
        };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("a", 5)).await;
        forwarding.accounted(5).await;
        let received = destination.received();
        assert_eq!(received.len(), 2);
        assert!(received[1].at - received[0].at >= Duration::from_secs(1));
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn resets_and_silence_are_retried() {
    for way in Way::both() {
        let way = Way { timeout: Duration::from_millis(300), ..way };
        let requests = AtomicUsize::new(0);
        let answer = move |received: &Received| match requests.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Answer::Reset,
            2 => Answer::Silence(Duration::from_secs(60)),
            3 if received.is_grpc => Answer::Grpc { code: 14, message: "starting", retry_after: None },
            3 => Answer::Http { status: 503, retry_after: None, body: "starting" },
            _ => Answer::Ok,
        };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("a", 5)).await;
        forwarding.accounted(5).await;
        assert_eq!(destination.taken(), names("a", 5));
        assert_eq!(forwarding.account().sent, 5);
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn rejected_spans_are_booked_and_not_sent_again() {
    for way in Way::both() {
        let answer = |_: &Received| Answer::Partial(3, "too old");
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("a", 10)).await;
        forwarding.accounted(10).await;
        assert_eq!((forwarding.account().sent, forwarding.lost(LossReason::RejectedByDestination)), (7, 3));
        assert_eq!(destination.received().len(), 1);
        forwarding.stop().await;
    }
}

#[tokio::test]
async fn refused_credentials_hold_the_data() {
    for way in Way::both() {
        let answer = |received: &Received| match received.is_grpc {
            true => Answer::Grpc { code: 16, message: "no org id", retry_after: None },
            false => Answer::Http { status: 401, retry_after: None, body: "no org id" },
        };
        let (directory, destination) = (TempDir::new().unwrap(), Destination::start(Options::default(), answer).await);
        let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
        forwarding.append(&names("a", 10)).await;
        assert!(forwarding.held().await.contains("no org id"));
        assert_eq!(forwarding.account().accounted(), 0);
        forwarding.stop().await;
    }
}

/// A destination with a certificate of its own, which lies in `ca.pem` then.
pub fn secured(directory: &Path) -> Options {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("ca.pem"), certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Options { tls: Some(Arc::new(server)), ..Default::default() }
}

#[tokio::test]
async fn tls_is_spoken_and_a_stranger_is_not_trusted() {
    let directory = TempDir::new().unwrap();
    let (options, ca_file) = (secured(directory.path()), directory.path().join("ca.pem"));
    let destination = Destination::start(options, take_all).await;
    for way in Way::both() {
        let spool = TempDir::new().unwrap();
        let stranger = Way { tls: ClientTlsSettings::default(), ..way.clone() };
        let forwarding = Forwarding::start(spool.path(), &stranger, destination.address).await;
        forwarding.append(&names("a", 5)).await;
        assert!(forwarding.held().await.contains("certificate"));
        forwarding.stop().await;

        for tls in [
            ClientTlsSettings { ca: Some(Pem::File(ca_file.clone())), ..Default::default() },
            ClientTlsSettings { insecure_skip_verify: true, ..Default::default() },
        ] {
            let spool = TempDir::new().unwrap();
            let forwarding = Forwarding::start(spool.path(), &Way { tls, ..way.clone() }, destination.address).await;
            forwarding.append(&names("a", 5)).await;
            forwarding.accounted(5).await;
            forwarding.stop().await;
        }
    }
    assert_eq!(destination.taken().len(), 20);
}
