//! How fast a backlog goes once the destination is back: so many spans are spooled while it is away, then it comes.

use crate::driver::{self, Plan};
use crate::report::machine;
use crate::sink::Sink;
use crate::support::ports;
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use std::fmt::Write;
use std::time::{Duration, Instant};

const MIB: f64 = 1024.0 * 1024.0;
/// The rate at which the backlog of the promise came.
const RATE: f64 = 5_000.0;
/// Longer than any backlog is worth measuring.
const DURATION_MAX: Duration = Duration::from_secs(600);
const DRAIN_BOUND: Duration = Duration::from_secs(600);
/// The forwarder may be pausing between two attempts when the destination comes back (`retry_on_failure` of the rig's
/// options): up to a second of what is reported.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Spools `spans` spans, lets them go, and reports.
pub async fn measure(plan: Plan, spans: u64) -> String {
    let port = ports::free();
    let mut spanreel = Spanreel::start(&Options::default().with_grpc_destination("otlp", port)).await;
    let plan = Plan { rate: None, duration: DURATION_MAX, spans_max: Some(spans), ..plan };
    let sent = driver::drive(spanreel.ports.of(plan.protocol), plan).await;
    let before = spanreel.process().user_and_system_time();
    let sink = Sink::start_at(port).await.expect("the port is free");
    let back = Instant::now();
    let mut first = None;
    while sink.spans() < sent.spans {
        assert!(back.elapsed() < DRAIN_BOUND, "{} of {} spans came", sink.spans(), sent.spans);
        if first.is_none() && sink.spans() > 0 {
            first = Some(back.elapsed());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let drained = back.elapsed();
    let after = spanreel.process().user_and_system_time();
    let ledger = spanreel.ledger().await;
    assert_eq!(ledger.pipeline(PIPELINE).stored, sent.spans, "the ledger: {ledger:#?}");
    let cpu = (after.0 + after.1).saturating_sub(before.0 + before.1);
    let rate = sent.spans as f64 / drained.as_secs_f64();
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{} spans spooled at {:.0} spans/s while the destination was away.\n{}\n",
        sent.spans,
        sent.spans as f64 / sent.elapsed.as_secs_f64(),
        machine()
    );
    let _ = writeln!(out, "| backlog | |\n| --- | ---: |");
    let _ = writeln!(out, "| drained in, s | {:.1} |", drained.as_secs_f64());
    let _ = writeln!(out, "| of which before the first span, s | {:.2} |", first.unwrap_or_default().as_secs_f64());
    let _ = writeln!(out, "| drained, spans/s | {rate:.0} |");
    let _ = writeln!(out, "| **times the rate of 5,000 spans/s** | **{:.1}x** |", rate / RATE);
    let _ = writeln!(
        out,
        "| CPU per span meanwhile, us (with sealing) | {:.2} |",
        cpu.as_secs_f64() * 1e6 / sent.spans as f64
    );
    let _ = writeln!(out, "| forwarded in requests | {} |", sink.requests());
    let _ = writeln!(out, "| peak RSS, MiB | {:.1} |", spanreel.process().peak_memory() as f64 / MIB);
    out
}
