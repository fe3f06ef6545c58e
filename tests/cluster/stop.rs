//! An ordered stop ends in time whoever stalls at whichever port.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crate::installed::Installed;
use crate::support::compression::Compression;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::Options;
use crate::support::traces::Traces;

/// Connections and the program are told apart by the time in which a busy machine reads a few bytes.
const SETTLED: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn stalled_clients_and_destinations_do_not_use_up_the_time_of_a_stop() {
    // A destination that accepts and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let options = Options::default().with_grpc_destination("otlp/silent", port);
    let mut installed = Installed::prepare_with(&[], options).await;
    installed.start().await;
    let ports = installed.spanreel.ports;
    let mut client = Client::connect(ports.grpc, Protocol::Grpc).await.unwrap();
    let request = Traces { seed: 1, spans_per_trace: 1 }.request("shop", 0..1);
    assert!(client.export(&request, Compression::Identity).await.unwrap().is_ok());
    let _destination = silent.accept().unwrap();

    let half_a_request =
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let half_a_query = b"GET /api/traces/1 HTTP/1.1\r\nhost: x";
    // The beginning of a TLS record.
    let half_a_handshake = b"\x16\x03\x01";
    let stalled: Vec<TcpStream> = [
        (ports.http, half_a_request.as_slice()),
        (ports.grpc, half_a_request),
        (ports.grpc, b"PRI * HTTP/2.0\r\n"),
        (ports.query, half_a_query),
        (installed.webhook, half_a_handshake),
        (installed.webhook, b""),
    ]
    .into_iter()
    .map(|(port, bytes)| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    })
    .collect();
    tokio::time::sleep(SETTLED).await;
    assert!(installed.spanreel.stop().success());
    let log = installed.spanreel.log();
    assert!(log.contains("stopped") && !log.contains("the rest is abandoned"), "{log}");
    drop(stalled);
}
