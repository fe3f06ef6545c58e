//! Configurations change under load, go, and come back: no connection is closed, no span is lost or forgotten.
//!
//! The appliance runs in this process; what the cluster room would do is done by hand through [`PipelineHost`].

use crate::destination::Destination;
use crate::support::compression::Compression;
use crate::support::ledger::Ledger;
use crate::support::metrics::Metrics;
use crate::support::otlp::{Client, Protocol};
use crate::support::traces::request_of;
use crate::support::{eventually, ports};
use opentelemetry_proto::tonic::trace::v1::Span;
use spanreel::appliance::{Appliance, Options};
use spanreel::cluster::{PipelineHost, PipelineSource};
use spanreel::config::{self, Files, Input, Source};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// For what takes a retry or two; the machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(60);
const OWNER: &str = "shop/otel";
const PIPELINE: &str = "shop/otel/traces";
const CHANGES: usize = 20;

/// An appliance whose own configuration keeps out of the way.
async fn start(directory: &Path, query: u16) -> Appliance {
    let text = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}\n\
         extensions: {{spanreel: {{query_endpoint: '127.0.0.1:{query}'}}}}\n\
         service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp]}}}}}}\n"
    );
    let sources = [Source::Text { name: "base".to_owned(), text }];
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
    let loaded = config::load(&input).map_err(|errors| errors.lines()).unwrap();
    let data_directory = Some(directory.to_owned());
    let options = Options { config: loaded.config, built_in: true, data_directory, cluster: None, text_banner: false };
    Appliance::start(options).await.unwrap()
}

/// A custom resource's configuration, with what changes in it.
#[derive(Clone)]
struct Collector {
    grpc: u16,
    http: u16,
    tempo: u16,
    /// Added under `protocols::grpc`.
    grpc_more: String,
    /// The `batch` processor's settings.
    batch: String,
    tempo_more: String,
    exporters: Vec<(&'static str, String)>,
}

impl Collector {
    fn new(grpc: u16, http: u16, tempo: u16) -> Self {
        let (grpc_more, batch, tempo_more) = (String::new(), "{}".to_owned(), String::new());
        Self { grpc, http, tempo, grpc_more, batch, tempo_more, exporters: Vec::new() }
    }

    fn source(&self) -> PipelineSource {
        let Self { grpc, http, tempo, grpc_more, batch, tempo_more, exporters } = self;
        let more: String = exporters.iter().map(|(id, settings)| format!("  {id}: {settings}\n")).collect();
        let ids: String = exporters.iter().map(|(id, _)| format!(", {id}")).collect();
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: '127.0.0.1:{grpc}'{grpc_more}}}\n      \
             http: {{endpoint: '127.0.0.1:{http}'}}\nprocessors:\n  batch: {batch}\nexporters:\n  \
             otlp/tempo: {{endpoint: '127.0.0.1:{tempo}', tls: {{insecure: true}}, \
             retry_on_failure: {{initial_interval: 100ms, max_interval: 1s}}{tempo_more}}}\n{more}\
             service:\n  pipelines:\n    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp/tempo{ids}]}}\n"
        );
        PipelineSource { owner: OWNER.to_owned(), config, ..PipelineSource::default() }
    }
}

/// One connection that sends span after span until told to stop; the names of all that were acknowledged.
async fn keep_sending(port: u16, protocol: Protocol, name: String, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut client = Client::connect(port, protocol).await.unwrap();
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let span_name = format!("{name}-{}", sent.len());
        let id = (sent.len() as u64 + 1).to_be_bytes();
        let trace_id = [name.as_bytes(), &[0; 8]].concat()[..8].iter().chain(&id).copied().collect();
        let now = 1_700_000_000_000_000_000;
        let span = Span {
            trace_id,
            span_id: id.to_vec(),
            name: span_name.clone(),
            start_time_unix_nano: now,
            end_time_unix_nano: now + 1,
            ..Span::default()
        };
        let request = request_of("reload", vec![span]);
        let answer = client.export(&request, Compression::Identity).await;
        let answer = answer.unwrap_or_else(|error| panic!("{protocol:?}: the connection broke: {error:?}"));
        assert!(answer.is_ok() && answer.rejected_spans == 0, "{protocol:?}: {answer:?}");
        sent.push(span_name);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    sent
}

async fn ledger(query: u16) -> Ledger {
    Ledger::of(&Metrics::scrape(query).await.unwrap())
}

async fn send(port: u16, name: &str, spans: usize) {
    let mut client = Client::connect(port, Protocol::HttpProtobuf).await.unwrap();
    let spans = (1..=spans as u64).map(|number| Span {
        trace_id: [7; 16].to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        name: format!("{name}-{number}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_000_000_001,
        ..Span::default()
    });
    let answer = client.export(&request_of("reload", spans.collect()), Compression::Identity).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

/// What the configuration is at the change of this number: each differs from the one before.
fn variant(base: &Collector, number: usize, other: u16) -> Collector {
    let mut collector = base.clone();
    match number % 5 {
        0 => collector.grpc_more = format!(", max_recv_msg_size_mib: {}", 5 + number),
        1 => collector.batch = format!("{{send_batch_size: {}}}", 100 + number),
        2 => {
            let settings = format!("{{endpoint: 'http://127.0.0.1:{other}', compression: none}}");
            collector.exporters.push(("otlphttp/other", settings));
        }
        3 => collector.tempo_more = format!(", timeout: {}s", 10 + number),
        _ => collector.exporters.push(("debug", "{}".to_owned())),
    }
    collector
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_changes_under_load_close_no_connection_and_lose_no_span() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http) = (ports::free(), ports::free(), ports::free());
    let tempo = Destination::start(crate::destination::Options::default(), |_| crate::destination::Answer::Ok).await;
    let other = Destination::start(crate::destination::Options::default(), |_| crate::destination::Answer::Ok).await;
    let appliance = start(directory.path(), query).await;
    let host = appliance.host();
    let collector = Collector::new(grpc, http, tempo.address.port());
    host.apply(collector.source()).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let kinds = [
        (grpc, Protocol::Grpc, "ga"),
        (http, Protocol::Grpc, "gb"),
        (http, Protocol::HttpProtobuf, "ha"),
        (grpc, Protocol::HttpJson, "hb"),
    ];
    let senders = kinds
        .map(|(port, protocol, name)| tokio::spawn(keep_sending(port, protocol, name.to_owned(), Arc::clone(&stop))));
    for number in 0..CHANGES {
        tokio::time::sleep(Duration::from_millis(50)).await;
        host.apply(variant(&collector, number, other.address.port()).source()).await.unwrap();
        if number == CHANGES / 2 {
            // What is refused changes nothing either.
            let broken = Collector { tempo_more: ", headers: {'bad name': x}".to_owned(), ..collector.clone() };
            assert!(host.apply(broken.source()).await.is_err());
            let taken = Collector { http: query, ..collector.clone() };
            assert!(host.apply(taken.source()).await.unwrap_err().reasons[0].contains(&query.to_string()));
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::Relaxed);
    let mut sent = BTreeSet::new();
    for sender in senders {
        let names = sender.await.expect("no connection broke, every answer was OK");
        assert!(names.len() > 20, "it was sending all the time: {}", names.len());
        sent.extend(names);
    }

    eventually("everything is forwarded", SOON, || async { ledger(query).await.destination("otlp/tempo").queued == 0 })
        .await;
    let ledger = ledger(query).await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, sent.len() as u64, "each span is stored once");
    assert_eq!(ledger.destination("otlp/tempo").sent, sent.len() as u64, "and counted as sent once");
    assert_eq!(tempo.taken().into_iter().collect::<BTreeSet<_>>(), sent, "and has arrived");
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_did_not_change_is_not_disturbed() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http) = (ports::free(), ports::free(), ports::free());
    let tempo = Destination::start(crate::destination::Options::default(), |_| crate::destination::Answer::Ok).await;
    let appliance = start(directory.path(), query).await;
    let collector = Collector::new(grpc, http, tempo.address.port());
    let arrived = async |spans: usize| {
        eventually("the spans at the destination", SOON, || async { tempo.taken().len() == spans }).await;
    };
    for number in 0..5 {
        // Limits, other exporters: nothing that concerns this one.
        let mut changed = variant(&collector, [0, 2, 4, 0, 2][number], 1);
        changed.grpc_more = format!(", max_recv_msg_size_mib: {}", 5 + number);
        appliance.host().apply(changed.source()).await.unwrap();
        send(http, &format!("undisturbed{number}"), 3).await;
        arrived(3 * (number + 1)).await;
        assert_eq!(tempo.connections(), 1, "the one connection serves on");
    }
    let changed = Collector { tempo_more: ", timeout: 9s".to_owned(), ..collector };
    appliance.host().apply(changed.source()).await.unwrap();
    send(http, "changed", 3).await;
    arrived(18).await;
    assert_eq!(tempo.connections(), 2, "a changed one connects anew, and goes on at its cursor");
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_resource_left_is_forwarded_even_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http, tempo_port) = (ports::free(), ports::free(), ports::free(), ports::free());
    let archive = directory.path().join("collectors.json");
    let appliance = start(directory.path(), query).await;
    let collector = Collector::new(grpc, http, tempo_port);
    appliance.host().apply(collector.source()).await.unwrap();
    send(http, "left", 50).await;
    let mode = std::fs::metadata(&archive).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it may hold secrets");
    appliance.host().remove(OWNER).await;
    assert!(Client::connect(http, Protocol::HttpProtobuf).await.is_err(), "its ports are closed at once");
    assert_eq!(ledger(query).await.destination("otlp/tempo").queued, 50);
    appliance.stop().await;

    let appliance = start(directory.path(), query).await;
    let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], tempo_port)));
    let options = crate::destination::Options { address, ..crate::destination::Options::default() };
    let tempo = Destination::start(options, |_| crate::destination::Answer::Ok).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(tempo.taken().is_empty(), "not before it is known that the resource is gone");
    // While it is there, nothing is done for it; another one's absence is none of its business.
    appliance.host().listed(&BTreeSet::from([OWNER.to_owned()])).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(tempo.taken().is_empty());
    appliance.host().listed(&BTreeSet::new()).await;
    eventually("the spans at the destination", SOON, || async { tempo.taken().len() == 50 }).await;
    eventually("the account", SOON, || async { ledger(query).await.destinations.values().all(|it| it.queued == 0) })
        .await;
    assert!(Client::connect(http, Protocol::HttpProtobuf).await.is_err(), "nothing listens for it");

    // It comes back under its name and takes over: nothing twice, nothing forgotten.
    appliance.host().apply(collector.source()).await.unwrap();
    send(http, "again", 5).await;
    eventually("the new spans", SOON, || async { tempo.taken().len() == 55 }).await;
    eventually("the account", SOON, || async { ledger(query).await.destination("otlp/tempo").sent == 55 }).await;
    ledger(query).await.assert_balanced();
    appliance.host().remove(OWNER).await;
    appliance.stop().await;

    // Gone and forwarded: nothing of its configuration stays.
    let appliance = start(directory.path(), query).await;
    appliance.host().listed(&BTreeSet::new()).await;
    assert_eq!(std::fs::read_to_string(&archive).unwrap(), "{}");
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_comes_back_while_it_is_drained_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http, tempo_port) = (ports::free(), ports::free(), ports::free(), ports::free());
    let appliance = start(directory.path(), query).await;
    let collector = Collector::new(grpc, http, tempo_port);
    for round in 0..3 {
        appliance.host().apply(collector.source()).await.unwrap();
        send(http, &format!("round{round}"), 10).await;
        appliance.host().remove(OWNER).await;
    }
    appliance.host().apply(collector.source()).await.unwrap();
    let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], tempo_port)));
    let options = crate::destination::Options { address, ..crate::destination::Options::default() };
    let tempo = Destination::start(options, |_| crate::destination::Answer::Ok).await;
    eventually("the spans at the destination", SOON, || async { tempo.taken().len() == 30 }).await;
    eventually("the account", SOON, || async { ledger(query).await.destination("otlp/tempo").sent == 30 }).await;
    let ledger = ledger(query).await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 30);
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_renamed_under_a_request_and_a_backlog_loses_neither() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http, tempo_port) = (ports::free(), ports::free(), ports::free(), ports::free());
    let appliance = Arc::new(start(directory.path(), query).await);
    let before = Collector::new(grpc, http, tempo_port).source();
    let mut after = before.clone();
    after.config = after.config.replace("    traces:", "    traces/renamed:");
    appliance.host().apply(before.clone()).await.unwrap();
    send(http, "backlog", 5).await;

    // A request that began before the change ends after it.
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"under way","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;
    let (first, rest) = body.split_at(20);
    let mut upload = tokio::net::TcpStream::connect(("127.0.0.1", http)).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let change = tokio::spawn({
        let (appliance, after) = (Arc::clone(&appliance), after.clone());
        async move { appliance.host().apply(after).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    send(http, "renamed", 1).await;
    upload.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    assert_eq!(change.await.unwrap().unwrap().warnings, [""; 0]);
    let accounts = ledger(query).await;
    assert_eq!(accounts.pipeline(PIPELINE).stored, 6);
    assert_eq!(accounts.pipeline("shop/otel/traces/renamed").stored, 1);

    let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], tempo_port)));
    let options = crate::destination::Options { address, ..crate::destination::Options::default() };
    let tempo = Destination::start(options, |_| crate::destination::Answer::Ok).await;
    eventually("all spans at the destination", SOON, || async { tempo.taken().len() == 7 }).await;
    eventually("the account", SOON, || async { ledger(query).await.destinations.values().all(|it| it.queued == 0) })
        .await;
    ledger(query).await.assert_balanced();

    // The old name again, while nothing waits: its cursor goes on.
    appliance.host().apply(before).await.unwrap();
    send(http, "back", 2).await;
    eventually("the last spans", SOON, || async { tempo.taken().len() == 9 }).await;
    eventually("the account", SOON, || async { ledger(query).await.destinations.values().all(|it| it.queued == 0) })
        .await;
    ledger(query).await.assert_balanced();
    Arc::into_inner(appliance).unwrap().stop().await;
}

/// A certificate for `127.0.0.1` and its key, as PEM files; the certificate as clients trust it.
fn certificate(directory: &Path, name: &str) -> (String, String, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = |what: &str| directory.join(format!("{name}.{what}")).display().to_string();
    std::fs::write(path("crt"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    (path("crt"), path("key"), certificate.der().to_vec())
}

/// A TLS connection to a port of this machine, if the server shows a certificate that is `trusted`.
async fn tls(port: u16, trusted: &[u8]) -> Option<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await.ok()
}

/// One request on an open connection; `None`: it was closed.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<()> {
    let request =
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.ok()?;
    assert_eq!(answer, b"HTTP/1.1 200");
    // The rest of the answer is short and comes at once.
    let mut rest = vec![0; 4096];
    (stream.read(&mut rest).await.ok()? > 0).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_shown_to_new_connections_and_changed_tls_ends_the_old_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http) = (ports::free(), ports::free(), ports::free());
    let appliance = start(directory.path(), query).await;
    let host = appliance.host();
    let collector = Collector::new(grpc, http, 1);
    host.apply(collector.source()).await.unwrap();
    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", grpc)).await.unwrap();
    ask(&mut plain).await.expect("in the clear");

    let (cert, key, first) = certificate(directory.path(), "tls");
    let settings = format!(", tls: {{cert_file: '{cert}', key_file: '{key}'}}");
    let secured = Collector { grpc_more: settings, ..collector.clone() };
    host.apply(secured.source()).await.unwrap();
    assert!(ask(&mut plain).await.is_none(), "who came in the clear does not stay");
    let mut old = tls(grpc, &first).await.expect("TLS is spoken now");
    ask(&mut old).await.expect("served");

    let (_, _, second) = certificate(directory.path(), "tls");
    let mut renewed = secured.clone();
    renewed.tempo_more = ", timeout: 9s".to_owned();
    host.apply(renewed.source()).await.unwrap();
    ask(&mut old).await.expect("the connection stays");
    assert!(tls(grpc, &second).await.is_some(), "and new ones see the new certificate");

    std::fs::write(&cert, "no certificate").unwrap();
    let lines = host.apply(secured.source()).await.unwrap_err().reasons;
    assert!(lines[0].contains("tls.crt"), "{lines:?}");
    ask(&mut old).await.expect("the connection stays");
    assert!(tls(grpc, &second).await.is_some());
    appliance.stop().await;
}

/// Whoever connects to a port with TLS and says nothing holds up neither a change nor the end of the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_of_a_port_with_tls_holds_nothing_up() {
    /// Far below the time that a handshake may take.
    const AT_ONCE: Duration = Duration::from_secs(4);
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http) = (ports::free(), ports::free(), ports::free());
    let appliance = start(directory.path(), query).await;
    let (cert, key, _) = certificate(directory.path(), "tls");
    let settings = format!(", tls: {{cert_file: '{cert}', key_file: '{key}'}}");
    let secured = Collector { grpc_more: settings, ..Collector::new(grpc, http, 1) };
    appliance.host().apply(secured.source()).await.unwrap();

    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", grpc)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let moved = Collector { grpc: ports::free(), ..secured };
    let changed = tokio::time::timeout(AT_ONCE, appliance.host().apply(moved.source())).await;
    changed.expect("the change does not wait for the client").unwrap();

    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", moved.grpc)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = tokio::time::timeout(AT_ONCE, appliance.stop()).await;
    stopped.expect("the process does not wait for the client");
}

/// Stopping is bounded as a whole: clients that do not finish and destinations that do not answer are waited for at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_and_a_silent_destination_are_waited_for_together() {
    /// Each has two seconds.
    const TOGETHER: Duration = Duration::from_millis(3500);
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http, health) = (ports::free(), ports::free(), ports::free(), ports::free());
    let appliance = start(directory.path(), query).await;
    let tempo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut source = Collector::new(grpc, http, tempo.local_addr().unwrap().port()).source();
    let extension = format!(
        "extensions: {{health_check: {{endpoint: '127.0.0.1:{health}'}}}}\nservice:\n  extensions: [health_check]\n"
    );
    source.config = source.config.replace("service:\n", &extension);
    appliance.host().apply(source).await.unwrap();
    send(http, "never answered", 1).await;
    let _connection = tempo.accept().await.unwrap();
    let mut client = tokio::net::TcpStream::connect(("127.0.0.1", health)).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = tokio::time::timeout(TOGETHER, appliance.stop()).await;
    stopped.expect("both within the time of one");
}

/// Longer than a change waits for requests that began before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_outlasts_the_wait_of_a_change_is_still_forwarded() {
    const LONGER: Duration = Duration::from_millis(6500);
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http) = (ports::free(), ports::free(), ports::free());
    let tempo = Destination::start(crate::destination::Options::default(), |_| crate::destination::Answer::Ok).await;
    let appliance = start(directory.path(), query).await;
    let before = Collector::new(grpc, http, tempo.address.port()).source();
    let mut after = before.clone();
    after.config = after.config.replace("    traces:", "    traces/renamed:");
    appliance.host().apply(before).await.unwrap();

    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"slow","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;
    let (first, rest) = body.split_at(20);
    let mut upload = tokio::net::TcpStream::connect(("127.0.0.1", http)).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let change = appliance.host().apply(after);
    let (changed, ()) = tokio::join!(change, tokio::time::sleep(LONGER));
    changed.unwrap();
    upload.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    eventually("the span at the destination", SOON, || async { tempo.taken() == ["slow"] }).await;
    eventually("the account", SOON, || async { ledger(query).await.destinations.values().all(|it| it.queued == 0) })
        .await;
    ledger(query).await.assert_balanced();
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_reload_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (query, grpc, http) = (ports::free(), ports::free(), ports::free());
    let appliance = start(directory.path(), query).await;
    let (cert, key, first) = certificate(directory.path(), "tls");
    let settings =
        format!(", tls: {{cert_file: '{cert}', key_file: '{key}', min_version: '1.3', reload_interval: 1ms}}");
    let secured = Collector { grpc_more: settings, ..Collector::new(grpc, http, 1) };
    appliance.host().apply(secured.source()).await.unwrap();
    let mut old = tls(grpc, &first).await.expect("TLS is spoken");
    let (_, _, second) = certificate(directory.path(), "tls");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(tls(grpc, &second).await.is_some(), "new connections see the new certificate");
    ask(&mut old).await.expect("the connection stays");
    std::fs::write(&cert, "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(tls(grpc, &second).await.is_some(), "the one before is shown");
    appliance.stop().await;
}
