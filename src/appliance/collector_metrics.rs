//! The Collector's own metrics under its own names, for the dashboards that people have: served beside ours where
//! `service::telemetry` has a listener. Counters come in both spellings, with and without `_total`, because Collectors
//! of different ages had either.
//!
//! What the Collector counts in requests is counted in items here (`otelcol_exporter_queue_size`), and there is no queue
//! capacity: the spool's budget is in bytes (`spanreel_spool_bytes_max`).

use super::samplings;
use crate::otlp::Signal;
use crate::receive;
use crate::spool::{LossReason, Snapshot, Spool};
use crate::telemetry::process;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

/// Where the figures come from.
#[derive(Clone)]
pub(super) struct CollectorMetrics {
    pub spool: Spool,
    pub receive: receive::Metrics,
    pub started: Instant,
}

/// Values by labels, which stand in braces already.
type Series = BTreeMap<String, u64>;

impl CollectorMetrics {
    /// In Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let received = self.receive.items();
        for signal in Signal::ALL {
            for (name, is_accepted) in [("accepted", true), ("refused", false)] {
                let mut series = Series::new();
                for (labels, count) in
                    received.iter().filter(|(it, _)| it.signal == signal.as_str() && it.accepted == is_accepted)
                {
                    *series.entry(label("receiver", &labels.receiver)).or_default() += count;
                }
                counter(&mut out, &format!("otelcol_receiver_{name}_{}", word(signal)), &series);
            }
        }
        exporters(&mut out, &self.spool.snapshot());
        let up = self.started.elapsed().as_secs();
        counter(&mut out, "otelcol_process_uptime", &Series::from([(String::new(), up)]));
        if let Some(resident) = process::resident_bytes() {
            gauge(&mut out, "otelcol_process_memory_rss", &Series::from([(String::new(), resident)]));
        }
        if let Some(cpu) = process::cpu_seconds() {
            let _ = writeln!(out, "# TYPE otelcol_process_cpu_seconds counter\notelcol_process_cpu_seconds {cpu}");
        }
        out
    }
}

fn exporters(out: &mut String, snapshot: &Snapshot) {
    let mut queued = Series::new();
    for signal in Signal::ALL {
        let (mut sent, mut failed) = (Series::new(), Series::new());
        for consumer in snapshot.consumers.iter().filter(|it| it.account.destination != samplings::CURSOR) {
            let account = &consumer.account;
            if snapshot.ledger.account(account.pipeline).is_none_or(|account| account.signal != signal) {
                continue;
            }
            let exporter = label("exporter", &account.destination);
            let failures = [LossReason::Poison, LossReason::RejectedByDestination, LossReason::RetryDisabled];
            let lost = failures.iter().filter_map(|reason| account.lost.get(reason)).sum::<u64>();
            *sent.entry(exporter.clone()).or_default() += account.sent;
            *failed.entry(exporter.clone()).or_default() += lost;
            *queued.entry(format!("{exporter},{}", label("data_type", signal.as_str()))).or_default() +=
                consumer.queued;
        }
        counter(out, &format!("otelcol_exporter_sent_{}", word(signal)), &sent);
        counter(out, &format!("otelcol_exporter_send_failed_{}", word(signal)), &failed);
    }
    gauge(out, "otelcol_exporter_queue_size", &queued);
}

/// A page of OpenMetrics in Prometheus' older text format: a reader of that refuses types that it does not know, and
/// exemplars.
pub(super) fn older_text(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut help = "";
    for line in page.lines() {
        let (kind, rest) = line.strip_prefix("# ").and_then(|line| line.split_once(' ')).unwrap_or_default();
        match kind {
            "HELP" => help = rest.split_once(' ').map_or("", |(_, text)| text),
            "TYPE" => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "gauge" | "histogram" | "summary" => ("", kind),
                    _ => ("", "untyped"),
                };
                // Writing to a string cannot fail.
                let _ = writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
            }
            _ if line.starts_with('#') => {}
            _ => {
                out.push_str(without_exemplar(line));
                out.push('\n');
            }
        }
    }
    out
}

/// A sample as far as its value. What looks like an exemplar in the value of a label is none.
fn without_exemplar(sample: &str) -> &str {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in sample.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'#' if !is_quoted => return sample.get(..at).unwrap_or_default().trim_end(),
            _ => {}
        }
    }
    sample
}

/// What the Collector calls a signal's items in names.
fn word(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "spans",
        Signal::Metrics => "metric_points",
        Signal::Logs => "log_records",
    }
}

fn label(name: &str, value: &str) -> String {
    let mut out = format!("{name}=\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

fn counter(out: &mut String, name: &str, series: &Series) {
    for name in [name.to_owned(), format!("{name}_total")] {
        family(out, &name, "counter", series);
    }
}

fn gauge(out: &mut String, name: &str, series: &Series) {
    family(out, name, "gauge", series);
}

fn family(out: &mut String, name: &str, kind: &str, series: &Series) {
    if !series.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# TYPE {name} {kind}");
    }
    for (labels, value) in series {
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}{braced} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_openmetrics_knows_is_said_in_the_older_format() {
        let page = "# HELP build Which.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
            # HELP calls How many.\n# TYPE calls counter\n# UNIT calls calls\n\
            calls_total{of=\"a \\\" # {b\"} 3 # {trace_id=\"7\"} 1.0 2.0\n# HELP up Up.\n# TYPE up gauge\nup 1\n# EOF\n";
        assert_eq!(
            older_text(page),
            "# HELP build_info Which.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
             # HELP calls_total How many.\n# TYPE calls_total counter\n\
             calls_total{of=\"a \\\" # {b\"} 3\n# HELP up Up.\n# TYPE up gauge\nup 1\n"
        );
    }

    #[test]
    fn counters_come_in_both_spellings() {
        let mut out = String::new();
        counter(&mut out, "otelcol_x", &Series::from([(label("exporter", "a\"b"), 3)]));
        assert_eq!(
            out,
            "# TYPE otelcol_x counter\notelcol_x{exporter=\"a\\\"b\"} 3\n\
             # TYPE otelcol_x_total counter\notelcol_x_total{exporter=\"a\\\"b\"} 3\n"
        );
        counter(&mut out, "otelcol_y", &Series::new());
        assert!(!out.contains("otelcol_y"), "what was never raised is absent, as in a Collector");
    }
}
