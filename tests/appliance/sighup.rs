//! SIGHUP: the configuration is read again; what did not change is not disturbed, and a bad one changes nothing.

use crate::destination::{Answer, Destination, Options as DestinationOptions};
use crate::support::compression::Compression;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, Ports, Spanreel};
use crate::support::traces::Traces;
use crate::support::{eventually, http as client_of, ports};
use http::StatusCode;
use rustix::process::Signal;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(30);

async fn is_said(spanreel: &Spanreel, words: &str) {
    eventually(words, BOUND, async || spanreel.log().contains(words)).await;
}

/// One pipeline, with a destination if there is a port for it.
fn config(grpc: u16, http: u16, query: u16, destination: Option<u16>) -> String {
    let (exporters, ids) = match destination {
        Some(port) => (
            format!("exporters: {{ otlp/new: {{ endpoint: '127.0.0.1:{port}', tls: {{ insecure: true }} }} }}\n"),
            "otlp/new",
        ),
        None => (String::new(), ""),
    };
    format!(
        "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{grpc}' }}, http: {{ endpoint: '127.0.0.1:{http}' }} }} }} }}\n\
         extensions: {{ spanreel: {{ query_endpoint: '127.0.0.1:{query}', spool: {{ min_free_mib: 8 }} }} }}\n{exporters}\
         service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    \
         traces: {{ receivers: [otlp], exporters: [{ids}] }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_takes_over_and_a_bad_one_changes_nothing() {
    let mut spanreel = Spanreel::prepare(&Options::default());
    let Ports { grpc, http, query } = spanreel.ports;
    let write = |spanreel: &Spanreel, text: String| std::fs::write(spanreel.config(), text).unwrap();
    write(&spanreel, config(grpc, http, query, None));
    spanreel.start_again().await;
    let traces = Traces { seed: 9, spans_per_trace: 1 };
    // A connection to the port that stays the same: it lives through every change.
    let mut client = Client::connect(grpc, Protocol::Grpc).await.unwrap();
    let mut index = 0u64;
    let mut export = async |client: &mut Client| {
        index += 1;
        client.export(&traces.request("shop", index..index + 1), Compression::Identity).await.unwrap().is_ok()
    };
    assert!(export(&mut client).await);

    // Another port for HTTP, and a destination.
    let destination = Destination::start(DestinationOptions::default(), |_| Answer::Ok).await;
    let (other, to) = (ports::free(), Some(destination.address.port()));
    write(&spanreel, config(grpc, other, query, to));
    spanreel.process().signal(Signal::HUP);
    is_said(&spanreel, "the configuration was read again").await;
    assert!(export(&mut client).await, "the old connection still serves");
    eventually("what came after the change is forwarded", BOUND, async || destination.taken().len() == 1).await;
    assert!(client_of::Connection::open(other).await.is_ok(), "the new port is open");
    assert!(client_of::Connection::open(http).await.is_err(), "the old one is closed");

    let not_valid = config(grpc, other, query, to).replace("otlp/new: {", "otpl/new: {");
    // The query port is taken: that shows only when it is tried.
    let not_possible = config(grpc, query, query, to);
    for (bad, words) in
        [(not_valid, "the new configuration is not valid"), (not_possible, "the old configuration goes on")]
    {
        write(&spanreel, bad);
        spanreel.process().signal(Signal::HUP);
        is_said(&spanreel, words).await;
        assert!(export(&mut client).await);
        assert!(client_of::Connection::open(other).await.is_ok());
    }
    eventually("the destination goes on too", BOUND, async || destination.taken().len() == 3).await;
    assert!(spanreel.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_token_lets_nobody_in_any_more() {
    let mut spanreel = Spanreel::prepare(&Options::default());
    let Ports { grpc, http, query } = spanreel.ports;
    let write = |spanreel: &Spanreel, token: &str| {
        let access = format!(
            "extensions: {{ bearertokenauth: {{ token: {token} }}, spanreel: {{ access: {{ full: [bearertokenauth] }}, "
        );
        let text = config(grpc, http, query, None)
            .replace("extensions: { spanreel: { ", &access)
            .replace("service:\n", "service:\n  extensions: [bearertokenauth]\n");
        std::fs::write(spanreel.config(), text).unwrap();
    };
    let status = async |token: &str| {
        let header = format!("Bearer {token}");
        client_of::get(query, "/api/spanreel/pins", &[("authorization", &header)]).await.unwrap().status
    };
    write(&spanreel, "before");
    spanreel.start_again().await;
    assert_eq!((status("before").await, status("after").await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    write(&spanreel, "after");
    spanreel.process().signal(Signal::HUP);
    is_said(&spanreel, "the configuration was read again").await;
    assert_eq!((status("before").await, status("after").await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    assert!(!spanreel.log().contains("takes a restart"), "it holds already");
    assert!(spanreel.stop().success());
}
