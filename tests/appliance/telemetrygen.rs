//! A real client of the Collector project: what `telemetrygen` sends can be read back and arrives downstream.

use crate::support::otelcol::{self, Otelcol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use std::process::Command;
use std::time::Duration;

const TRACES: usize = 50;
const CHILD_SPANS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetrygen_is_understood_on_both_ports() {
    let telemetrygen = otelcol::built_by(".ci/telemetrygen");
    let otelcol = Otelcol::start(otelcol::PRINT_EVERYTHING).await;
    let spanreel = Spanreel::start(&Options::default().with_grpc_destination("otlp", otelcol.grpc)).await;

    let mut runs = 0;
    for port in [spanreel.ports.grpc, spanreel.ports.http] {
        for protocol in [None, Some("--otlp-http")] {
            let output = Command::new(&telemetrygen)
                .args(["traces", "--otlp-insecure", "--otlp-endpoint", &format!("127.0.0.1:{port}")])
                .args(["--traces", &TRACES.to_string(), "--child-spans", &CHILD_SPANS.to_string(), "--workers", "1"])
                .args(["--rate", "0", "--service", &format!("telemetrygen-{runs}")])
                .args(protocol)
                .output()
                .unwrap();
            let log = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "port {port} {protocol:?}: {log}");
            assert!(!log.contains("failed to upload"), "port {port} {protocol:?}: {log}");
            runs += 1;
        }
    }

    let spans = runs * TRACES * (1 + CHILD_SPANS);
    crate::support::eventually("every span is stored", Duration::from_secs(20), async || {
        spanreel.ledger().await.pipeline(PIPELINE).stored == spans as u64
    })
    .await;
    spanreel.drained("otlp", Duration::from_secs(20)).await.assert_balanced();

    // telemetrygen does not say which ids it made up; the destination does.
    crate::support::eventually("every trace has arrived", Duration::from_secs(20), async || {
        otelcol.printed_traces().values().sum::<usize>() >= spans
    })
    .await;
    let printed = otelcol.printed_traces();
    assert_eq!(printed.len(), runs * TRACES);
    let mut query = spanreel.query().await;
    for id in printed.keys() {
        let bytes: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
        let found = query.spans(bytes.try_into().unwrap()).await.unwrap();
        assert_eq!(found.len(), 1 + CHILD_SPANS, "trace {id}");
        assert!(found.iter().all(|(service, _)| service.starts_with("telemetrygen-")), "trace {id}: {found:?}");
    }
}
