//! The query suite: the same questions to a running Spanreel over HTTP, on traces of a small shop of four services.
//!
//! ```text
//! cargo bench --bench query -- [--spans 1000000] [--repeat 50] [--intake SPANS_PER_SECOND] [--hours 1] [--report FILE]
//!                              [--keep FOLDER] [--only TEXT]
//! ```
//!
//! With `--keep` what was stored stays in the folder, and is asked again the next time instead of being sent. With `--only`
//! only questions are asked that have the text in them.
//!
//! The spans are sent over OTLP like anybody's, then the process is stopped and started again: the first answer to each
//! question is *cold* (a new process, and the kernel's page cache dropped where that is allowed), the others are *warm*.
//! Each answer is checked for what the generator knows of it. With `--intake` further spans arrive meanwhile.
//!
//! Client and server share the machine's cores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod questions;
mod shop;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use questions::Question;
use shop::Shop;
use support::http::Connection;
use support::spanreel::{Options, Spanreel};

/// Sealing is over when the figure of waiting spans has not changed for this long.
const SETTLED: Duration = Duration::from_secs(5);
const SETTLE_BOUND: Duration = Duration::from_secs(180);
/// Metrics may ask about a day at the most, and questions ask a little around everything.
const MARGIN: Duration = Duration::from_secs(60);
/// Traces looked up by id.
const LOOK_UPS: u64 = 500;
const LOOK_UP: &str = "trace by id";

struct Arguments {
    spans: u64,
    repeat: usize,
    intake: u64,
    hours: u64,
    report: Option<PathBuf>,
    keep: Option<PathBuf>,
    only: String,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let text = runtime.block_on(measure(&arguments));
    println!("{text}");
    if let Some(path) = &arguments.report
        && let Err(error) = std::fs::write(path, text)
    {
        eprintln!("{} cannot be written: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments =
        Arguments { spans: 1_000_000, repeat: 50, intake: 0, hours: 1, report: None, keep: None, only: String::new() };
    while let Some(flag) = given.next() {
        // `cargo bench` says so itself.
        if flag == "--bench" {
            continue;
        }
        let value = given.next().ok_or(format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
        match flag.as_str() {
            "--spans" => arguments.spans = number()?,
            "--repeat" => arguments.repeat = number()?.max(1) as usize,
            "--intake" => arguments.intake = number()?,
            "--hours" => arguments.hours = number()?.max(1),
            "--report" => arguments.report = Some(value.into()),
            "--keep" => arguments.keep = Some(value.into()),
            "--only" => arguments.only = value,
            _ => return Err(format!("unknown argument {flag}")),
        }
    }
    Ok(arguments)
}

async fn measure(arguments: &Arguments) -> String {
    let kept = arguments.keep.as_ref().and_then(|folder| Shop::kept_in(folder));
    let shop = kept.clone().unwrap_or_else(|| {
        Shop::ending_now(arguments.spans, Duration::from_secs(arguments.hours * 3600).saturating_sub(MARGIN))
    });
    let data = arguments.keep.as_ref().map(|folder| folder.join("data"));
    let mut spanreel = Spanreel::prepare(&Options { data, ..Options::default() });
    let stored = if kept.is_some() { String::new() } else { store(&mut spanreel, &shop).await };
    if let Some(folder) = &arguments.keep {
        shop.keep_in(folder);
    }

    let dropped = drop_page_cache();
    spanreel.start_again().await;
    let stop = Arc::new(AtomicBool::new(false));
    let intake = (arguments.intake > 0).then(|| {
        eprintln!("== and {} spans/s meanwhile", arguments.intake);
        let (port, rate, stop) = (spanreel.ports.http, arguments.intake, Arc::clone(&stop));
        // Other ids than those that are asked for, at the present time.
        let shop = shop.continued();
        tokio::spawn(async move { trickle(port, &shop, rate, &stop).await })
    });

    let mut lines = Vec::new();
    let mut note = |line: String| {
        eprintln!("{line}");
        lines.push(line);
    };
    for question in questions::all(&shop).iter().filter(|question| question.title.contains(&arguments.only)) {
        note(ask(&spanreel, question, arguments.repeat, arguments.intake == 0).await);
    }
    if LOOK_UP.contains(&arguments.only) {
        note(look_up(&spanreel, &shop).await);
    }
    let query_peak = spanreel.process().peak_memory();
    stop.store(true, Ordering::Relaxed);
    if let Some(intake) = intake {
        intake.await.expect("the intake does not panic");
    }
    assert!(spanreel.stop().success(), "an ordered stop");

    format!(
        "{} spans in {} traces over {:.1} h{}; page cache {}dropped before the first answers.\n\n\
         {stored}Peak RSS of the process that answered: {:.1} MiB.\n\n\
         | question | found | cold, ms | p50, ms | p99, ms |\n| --- | ---: | ---: | ---: | ---: |\n{}\n",
        shop.spans(),
        shop.traces(),
        shop.duration().as_secs_f64() / 3600.0,
        if arguments.intake > 0 { format!(", while {} spans/s arrive", arguments.intake) } else { String::new() },
        if dropped { "" } else { "not " },
        mib(query_peak),
        lines.join("\n"),
    )
}

/// Sends everything, waits until it is sealed, and stops; what that took.
async fn store(spanreel: &mut Spanreel, shop: &Shop) -> String {
    spanreel.start_again().await;
    eprintln!("== sending {} spans", shop.spans());
    let (user, system) = spanreel.process().user_and_system_time();
    let started = Instant::now();
    let raw_bytes = send(spanreel, shop, 0..shop.groups(), None).await;
    let sending = started.elapsed();
    settle(spanreel).await;
    let (user_after, system_after) = spanreel.process().user_and_system_time();
    let cpu = (user_after + system_after) - (user + system);
    let peak = spanreel.process().peak_memory();
    let written = spanreel.process().written_bytes();
    let metrics = spanreel.metrics().await;
    let sealed = |name: &str| metrics.sum(name, &[]).unwrap_or_default();
    let (runs, sealed_spans, sealed_bytes) =
        (sealed("spanreel_store_runs"), sealed("spanreel_store_spans"), sealed("spanreel_store_bytes"));
    assert!(spanreel.stop().success(), "an ordered stop");
    let spans = shop.spans() as f64;
    format!(
        "Spans of {:.0} bytes, sent and stored: {:.2} us of CPU a span ({:.0} spans/s offered), {:.2} bytes written a raw byte, \
         peak RSS {:.1} MiB. {sealed_spans} spans are in {runs} sealed runs, at {:.1} bytes a span; the directory as a whole \
         has {:.1} MiB, with the log (up to 64 MiB, reused) and what of the spool was not released yet. ",
        raw_bytes as f64 / spans,
        cpu.as_secs_f64() * 1e6 / spans,
        spans / sending.as_secs_f64(),
        written as f64 / raw_bytes as f64,
        mib(peak),
        sealed_bytes / sealed_spans.max(1.0),
        mib(folder_bytes(&spanreel.data)),
    )
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Sends groups of traces over OTLP/HTTP; how many bytes they were.
async fn send(spanreel: &Spanreel, shop: &Shop, groups: std::ops::Range<u64>, pause: Option<Duration>) -> u64 {
    let mut connection = Connection::open(spanreel.ports.http).await.expect("the receiver takes connections");
    let mut raw_bytes = 0;
    for group in groups {
        raw_bytes += send_group(&mut connection, shop, group).await;
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    raw_bytes
}

async fn send_group(connection: &mut Connection, shop: &Shop, group: u64) -> u64 {
    let mut bytes = 0;
    for request in shop.requests(group) {
        bytes += request.len() as u64;
        let headers = [("content-type", "application/x-protobuf")];
        let body = Bytes::from(request);
        loop {
            let answer = connection.send(Method::POST, "/v1/traces", &headers, body.clone()).await.expect("an answer");
            match answer.status.as_u16() {
                200 => break,
                429 | 503 => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => panic!("the spans are refused: {}", answer.text()),
            }
        }
    }
    bytes
}

/// Spans at a rate until told to stop.
async fn trickle(port: u16, shop: &Shop, rate: u64, stop: &AtomicBool) {
    let mut connection = Connection::open(port).await.expect("the receiver takes connections");
    let started = Instant::now();
    for group in 0..shop.groups() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        send_group(&mut connection, shop, group).await;
        let due = Duration::from_secs_f64(((group + 1) * shop.spans_per_group()) as f64 / rate as f64);
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
    }
}

/// Waits until nothing moves to disk in the background any more.
async fn settle(spanreel: &mut Spanreel) {
    let started = Instant::now();
    let mut last = spanreel.process().user_and_system_time();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < SETTLED {
        assert!(started.elapsed() < SETTLE_BOUND, "still busy {SETTLE_BOUND:?} after the last span");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = spanreel.process().user_and_system_time();
        // An idle process uses a few ticks a second at most.
        if (now.0 + now.1) - (last.0 + last.1) > Duration::from_millis(30) {
            quiet_since = Instant::now();
        }
        last = now;
    }
}

async fn ask(spanreel: &Spanreel, question: &Question, repeat: usize, exact: bool) -> String {
    let mut connection = Connection::open(spanreel.ports.query).await.expect("the query port takes connections");
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..=repeat {
        let started = Instant::now();
        let answer = connection.send(Method::GET, &question.path, &[], Bytes::new()).await.expect("an answer");
        times.push(started.elapsed());
        assert_eq!(answer.status, 200, "{}: {}", question.title, answer.text());
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        found = question.count(&answer);
        if exact {
            question.check(found);
        }
    }
    let cold = times.remove(0);
    times.sort_unstable();
    row(&question.title, found, cold, &times)
}

async fn look_up(spanreel: &Spanreel, shop: &Shop) -> String {
    let mut query = spanreel.query().await;
    let mut times = Vec::new();
    for number in 0..=LOOK_UPS {
        let trace = support::traces::Traces::spread(number) % shop.traces();
        let started = Instant::now();
        let spans = query.spans(shop.trace_id(trace)).await.expect("an answer");
        times.push(started.elapsed());
        assert_eq!(spans.len() as u64, shop::SPANS_PER_TRACE, "trace {trace} is whole");
    }
    let cold = times.remove(0);
    times.sort_unstable();
    row(LOOK_UP, shop::SPANS_PER_TRACE as usize, cold, &times)
}

fn row(title: &str, found: usize, cold: Duration, sorted: &[Duration]) -> String {
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let quantile = |q: f64| sorted.get(((sorted.len() - 1) as f64 * q).round() as usize).copied().unwrap_or_default();
    let title = title.replace('|', "\\|");
    format!("| `{title}` | {found} | {} | {} | {} |", ms(cold), ms(quantile(0.5)), ms(quantile(0.99)))
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the data directory is readable");
    // Recycled logs are allocated, not filled: what counts is what `du` counts.
    use std::os::unix::fs::MetadataExt;
    entries.filter_map(Result::ok).filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

/// Whether the kernel took it: only root may.
fn drop_page_cache() -> bool {
    let _ = std::process::Command::new("sync").status();
    std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}
