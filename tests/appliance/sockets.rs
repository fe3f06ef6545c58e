//! Clients of the same machine may come by a socket in the file system, and destinations be there.

use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::otelcol::Otelcol;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::Traces;
use std::time::Duration;

/// A Collector that sends to a socket.
const SENDING: &str = "
extensions: {health_check: {endpoint: '127.0.0.1:$HEALTH'}}
receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:$GRPC'}}}}
exporters:
  otlp:
    endpoint: unix://$SOCKET
    tls: {insecure: true}
    retry_on_failure: {initial_interval: 200ms, max_interval: 1s}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}
";

#[tokio::test]
async fn a_collector_beside_us_sends_by_a_socket_also_after_a_crash() {
    const SOON: Duration = Duration::from_secs(60);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("otlp.sock");
    let receiver = format!("{{protocols: {{grpc: {{endpoint: '{}', transport: unix}}}}}}", path.display());
    let receivers = vec![("otlp/local".to_owned(), receiver)];
    let mut spanreel = Spanreel::start(&Options { receivers, ..Options::default() }).await;
    let collector = Otelcol::start(&SENDING.replace("$SOCKET", &path.to_string_lossy())).await;
    let mut client = Client::connect(collector.grpc, Protocol::Grpc).await.unwrap();
    let traces = Traces { seed: 90, spans_per_trace: 2 };
    for round in 0..2 {
        let answer = client.export(&traces.request("local", round..round + 1), Compression::Identity).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        eventually("the spans are here", SOON, async || {
            spanreel.ledger().await.pipeline(PIPELINE).stored == 2 * (round + 1)
        })
        .await;
        if round == 0 {
            spanreel.kill();
            assert!(path.exists(), "nobody was left to remove it");
            spanreel.start_again().await;
        }
    }
    spanreel.ledger().await.assert_balanced();
    assert!(spanreel.stop().success());
    assert!(!path.exists(), "it goes with who listened");
}
