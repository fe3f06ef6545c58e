//! `spanreel search`: traces that match a TraceQL query, newest first.

use std::fmt::Write;

use serde_json::Value;

use super::outcome::Outcome;
use super::place::Place;
use super::status::rows;
use super::traces::{
    Form, Tone, columns, counted, duration, long, marked, moment, padded, printable, room, text, toned,
};
use crate::otlp::percent::url_value;

const SERVICE_WIDTH_MAX: usize = 32;
const NAME_WIDTH_MAX: usize = 60;

/// What is searched, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    pub query: &'a str,
    /// A duration as Prometheus writes it, such as `1h30m`; the server reads it.
    pub since: &'a str,
    pub limit: u32,
}

pub fn search(place: &Place, search: Search<'_>, form: Form) -> Outcome {
    let Search { query, since, limit } = search;
    let path = format!("/api/search?q={}&since={}&limit={limit}", url_value(query), url_value(since));
    match place.get(&path) {
        Err(line) => Outcome::failed(&[Some(line), marked(query)].into_iter().flatten().collect::<Vec<_>>()),
        answer => Outcome::answered(answer, form, |answer| describe(answer, search, columns(), form == Form::Coloured)),
    }
}

fn describe(answer: &Value, search: Search<'_>, columns: usize, coloured: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_answer(&mut out, answer, search, columns, coloured);
    out
}

fn write_answer(
    out: &mut String,
    answer: &Value,
    search: Search<'_>,
    columns: usize,
    coloured: bool,
) -> std::fmt::Result {
    let traces: Vec<Row> = rows(&answer["traces"]).map(Row::of).collect();
    if traces.is_empty() {
        return writeln!(out, "no trace of the last {} matches", search.since);
    }
    let widest = |of: fn(&Row) -> &str| traces.iter().map(|row| of(row).chars().count()).max().unwrap_or_default();
    let (services, names) = (widest(|row| &row.service), widest(|row| &row.name));
    // Before the name: start, duration, id and service; behind it some number of spans.
    let names = names.min(room(columns, 24 + 8 + 32 + services + 5 * 2 + "99 matched".len(), NAME_WIDTH_MAX));
    for row in &traces {
        writeln!(
            out,
            "{}  {:>8}  {}  {}  {}  {} matched{}",
            toned(&row.start, Tone::Faint, coloured),
            row.duration,
            toned(&row.id, Tone::Strong, coloured),
            toned(&padded(&row.service, services), Tone::Service, coloured),
            padded(&printable(&row.name, names), names),
            row.matched,
            match row.errors {
                0 => String::new(),
                errors => toned(&format!(", {}", counted(errors, "error")), Tone::Error, coloured),
            },
        )?;
    }
    let more = if traces.len() >= search.limit as usize { "; there may be more (--limit)" } else { "" };
    writeln!(out, "{} of the last {}{more}", counted(traces.len() as u64, "trace"), search.since)
}

struct Row {
    start: String,
    duration: String,
    id: String,
    service: String,
    name: String,
    matched: u64,
    errors: u64,
}

impl Row {
    fn of(trace: &Value) -> Self {
        let matched = rows(&trace["spanSets"]).map(|spanset| spanset["matched"].as_u64().unwrap_or(0)).sum();
        let services = trace["serviceStats"].as_object().into_iter().flatten();
        Self {
            start: moment(long(&trace["startTimeUnixNano"])),
            duration: duration(trace["durationMs"].as_u64().unwrap_or(0).saturating_mul(1_000_000)),
            id: printable(text(&trace["traceID"]), 32),
            service: printable(text(&trace["rootServiceName"]), SERVICE_WIDTH_MAX),
            name: printable(text(&trace["rootTraceName"]), NAME_WIDTH_MAX),
            matched,
            errors: services.map(|(_, stats)| stats["errorCount"].as_u64().unwrap_or(0)).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search<'_> = Search { query: "{}", since: "1h", limit: 20 };

    #[test]
    fn a_trace_is_a_line() {
        let answer = serde_json::json!({"traces": [{
            "traceID": "2f3e0cee77ae5dc9c17ade3689eb2e54", "rootServiceName": "shop", "rootTraceName": "GET /",
            "startTimeUnixNano": "1544712660123000000", "durationMs": 557,
            "spanSets": [{"spans": [], "matched": 7}], "serviceStats": {"shop": {"spanCount": 12, "errorCount": 1}},
        }]});
        let text = describe(&answer, SEARCH, usize::MAX, false);
        assert_eq!(
            text,
            "2018-12-13 14:51:00.123Z    557 ms  2f3e0cee77ae5dc9c17ade3689eb2e54  shop  GET /  7 matched, 1 error\n\
             1 trace of the last 1h\n"
        );
    }

    #[test]
    fn nothing_found_is_said() {
        assert_eq!(
            describe(&serde_json::json!({"traces": []}), SEARCH, usize::MAX, false),
            "no trace of the last 1h matches\n"
        );
    }
}
