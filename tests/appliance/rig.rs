//! The rig itself, against a real Collector: what these clients send is what OTLP servers take.

use crate::support::compression::Compression;
use crate::support::otelcol::{self, Otelcol};
use crate::support::otlp::{Client, Protocol};
use crate::support::traces::{Traces, hex};
use std::time::Duration;

#[tokio::test]
async fn a_real_collector_takes_what_the_clients_send() {
    let otelcol = Otelcol::start(otelcol::PRINT_EVERYTHING).await;
    let traces = Traces { seed: 1, spans_per_trace: 3 };
    let mut sent = Vec::new();
    for protocol in Protocol::ALL {
        let port = if protocol == Protocol::Grpc { otelcol.grpc } else { otelcol.http };
        let mut client = Client::connect(port, protocol).await.unwrap();
        for compression in Compression::ALL {
            // The Collector's gRPC server knows no deflate and no lz4, and its snappy is framed.
            let is_of_http = matches!(compression, Compression::Deflate | Compression::SnappyBlock | Compression::Lz4);
            if protocol == Protocol::Grpc && is_of_http {
                continue;
            }
            let index = sent.len() as u64;
            let request = traces.request("rig", index..index + 1);
            let answer = client.export(&request, compression).await.unwrap();
            assert!(answer.is_ok(), "{protocol:?} {compression:?}: {answer:?}");
            sent.push(hex(&traces.id(index)));
        }
    }
    crate::support::eventually("every trace is printed with its spans", Duration::from_secs(10), async || {
        let printed = otelcol.printed_traces();
        sent.iter().all(|id| printed.get(id) == Some(&3))
    })
    .await;
    assert_eq!(otelcol.accepted_spans().await, 3 * sent.len() as u64);
}
