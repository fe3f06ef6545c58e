//! The tracing libraries of Zipkin and Jaeger themselves: what they send is stored, whole and with its meaning.

use super::foreign::Ports;
use crate::support::eventually;
use crate::support::otelcol::built_by;
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::process::Command;
use std::time::Duration;

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;
/// For what was sent to be stored: packets have no answer, and libraries have timers.
const BOUND: Duration = Duration::from_secs(60);

/// Runs a program that prints `SERVICE TRACE-ID` lines.
async fn traces_of(mut command: Command) -> Vec<(String, [u8; 16])> {
    let output = tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let (service, id) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        (service.to_owned(), u128::from_str_radix(id, 16).unwrap().to_be_bytes())
    };
    said.lines().map(line).collect()
}

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?} in {span:#?}"),
    }
}

/// A server's span and its client's, which failed after a retry.
fn check(service: &str, spans: &[(String, Span)]) {
    let [(one, root), (other, child)] = spans else { panic!("{spans:#?}") };
    assert_eq!((one.as_str(), other.as_str()), (service, service));
    assert_eq!((root.name.as_str(), root.kind, root.parent_span_id.len()), ("get /cart", SERVER, 0), "{service}");
    assert_eq!((child.name.as_str(), child.kind, &child.parent_span_id), ("query", CLIENT, &root.span_id), "{service}");
    assert_eq!((text(root, "http.path"), text(child, "peer.service")), ("/cart", "db"), "{service}");
    assert_eq!(child.status.as_ref().map(|status| status.code), Some(ERROR), "{service}");
    assert!(child.events.iter().any(|event| event.name == "retry"), "{service}: {:?}", child.events);
    assert!(child.start_time_unix_nano >= root.start_time_unix_nano && child.start_time_unix_nano > 0, "{service}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_the_libraries_of_zipkin_and_jaeger_are_stored_with_their_meaning() {
    let ports = Ports::free();
    let spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    let libraries = built_by(".ci/tracers");
    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents");
    let zipkin = format!("http://127.0.0.1:{}", ports.zipkin);
    let collector = format!("http://127.0.0.1:{}/api/traces", ports.jaeger_http);

    let mut node = Command::new("node");
    node.arg(format!("{programs}/tracers.js")).args([&zipkin, &ports.binary.to_string(), &collector]);
    node.env("NODE_PATH", format!("{libraries}/node_modules"));
    let mut python = Command::new("python3");
    python.arg(format!("{programs}/tracers.py")).args(["127.0.0.1", &ports.zipkin.to_string()]);
    python.env("PYTHONPATH", format!("{libraries}/python"));
    let mut java = Command::new("java");
    java.args(["-cp", &format!("{libraries}/java/*"), &format!("{programs}/Tracers.java")]);
    java.args([&zipkin, &ports.compact.to_string(), &collector]);

    let mut sent = Vec::new();
    for program in [node, python, java] {
        sent.extend(traces_of(program).await);
    }
    assert_eq!(sent.len(), 10, "{sent:?}");
    for (service, trace) in &sent {
        eventually(service, BOUND, async || spanreel.query().await.spans(*trace).await.unwrap().len() == 2).await;
        let mut spans = spanreel.query().await.spans(*trace).await.unwrap();
        spans.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        check(service, &spans);
    }
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 2 * sent.len() as u64);
    let metrics = spanreel.metrics().await;
    for protocol in
        ["http_v2_json", "http_v1_json", "http_v2_proto", "collector_http", "udp_thrift_compact", "udp_thrift_binary"]
    {
        let taken = metrics.sum("spanreel_receiver_requests_total", &[("protocol", protocol), ("outcome", "ok")]);
        assert!(taken >= Some(1.0), "{protocol}: {taken:?}");
    }
}
