//! Pipelines that custom resources bring: they borrow ports, disturb nobody, and leave nothing behind.
//!
//! The appliance runs in this process; what the cluster room would do is done by hand through [`PipelineHost`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use spanreel::appliance::{Appliance, Options};
use spanreel::cluster::{PipelineHost, PipelineSource};
use spanreel::config::{self, Files, Input, Source};
use std::collections::BTreeMap;
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
        built_in: true,
        data_directory: Some(directory.path().to_owned()),
        cluster: None,
        text_banner: false,
    })
    .await
    .unwrap()
}

fn source(owner: &str, config: String) -> PipelineSource {
    PipelineSource { owner: owner.to_owned(), config, env: BTreeMap::new() }
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

    let lines = host.apply(source("a/one", collector(grpc, Some(taken)))).await.unwrap_err();
    assert!(lines[0].contains(&format!("127.0.0.1:{taken}")), "{lines:?}");
    assert!(serves(grpc).await && serves(http).await);

    host.apply(source("a/two", collector(own, None))).await.unwrap();
    let lines = host.apply(source("a/one", collector(own, None))).await.unwrap_err();
    assert!(lines[0].contains(&format!("127.0.0.1:{own}")), "{lines:?}");
    host.apply(source("a/two", collector(own, Some(taken)))).await.unwrap_err();
    assert!(serves(own).await, "a refused update leaves the running pipeline alone");
    host.apply(source("a/two", "receivers: {".to_owned())).await.unwrap_err();
    assert!(serves(own).await);
    drop(stranger);
    host.apply(source("a/two", collector(own, Some(taken)))).await.unwrap();
    assert!(serves(own).await && serves(taken).await);
    appliance.stop().await;
}
