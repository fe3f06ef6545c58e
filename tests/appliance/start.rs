//! Starting and stopping as a person meets it: the banner, one clear line for each thing that is wrong, exit codes,
//! and an ordered stop that loses nothing.

use crate::support::compression::Compression;
use crate::support::http;
use crate::support::otlp::{Client, Protocol};
use crate::support::process::Process;
use crate::support::spanreel::{Options, STOP_BOUND, Spanreel, binary};
use crate::support::traces::{Traces, hex};
use rustix::process::Signal;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A start that fails does so within this.
const FAILURE_BOUND: Duration = Duration::from_secs(15);
/// "At once", on a loaded test machine.
const AT_ONCE: Duration = Duration::from_secs(2);

const FAILED: i32 = 1;
const USAGE: i32 = 2;

#[tokio::test]
async fn the_banner_says_what_listens_where_and_where_data_lies() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let data = spanreel.data.display().to_string();
    let ports = spanreel.ports;
    let output = spanreel.process().output();
    for expected in [
        format!("127.0.0.1:{}", ports.grpc),
        format!("127.0.0.1:{}", ports.http),
        format!("127.0.0.1:{}", ports.query),
        data,
    ] {
        assert!(output.contains(&expected), "{expected} is not said:\n{output}");
    }
}

/// The ports are fixed here, as they are for anyone who just types `spanreel`.
#[tokio::test]
async fn without_arguments_it_listens_on_the_standard_ports() {
    let _ports = StandardPorts::reserve();
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.current_dir(folder.path());
    let mut process = Process::start("spanreel", command, &folder.path().join("log"));
    crate::support::eventually("the query API is ready", Duration::from_secs(30), async || {
        http::get(3200, "/ready", &[]).await.is_ok_and(|response| response.status == 200)
    })
    .await;
    let traces = Traces { seed: 30, spans_per_trace: 2 };
    for (index, port) in (0..).zip([4317, 4318]) {
        let mut client = Client::connect(port, Protocol::Grpc).await.unwrap();
        let answer = client.export(&traces.request("first", index..index + 1), Compression::Gzip).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
    }
    let path = format!("/api/traces/{}", hex(&traces.id(0)));
    assert_eq!(http::get(3200, &path, &[]).await.unwrap().status, 200);
    assert!(folder.path().join("spanreel-data").is_dir(), "the data lies elsewhere");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(STOP_BOUND).code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let spanreel = Spanreel::prepare(&Options::default());
    for port in [spanreel.ports.grpc, spanreel.ports.http, spanreel.ports.query] {
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_fails(spanreel.command(), FAILED, &[&format!("127.0.0.1:{port}"), "in use"]);
    }
}

#[tokio::test]
async fn a_locked_data_directory_is_named() {
    let first = Spanreel::start(&Options::default()).await;
    let second = Spanreel::prepare(&Options { data: Some(first.data.clone()), ..Options::default() });
    assert_fails(second.command(), FAILED, &[&first.data.display().to_string(), "another"]);
    // The first one is not disturbed.
    assert_eq!(http::get(first.ports.query, "/ready", &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("file")).unwrap();
    // Root may write anywhere, but not below a file or in /proc.
    for data in [folder.path().join("file/data"), Path::new("/proc/spanreel-data").to_owned()] {
        let spanreel = Spanreel::prepare(&Options { data: Some(data.clone()), ..Options::default() });
        assert_fails(spanreel.command(), FAILED, &[&data.display().to_string()]);
    }
}

#[tokio::test]
async fn a_broken_configuration_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(
        &config,
        "receivers: {otlp: {protocols: {grpc: }}}\n\
         exporters:\n  otlp/tempo:\n    endpont: tempo:4317\n    endpoint: tempo:4317\n    tls: {insecure: true}\n\
         service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp/tempo]}}}\n",
    )
    .unwrap();
    let mut command = binary();
    command.arg("run").arg("--config").arg(&config).arg("--data").arg(folder.path().join("data"));
    assert_fails(command, USAGE, &["config.yaml:4:5", "exporters::otlp/tempo::endpont", "\"endpoint\""]);

    let mut command = binary();
    command.arg("run").arg("--config").arg(folder.path().join("missing.yaml"));
    assert_fails(command, USAGE, &["missing.yaml"]);

    let mut command = binary();
    command.arg("run").arg("--no-such-flag");
    assert_fails(command, USAGE, &["--no-such-flag"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_stop_in_order_and_lose_nothing() {
    let traces = Traces { seed: 31, spans_per_trace: 2 };
    let mut spanreel = Spanreel::start(&Options::default()).await;
    for (round, signal) in (0..).zip([Signal::TERM, Signal::INT]) {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let load: Vec<_> = Protocol::ALL
            .into_iter()
            .enumerate()
            .map(|(number, protocol)| {
                let (port, acknowledged) = (spanreel.ports.of(protocol), acknowledged.clone());
                let first = (round * 10 + number as u64) * 1_000_000;
                tokio::spawn(async move {
                    let mut client = Client::connect(port, protocol).await.unwrap();
                    for index in first.. {
                        let request = traces.request("stop", index..index + 1);
                        match client.export(&request, Compression::Identity).await {
                            Ok(answer) if answer.is_ok() => acknowledged.lock().unwrap().push(index),
                            Ok(answer) => assert!(answer.is_retryable(), "dropped by a stop: {answer:?}"),
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        spanreel.process().signal(signal);
        let process = spanreel.process();
        let status = tokio::task::block_in_place(|| process.wait(STOP_BOUND));
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        for client in load {
            client.await.unwrap();
        }

        spanreel.start_again().await;
        let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
        assert!(acknowledged.len() > 10, "this was no load: {}", acknowledged.len());
        let mut query = spanreel.query().await;
        let ids = acknowledged.iter().map(|index| traces.id(*index));
        let missing = query.missing(ids, 2).await.unwrap();
        assert!(missing.is_empty(), "{signal:?}: {} of {} are gone", missing.len(), acknowledged.len());
        spanreel.ledger().await.assert_balanced();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_hangs_does_not_hold_up_the_stop() {
    let (mut spanreel, _silent) = with_hanging_destination().await;
    let start = Instant::now();
    assert_eq!(spanreel.stop().code(), Some(0));
    println!("stopped after {:?}", start.elapsed());
    // What it did not take is still queued.
    spanreel.start_again().await;
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.destination("otlp").queued, 2, "{ledger:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() {
    let (mut spanreel, _silent) = with_hanging_destination().await;
    let process = spanreel.process();
    process.signal(Signal::TERM);
    // Long enough for the first to be noticed as one of its own.
    std::thread::sleep(Duration::from_millis(100));
    if process.ended().is_none() {
        process.signal(Signal::TERM);
    }
    process.wait(AT_ONCE);
}

/// One trace of two spans is on its way to a destination that takes connections and never answers.
async fn with_hanging_destination() -> (Spanreel, TcpListener) {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, crate::support::ports::free())).unwrap();
    let port = silent.local_addr().unwrap().port();
    let spanreel = Spanreel::start(&Options::default().with_grpc_destination("otlp", port)).await;
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let request = Traces { seed: 32, spans_per_trace: 2 }.request("hanging", 0..1);
    assert!(client.export(&request, Compression::Identity).await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    (spanreel, silent)
}

/// Runs it to its end: the exit code, and a message that a person can act on.
///
/// A configuration that cannot be used is the caller's mistake, as a wrong argument is: [`USAGE`].
fn assert_fails(mut command: Command, code: i32, expected: &[&str]) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = wait_with_output(child);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in the message:\n{text}");
    }
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    // A wrong argument comes with a hint; everything else is one line.
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines == 1 || text.contains("--help"), "{lines} lines, one was promised:\n{text}");
}

fn wait_with_output(mut child: std::process::Child) -> Output {
    let deadline = Instant::now() + FAILURE_BOUND;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!("it runs on after {FAILURE_BOUND:?}:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// One test at a time, on the whole machine, may use the fixed ports.
struct StandardPorts(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl StandardPorts {
    fn reserve() -> Self {
        let file = File::create(std::env::temp_dir().join("spanreel-standard-ports.lock")).unwrap();
        file.lock().unwrap();
        for port in [4317, 4318, 3200] {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .unwrap_or_else(|error| panic!("this test needs port {port} of this machine: {error}"));
        }
        Self(file)
    }
}
