//! What is stored can be asked for on the command line: of a running process, and of a directory that nobody runs on.

use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::otlp::{Client, Protocol};
use crate::support::process::Process;
use crate::support::spanreel::{Options, Spanreel, binary};
use crate::support::traces::{Traces, hex};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const TRACES: Traces = Traces { seed: 0x636f_6d6d, spans_per_trace: 3 };
const TRACE_COUNT: u64 = 30;

/// Code, stdout and stderr of a subcommand.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = binary().args(arguments).output().expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

fn succeeds(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}\n{stdout}");
    stdout
}

async fn send(spanreel: &Spanreel, traces: std::ops::Range<u64>) {
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let answer = client.export(&TRACES.request("shop", traces), Compression::Identity).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

fn endpoint(spanreel: &Spanreel) -> String {
    format!("http://127.0.0.1:{}", spanreel.ports.query)
}

/// Names, lengths and times of change of all files in a directory.
fn listing(directory: &Path) -> BTreeMap<String, (u64, std::time::SystemTime)> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let file = entry.metadata().unwrap();
            (entry.file_name().into_string().unwrap(), (file.len(), file.modified().unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn traces_are_found_and_shown_by_command() {
    let spanreel = Spanreel::start(&Options::default()).await;
    send(&spanreel, 0..TRACE_COUNT).await;
    let endpoint = endpoint(&spanreel);
    let id = hex(&TRACES.id(7));

    let found = succeeds(&["search", "{ span.item = 7 }", "--endpoint", &endpoint]);
    assert!(found.contains(&id) && found.contains("3 matched") && found.contains("1 trace of the last 1h"), "{found}");
    let found =
        succeeds(&["search", "{ name = \"GET /item/0\" }", "--limit", "5", "--endpoint", &endpoint, "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["traces"].as_array().map(Vec::len), Some(5));
    let nothing = succeeds(&["search", "{ span.item = 7000 }", "--since", "30m", "--endpoint", &endpoint]);
    assert_eq!(nothing, "no trace of the last 30m matches\n");

    let shown = succeeds(&["show", &id, "--endpoint", &endpoint]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with(&id) && lines[0].contains("3 spans, 1 service"), "{shown}");
    assert!(lines[1].starts_with("GET /item/0") && lines[3].starts_with("└─ GET /item/2"), "{shown}");

    let (code, _, stderr) = run(&["show", "abc", "--endpoint", &endpoint]);
    assert_eq!((code, stderr.as_str()), (1, "spanreel: there is no trace abc\n"));
    let (code, _, stderr) = run(&["search", "{ span.item = }", "--endpoint", &endpoint]);
    assert!(code == 1 && stderr.contains("parse error at line 1, col 15"), "{code} {stderr}");
}

#[tokio::test]
async fn spans_are_printed_as_they_come_and_each_once() {
    let spanreel = Spanreel::start(&Options::default()).await;
    send(&spanreel, 0..1).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("tail.log");
    let mut command = binary();
    // The last trace that is there already says when it has looked once: what came before is history to it.
    command.args([
        "tail",
        "{ resource.service.name = \"shop\" } with (most_recent = true) // of the shop",
        "--last",
        "1",
    ]);
    command.args(["--endpoint", &endpoint(&spanreel)]);
    let tail = Process::start("spanreel tail", command, &log);
    let printed = async |trace: u64| {
        let id = hex(&TRACES.id(trace));
        eventually("a trace is printed", Duration::from_secs(60), async || tail.output().contains(&id)).await;
    };
    printed(0).await;
    for traces in [1..2, 2..3] {
        send(&spanreel, traces.clone()).await;
        printed(traces.start).await;
    }
    let lines = || tail.output().lines().count();
    eventually("every span is printed", Duration::from_secs(60), async || lines() >= 9).await;
    let output = tail.output();
    assert_eq!(output.lines().count(), 9, "{output}");
    assert!(output.contains("  shop  "), "{output}");
    // Far more traces and spans than a search shows, and from long ago.
    const MANY: u64 = 2_000;
    const HOUR: u64 = 3_600_000_000_000;
    let old = Traces { seed: 0x6f6c_6421, spans_per_trace: 150 };
    let mut of_old = old.request("shop", 0..1);
    for span in &mut of_old.resource_spans[0].scope_spans[0].spans {
        span.start_time_unix_nano -= 3 * HOUR;
        span.end_time_unix_nano -= 3 * HOUR;
    }
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    for request in [TRACES.request("shop", 3..3 + MANY), of_old] {
        assert!(client.export(&request, Compression::Identity).await.unwrap().is_ok());
    }
    let expected = 9 + 3 * MANY as usize + 150;
    eventually("every span is printed", Duration::from_secs(120), async || lines() >= expected).await;
    assert_eq!(lines(), expected);
}

#[tokio::test]
async fn a_directory_is_searched_without_a_process_and_left_as_it_is() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    send(&spanreel, 0..TRACE_COUNT).await;
    let query = ["search", "{ span.item < 10 }", "--limit", "50", "-o", "json"];
    let traces = |answer: String| serde_json::from_str::<serde_json::Value>(&answer).unwrap()["traces"].clone();
    let endpoint = endpoint(&spanreel);
    let running = traces(succeeds(&[&query[..], &["--endpoint", &endpoint]].concat()));
    assert_eq!(running.as_array().map(Vec::len), Some(10));
    // By force, so that all of it is in the log.
    spanreel.kill();

    let data = spanreel.data.to_str().unwrap();
    let before = listing(&spanreel.data);
    assert_eq!(traces(succeeds(&[&query[..], &["--data", data]].concat())), running);
    let id = hex(&TRACES.id(3));
    assert!(succeeds(&["show", &id, "--data", data]).starts_with(&id));
    assert!(succeeds(&["verify", "--data", data]).ends_with("nothing is damaged\n"));
    let (code, stdout, stderr) = run(&["tail", "{ span.item = 3 }", "--data", data]);
    assert!(code == 0 && stdout.lines().count() == 3 && stdout.contains(&id), "{code} {stdout}");
    assert_eq!(stderr, "spanreel: nothing more comes to a directory that nobody runs on\n");
    assert_eq!(listing(&spanreel.data), before, "reading changed something");

    let (code, _, stderr) = run(&["search", "{}", "--data", "/nonexistent"]);
    assert!(code == 1 && stderr.contains("there is no data directory /nonexistent"), "{code} {stderr}");
    spanreel.start_again().await;
    assert!(succeeds(&["show", &id, "--endpoint", &endpoint]).starts_with(&id), "it starts as if nobody had looked");
}

#[tokio::test]
async fn a_snapshot_of_a_running_process_is_a_directory_that_can_be_searched() {
    let spanreel = Spanreel::start(&Options::default()).await;
    send(&spanreel, 0..TRACE_COUNT).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let (endpoint, copy) = (endpoint(&spanreel), copy.to_str().unwrap());
    assert_eq!(succeeds(&["snapshot", copy, "--endpoint", &endpoint]), format!("{copy}\n"));
    send(&spanreel, TRACE_COUNT..TRACE_COUNT + 1).await;

    let count = |found: String| found.lines().count() - 1;
    assert_eq!(count(succeeds(&["search", "{}", "--limit", "100", "--data", copy])), TRACE_COUNT as usize);
    let (code, _, stderr) = run(&["snapshot", copy, "--endpoint", &endpoint]);
    let exists = format!("{copy} exists already; a snapshot needs a new directory");
    assert!(code == 1 && stderr.contains(&exists), "{code} {stderr}");
    // A place where nothing can be made is named, and nothing is left of the attempt.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let within = file.join("copy");
    let (code, stdout, stderr) = run(&["snapshot", within.to_str().unwrap(), "--endpoint", &endpoint]);
    assert!(code == 1 && stdout.is_empty() && stderr.contains(within.to_str().unwrap()), "{code} {stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    assert!(succeeds(&["verify", "--endpoint", &endpoint]).ends_with("nothing is damaged\n"));
}

#[tokio::test]
async fn pins_are_kept_over_a_restart_until_they_are_removed() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    send(&spanreel, 0..1).await;
    let (id, endpoint) = (hex(&TRACES.id(0)), endpoint(&spanreel));
    assert_eq!(succeeds(&["pin", &id, "--endpoint", &endpoint]), "");
    spanreel.kill();
    spanreel.start_again().await;
    assert_eq!(succeeds(&["pin", "--endpoint", &endpoint]), format!("{id}\n"));
    assert_eq!(succeeds(&["pin", "--remove", &id, "--endpoint", &endpoint]), "");
    assert_eq!(succeeds(&["pin", "--endpoint", &endpoint]), "");
    let (code, _, stderr) = run(&["pin", "--remove", &id, "--endpoint", &endpoint]);
    assert_eq!((code, stderr), (1, format!("spanreel: the trace {id} is not pinned\n")));
    let (code, _, stderr) = run(&["pin", "ffff", "--endpoint", &endpoint]);
    let unknown = "0000000000000000000000000000ffff";
    assert_eq!((code, stderr), (1, format!("spanreel: there is no trace {unknown}; nothing was pinned\n")));
    assert_eq!(succeeds(&["pin", "--endpoint", &endpoint]), "");
    let (code, _, stderr) = run(&["pin", "xyz", "--endpoint", &endpoint]);
    assert!(code == 1 && stderr.contains("trace IDs can only contain hex characters"), "{code} {stderr}");
}
