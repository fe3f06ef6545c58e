//! The figures as a table, with everything relative to Spanreel.

use crate::driver::Plan;
use crate::payload::{SERVICES, SPANS_PER_REQUEST};
use crate::subject::Measured;
use std::fmt::Write;
use std::time::Duration;

const MIB: f64 = 1024.0 * 1024.0;

/// One result in a line.
pub fn line(measured: &Measured) -> String {
    format!(
        "{:.0} spans/s acknowledged, {:.2} us CPU a span, peak {:.1} MiB, {} spans forwarded, {} refusals",
        rate(measured),
        cpu_micros(measured),
        measured.peak_memory as f64 / MIB,
        measured.forwarded_spans,
        measured.sent.refused
    )
}

pub fn markdown(plan: &Plan, results: &[Measured]) -> String {
    let mut out = String::new();
    let pace = plan.rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate} spans/s"));
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{:?}, {pace} for {} s, {} connections x {} requests in flight, {SPANS_PER_REQUEST} spans a request, {} bytes a \
         span, {} services a trace.\n{}\n",
        plan.protocol,
        plan.duration.as_secs(),
        plan.connections,
        plan.in_flight,
        results.first().map_or(0, |first| first.sent.raw_bytes / first.sent.spans.max(1)),
        SERVICES.len(),
        machine()
    );
    let mut row = |name: &str, cell: &dyn Fn(&Measured) -> String| {
        let _ = write!(out, "| {name} |");
        for measured in results {
            let _ = write!(out, " {} |", cell(measured));
        }
        out.push('\n');
    };
    row("", &|measured| measured.subject.name().to_owned());
    row("---", &|_| "---:".to_owned());
    row("acknowledged, spans/s", &|measured| format!("{:.0}", rate(measured)));
    row("CPU per span, us (user + system)", &|measured| {
        let spans = measured.sent.spans.max(1) as f64;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / spans;
        format!("{:.2} ({:.2} + {:.2})", cpu_micros(measured), micros(measured.user), micros(measured.system))
    });
    row("peak RSS, MiB (before the load)", &|measured| {
        format!("{:.1} ({:.1})", measured.peak_memory as f64 / MIB, measured.idle_memory as f64 / MIB)
    });
    row("written to disk per raw OTLP byte", &|measured| {
        format!("{:.3}", measured.written_bytes as f64 / measured.sent.raw_bytes.max(1) as f64)
    });
    row("time to the acknowledgement, p50 / p99, ms", &|measured| {
        let millis = |quantile| measured.sent.latency(quantile).as_secs_f64() * 1e3;
        format!("{:.1} / {:.1}", millis(0.5), millis(0.99))
    });
    row("spans acknowledged", &|measured| measured.sent.spans.to_string());
    row("spans forwarded, in requests", &|measured| {
        format!("{} in {}", measured.forwarded_spans, measured.forwarded_requests)
    });
    row("forwarded bytes per raw byte", &|measured| {
        format!("{:.3}", measured.forwarded_bytes as f64 / measured.sent.raw_bytes.max(1) as f64)
    });
    row("forwarding done after the load, s", &|measured| format!("{:.1}", measured.drain.as_secs_f64()));
    row("answers \"try again\"", &|measured| measured.sent.refused.to_string());
    row("traces read back by id, complete", &|measured| {
        measured.traces_checked.map_or_else(|| "-".to_owned(), |checked| format!("all of {checked}"))
    });
    if let Some(first) = results.first() {
        row("**CPU per span, relative**", &|measured| format!("{:.1}x", cpu_micros(measured) / cpu_micros(first)));
        row("**spans/s, relative**", &|measured| format!("{:.2}x", rate(measured) / rate(first)));
        row("**peak RSS, relative**", &|measured| {
            format!("{:.1}x", measured.peak_memory as f64 / first.peak_memory as f64)
        });
    }
    out
}

fn rate(measured: &Measured) -> f64 {
    measured.sent.spans as f64 / measured.sent.elapsed.as_secs_f64()
}

/// Of the whole path, the load and its forwarding.
pub fn cpu_micros(measured: &Measured) -> f64 {
    measured.cpu().as_secs_f64() * 1e6 / measured.sent.spans.max(1) as f64
}

/// What the figures are of.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    // Whose build of the kernel it is does not matter.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("Machine: {cores} cores, {}, Linux {kernel}.", model.trim_start_matches(['\t', ' ', ':']))
}
