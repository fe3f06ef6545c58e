//! What storing costs at several rates: CPU and writes a span, bytes on disk, memory, and memory while queries run.
//!
//! Spanreel alone, without a destination: what is measured is receiving, keeping, sealing. Each rate has a process and a data
//! directory of its own. First the load alone, then the same load again with queries meanwhile.

use crate::driver::{self, Plan};
use crate::support::http;
use crate::support::spanreel::{Options, Spanreel};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: f64 = 1024.0 * 1024.0;
/// Sealing is over when the process has used next to no CPU for this long,
const SETTLED: Duration = Duration::from_secs(5);
/// which is fewer than this in each half second.
const IDLE_CPU: Duration = Duration::from_millis(30);
const SETTLE_BOUND: Duration = Duration::from_secs(180);
/// Between two queries.
const QUERY_PAUSE: Duration = Duration::from_millis(100);
/// Needle, search, metrics, comparison, values of a tag; the last 30 minutes of everything.
const QUERIES: [&str; 5] = [
    "/api/search?q=%7Bstatus%3Derror%7D&limit=20",
    "/api/search?q=%7Bduration%3E1ms%20%26%26%20kind%3Dserver%7D&limit=100&spss=10",
    "/api/metrics/query_range?q=%7B%7D%7Crate()by(resource.service.name)&since=30m&step=15s",
    "/api/metrics/query_range?q=%7B%7D%7Cquantile_over_time(duration,.5,.99)by(name)&since=30m&step=15s",
    "/api/v2/search/tag/resource.service.name/values",
];

/// One rate.
struct Profile {
    /// Spans per second; `None`: full speed.
    rate: Option<u64>,
    acknowledged_per_second: f64,
    cpu_micros: f64,
    written_per_raw: f64,
    sealed_spans: f64,
    sealed_bytes: f64,
    sealed_raw_bytes: f64,
    idle_memory: u64,
    peak_memory: u64,
    peak_memory_with_queries: u64,
    queries: u64,
    slowest_query: Duration,
    refused: u64,
}

/// The report of all rates.
pub async fn measure(plan: Plan, rates: &[Option<u64>]) -> String {
    let mut profiles = Vec::new();
    for rate in rates {
        eprintln!("== storing at {}", name(*rate));
        profiles.push(one(Plan { rate: *rate, ..plan }).await);
    }
    markdown(&plan, &profiles)
}

async fn one(plan: Plan) -> Profile {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle_memory = spanreel.process().resident_memory();
    let (user, system) = spanreel.process().user_and_system_time();
    let written = spanreel.process().written_bytes();
    let port = spanreel.ports.of(plan.protocol);
    let sent = driver::drive(port, plan).await;
    settle(&mut spanreel).await;
    let (user_after, system_after) = spanreel.process().user_and_system_time();
    let cpu = (user_after + system_after) - (user + system);
    let written = spanreel.process().written_bytes() - written;
    let peak_memory = spanreel.process().peak_memory();
    let metrics = spanreel.metrics().await;
    let sum = |name: &str| metrics.sum(name, &[]).unwrap_or_default();
    let (sealed_spans, sealed_bytes) = (sum("spanreel_store_spans"), sum("spanreel_store_bytes"));
    let sealed_raw_bytes = sum("spanreel_store_sealed_raw_bytes_total");

    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask(spanreel.ports.query, Arc::clone(&stop)));
    // Other traces than those that are there.
    let again = driver::drive(port, Plan { seed: plan.seed.wrapping_add(1), ..plan }).await;
    stop.store(true, Ordering::Relaxed);
    let (queries, slowest_query) = asking.await.expect("whoever asks does not panic");
    let peak_memory_with_queries = spanreel.process().peak_memory();
    spanreel.ledger().await.assert_balanced();
    Profile {
        rate: plan.rate,
        acknowledged_per_second: sent.spans as f64 / sent.elapsed.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / sent.spans.max(1) as f64,
        written_per_raw: written as f64 / sent.raw_bytes.max(1) as f64,
        sealed_spans,
        sealed_bytes,
        sealed_raw_bytes,
        idle_memory,
        peak_memory,
        peak_memory_with_queries,
        queries,
        slowest_query,
        refused: sent.refused + again.refused,
    }
}

/// One query after the other until told to stop: how many, and how long the slowest took.
async fn ask(port: u16, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut queries, mut slowest) = (0, Duration::ZERO);
    for query in QUERIES.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let started = Instant::now();
        let answer = http::get(port, query, &[]).await.expect("the query port answers");
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        slowest = slowest.max(started.elapsed());
        queries += 1;
        tokio::time::sleep(QUERY_PAUSE).await;
    }
    (queries, slowest)
}

/// Waits until nothing moves to disk in the background any more.
async fn settle(spanreel: &mut Spanreel) {
    let started = Instant::now();
    let mut quiet_since = started;
    let mut last = spanreel.process().user_and_system_time();
    while quiet_since.elapsed() < SETTLED {
        assert!(started.elapsed() < SETTLE_BOUND, "still busy {SETTLE_BOUND:?} after the last span");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = spanreel.process().user_and_system_time();
        if (now.0 + now.1) - (last.0 + last.1) > IDLE_CPU {
            quiet_since = Instant::now();
        }
        last = now;
    }
}

fn name(rate: Option<u64>) -> String {
    rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate} spans/s"))
}

fn markdown(plan: &Plan, profiles: &[Profile]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "Receive, keep, seal: {:?} for {} s at each rate, then as long again with a query every {} ms. No destination. What \
         waits to be sealed at the end of a slow load is not in runs yet.\n{}\n",
        plan.protocol,
        plan.duration.as_secs(),
        QUERY_PAUSE.as_millis(),
        crate::report::machine()
    );
    let mut row = |name: &str, cell: &dyn Fn(&Profile) -> String| {
        let _ = write!(out, "| {name} |");
        for profile in profiles {
            let _ = write!(out, " {} |", cell(profile));
        }
        out.push('\n');
    };
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
    let ratio = |of: f64, to: f64| if to > 0.0 { format!("{:.3}", of / to) } else { "-".to_owned() };
    row("", &|profile| name(profile.rate));
    row("---", &|_| "---:".to_owned());
    row("acknowledged, spans/s", &|profile| format!("{:.0}", profile.acknowledged_per_second));
    row("CPU per span, us, sealing included", &|profile| format!("{:.2}", profile.cpu_micros));
    row("bytes written per raw OTLP byte", &|profile| format!("{:.3}", profile.written_per_raw));
    row("bytes on disk per span in runs", &|profile| ratio(profile.sealed_bytes, profile.sealed_spans));
    row("bytes on disk per raw OTLP byte in runs", &|profile| ratio(profile.sealed_bytes, profile.sealed_raw_bytes));
    row("bytes written per byte on disk", &|profile| {
        ratio(profile.written_per_raw * profile.sealed_raw_bytes, profile.sealed_bytes)
    });
    row("spans in runs", &|profile| format!("{:.0}", profile.sealed_spans));
    row("RSS before the load, MiB", &|profile| mib(profile.idle_memory));
    row("peak RSS, MiB", &|profile| mib(profile.peak_memory));
    row("peak RSS with queries, MiB", &|profile| mib(profile.peak_memory_with_queries));
    row("queries meanwhile; the slowest, ms", &|profile| {
        format!("{}; {:.0}", profile.queries, profile.slowest_query.as_secs_f64() * 1e3)
    });
    row("answers \"try again\"", &|profile| profile.refused.to_string());
    out
}
