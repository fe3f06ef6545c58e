//! Pipelines that custom resources bring: they borrow ports, disturb nobody, and leave nothing behind.
//!
//! The appliance runs in this process; what the cluster room would do is done by hand through [`PipelineHost`].
use spanreel::appliance::{Appliance, Options};
use spanreel::cluster::{PipelineHost, PipelineSource};
use spanreel::config::{self, Files, Input, Source};
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The next port to try; tests of this process run side by side and must not be given the same one.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// Ports that are free now; they are below the ephemeral range, so no client sits on one by chance.
fn free_ports<const N: usize>() -> [u16; N] {
    let first = 18_000 + (std::process::id() % 1_000) as u16;
    let mut candidates = std::iter::repeat_with(|| first + NEXT_PORT.fetch_add(1, Ordering::Relaxed)).take(500);
    std::array::from_fn(|_| {
        candidates.find(|port| StdListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port below 20000")
    })
}

fn collector(grpc: u16, http: Option<u16>) -> String {
    let http = http.map(|port| format!("      http: {{ endpoint: \"127.0.0.1:{port}\" }}\n")).unwrap_or_default();
    format!(
        "receivers:\n  otlp:\n    protocols:\n      grpc: {{ endpoint: \"127.0.0.1:{grpc}\" }}\n{http}\
         exporters:\n  otlp: {{ endpoint: \"127.0.0.1:1\", tls: {{ insecure: true }} }}\n\
         service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    traces: {{ receivers: [otlp], exporters: [otlp] }}\n"
    )
}

async fn start(directory: &TempDir, grpc: u16, http: u16) -> Appliance {
    start_with(directory, grpc, http, true).await
}

async fn start_with(directory: &TempDir, grpc: u16, http: u16, built_in: bool) -> Appliance {
    let text = collector(grpc, Some(http)).replacen(
        "exporters:",
        "extensions: { spanreel: { query_endpoint: \"\" } }\nexporters:",
        1,
    );
    let sources = [Source::Text { name: "base".to_owned(), text }];
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
    let loaded = config::load(&input).map_err(|errors| errors.lines()).unwrap();
    Appliance::start(Options {
        config: loaded.config,
        built_in,
        data_directory: Some(directory.path().to_owned()),
        cluster: None,
        text_banner: false,
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_nothing_running_whatever_had_started() {
    let [grpc, http] = free_ports();
    for taken in ["query", "grpc"] {
        let directory = TempDir::new().unwrap();
        let socket = std::net::TcpListener::bind(("127.0.0.1", if taken == "query" { 0 } else { grpc })).unwrap();
        let query = if taken == "query" { socket.local_addr().unwrap().to_string() } else { String::new() };
        let extension = format!("extensions: {{ spanreel: {{ query_endpoint: \"{query}\" }} }}\nexporters:");
        let text = collector(grpc, Some(http)).replacen("exporters:", &extension, 1);
        let sources = [Source::Text { name: "base".to_owned(), text }];
        let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
        let loaded = config::load(&input).map_err(|errors| errors.lines()).unwrap();
        let started = Appliance::start(Options {
            config: loaded.config,
            built_in: false,
            data_directory: Some(directory.path().to_owned()),
            cluster: None,
            text_banner: false,
        });
        assert!(started.await.is_err(), "the port of {taken} is taken");
        drop(socket);
        // Committer, sealer and everybody else have let go of the directory.
        let again = start(&directory, grpc, http).await;
        assert!(serves(grpc).await);
        again.stop().await;
    }
}

fn source(owner: &str, config: String) -> PipelineSource {
    PipelineSource { owner: owner.to_owned(), config, ..PipelineSource::default() }
}

/// The same of a resource that was created `created` seconds after 1970.
fn created(created: i64, owner: &str, config: String) -> PipelineSource {
    PipelineSource { created, ..source(owner, config) }
}

/// Whether an empty export is answered with 200 there.
async fn serves(port: u16) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await.ok().flatten().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_borrows_only_the_ports_it_wants_and_gives_them_back() {
    let directory = TempDir::new().unwrap();
    let [grpc, http, other] = free_ports();
    let appliance = start(&directory, grpc, http).await;
    let host = appliance.host();
    assert!(serves(grpc).await && serves(http).await);

    let applied = host.apply(source("a/one", collector(grpc, Some(other)))).await.unwrap();
    assert_eq!(applied.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [grpc, other]);
    assert!(serves(grpc).await && serves(other).await);
    assert!(serves(http).await, "a port that nobody wanted stays with the built-in pipeline");

    host.remove("a/one").await;
    assert!(serves(grpc).await, "the port is back with the built-in pipeline");
    assert!(!serves(other).await);
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_custom_resource_disturbs_nothing() {
    let directory = TempDir::new().unwrap();
    let [grpc, http, taken, own] = free_ports();
    let appliance = start(&directory, grpc, http).await;
    let host = appliance.host();
    let stranger = StdListener::bind(("127.0.0.1", taken)).unwrap();

    let lines = host.apply(source("a/one", collector(grpc, Some(taken)))).await.unwrap_err().reasons;
    assert!(lines[0].contains(&format!("127.0.0.1:{taken}")), "{lines:?}");
    assert!(serves(grpc).await && serves(http).await);

    host.apply(created(1, "a/two", collector(own, None))).await.unwrap();
    let lines = host.apply(created(2, "a/one", collector(own, None))).await.unwrap_err().reasons;
    assert!(lines[0].contains(&format!("127.0.0.1:{own}")), "{lines:?}");
    let refusal = host.apply(created(1, "a/two", collector(own, Some(taken)))).await.unwrap_err();
    assert_eq!(refusal.running.unwrap().ports[0].port, own);
    assert!(serves(own).await, "a refused update leaves the running pipeline alone");
    host.apply(created(1, "a/two", "receivers: {".to_owned())).await.unwrap_err();
    assert!(serves(own).await);
    drop(stranger);
    host.apply(created(1, "a/two", collector(own, Some(taken)))).await.unwrap();
    assert!(serves(own).await && serves(taken).await);
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_edit_is_no_outage_after_a_restart_either() {
    let directory = TempDir::new().unwrap();
    let [grpc, http, own] = free_ports();
    let appliance = start(&directory, grpc, http).await;
    appliance.host().apply(created(1, "a/one", collector(own, None))).await.unwrap();
    appliance.stop().await;
    let appliance = start(&directory, grpc, http).await;
    let host = appliance.host();
    let broken = |at| created(at, "a/one", "receivers: {".to_owned());
    let refusal = host.apply(broken(2)).await.unwrap_err();
    assert_eq!(refusal.running, None, "it was another resource of this name");
    assert!(!serves(own).await);
    for _ in 0..2 {
        let refusal = host.apply(broken(1)).await.unwrap_err();
        assert_eq!(refusal.running.unwrap().ports[0].port, own);
        assert!(serves(own).await);
    }
    host.remove("a/one").await;
    let refusal = host.apply(broken(1)).await.unwrap_err();
    assert_eq!(refusal.running, None, "its author stopped it");
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_resources_that_want_a_port_the_older_one_has_it_whoever_comes_first() {
    let directory = TempDir::new().unwrap();
    let [grpc, http, shared, other] = free_ports();
    let appliance = start(&directory, grpc, http).await;
    let host = appliance.host();
    let younger = created(2, "a/young", collector(other, Some(shared)));
    let older = created(1, "z/old", collector(shared, None));

    host.apply(younger.clone()).await.unwrap();
    let applied = host.apply(older.clone()).await.unwrap();
    assert_eq!(applied.displaced, ["a/young"]);
    assert!(serves(shared).await);
    assert!(!serves(other).await, "the younger one stops as a whole");
    let lines = host.apply(younger.clone()).await.unwrap_err().reasons;
    let port = format!("127.0.0.1:{shared}");
    assert!(lines[0].contains("z/old") && lines[0].contains("older") && lines[0].contains(&port), "{lines:?}");
    assert!(host.apply(older.clone()).await.unwrap().displaced.is_empty());

    // An update of the older one that leaves the port lets the younger one in, and one that takes it again throws it out.
    host.apply(created(1, "z/old", collector(grpc, None))).await.unwrap();
    host.apply(younger.clone()).await.unwrap();
    assert!(serves(other).await && serves(shared).await && serves(grpc).await);
    assert_eq!(host.apply(older).await.unwrap().displaced, ["a/young"]);
    host.remove("z/old").await;
    host.apply(younger).await.unwrap();
    assert!(serves(other).await && serves(shared).await);

    // Of the same age: by name. The name of a host may stand for any address.
    assert_eq!(host.apply(created(2, "a/first", collector(shared, None))).await.unwrap().displaced, ["a/young"]);
    let lines = host.apply(created(2, "b", collector(shared, None).replace("127.0.0.1:", "localhost:"))).await;
    assert!(lines.unwrap_err().reasons[0].contains("first by name"));
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_an_explicit_configuration_are_nobody_elses() {
    let directory = TempDir::new().unwrap();
    let [grpc, http] = free_ports();
    let appliance = start_with(&directory, grpc, http, false).await;
    let lines = appliance.host().apply(source("a/one", collector(grpc, None))).await.unwrap_err().reasons;
    assert!(lines[0].contains("started with") && lines[0].contains(&grpc.to_string()), "{lines:?}");
    assert!(serves(grpc).await && serves(http).await);
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_moves_to_another_address_of_its_port_or_stays_where_it_is() {
    let directory = TempDir::new().unwrap();
    let [grpc, http, own] = free_ports();
    let appliance = start(&directory, grpc, http).await;
    let host = appliance.host();
    let everywhere = collector(own, None).replacen("127.0.0.1", "0.0.0.0", 1);
    host.apply(source("a/one", collector(own, None))).await.unwrap();
    host.apply(source("a/one", everywhere)).await.unwrap();
    assert!(serves(own).await);
    // An address that this machine does not have.
    let nowhere = collector(own, None).replacen("127.0.0.1", "192.0.2.1", 1);
    let lines = host.apply(source("a/one", nowhere)).await.unwrap_err().reasons;
    assert!(lines[0].contains("192.0.2.1"), "{lines:?}");
    assert!(serves(own).await, "it is back where it was");
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_come_and_go_with_their_resource() {
    let directory = TempDir::new().unwrap();
    let [grpc, http, own, probe] = free_ports();
    let appliance = start(&directory, grpc, http).await;
    let host = appliance.host();
    let with_probe = |path: &str| {
        collector(own, None)
            .replacen(
                "exporters:",
                &format!(
                    "extensions: {{ health_check: {{ endpoint: \"127.0.0.1:{probe}\", path: {path} }} }}\nexporters:"
                ),
                1,
            )
            .replacen("service:\n", "service:\n  extensions: [health_check]\n", 1)
    };
    let answers = async |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", probe)).await.ok()?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.starts_with("HTTP/1.1 200"))
    };
    for path in ["/", "/", "/alive"] {
        let applied = host.apply(created(2, "a/one", with_probe(path))).await.unwrap();
        assert_eq!(applied.warnings, [""; 0]);
        assert_eq!(answers(path).await, Some(true));
    }
    // The port of a health check is a port like others.
    let lines = host.apply(created(3, "a/two", with_probe("/").replace(&own.to_string(), &grpc.to_string()))).await;
    assert!(lines.unwrap_err().reasons[0].contains("a/one"));
    let older = created(1, "a/two", with_probe("/older").replace(&own.to_string(), &grpc.to_string()));
    let applied = host.apply(older).await.unwrap();
    assert_eq!((applied.displaced, applied.warnings), (vec!["a/one".to_owned()], Vec::new()));
    assert_eq!(answers("/older").await, Some(true));
    host.remove("a/two").await;
    assert_eq!(answers("/older").await, None);
    appliance.stop().await;
}
