//! `spanreel show`: one trace as a tree of its spans.
//!
//! ```text
//! GET /cart                shop       557 ms  ████████████████████████████████
//! ├─ SELECT orders         orders    20.1 ms    ██                             error: timeout
//! └─ GET /stock            stock      120 ms          ██████
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::outcome::Outcome;
use super::place::Place;
use super::status::rows;
use super::traces::{Form, Tone, columns, counted, duration, long, moment, padded, printable, room, text, toned};
use crate::otlp::percent::url_value;

const BAR_WIDTH: usize = 32;
/// Narrower ones say nothing.
const BAR_WIDTH_MIN: usize = 8;
const NAME_WIDTH_MAX: usize = 60;
/// Of a name so much is shown, however deep it stands.
const NAME_WIDTH_MIN: usize = 8;
const SERVICE_WIDTH_MAX: usize = 32;
const MESSAGE_WIDTH_MAX: usize = 100;
/// Deeper spans are drawn at this depth: a line must stay one.
const INDENT_DEPTH_MAX: usize = 40;

pub fn show(place: &Place, id: &str, form: Form) -> Outcome {
    let path = format!("/api/v2/traces/{}", url_value(id));
    match place.get(&path) {
        Ok(answer) => {
            let spans = Span::all(&answer["trace"]);
            if spans.is_empty() {
                return Outcome::failed(&[format!("spanreel: there is no trace {}", printable(id, 64))]);
            }
            Outcome::answered(Ok(answer), form, |answer| {
                describe(&spans, text(&answer["message"]), columns(), form == Form::Coloured)
            })
        }
        Err(line) => Outcome::failed(&[line]),
    }
}

/// What is drawn of a span.
struct Span {
    id: String,
    parent: String,
    service: String,
    name: String,
    start: u64,
    end: u64,
    failed: bool,
    message: String,
    trace_id: String,
}

impl Span {
    fn all(trace: &Value) -> Vec<Self> {
        let mut spans = Vec::new();
        for resource_spans in rows(&trace["resourceSpans"]) {
            let service = rows(&resource_spans["resource"]["attributes"])
                .find(|attribute| attribute["key"] == "service.name")
                .map_or("", |attribute| text(&attribute["value"]["stringValue"]));
            for scope_spans in rows(&resource_spans["scopeSpans"]) {
                spans.extend(rows(&scope_spans["spans"]).map(|span| Self::of(span, service)));
            }
        }
        spans
    }

    fn of(span: &Value, service: &str) -> Self {
        let start = long(&span["startTimeUnixNano"]);
        Self {
            id: hex(&span["spanId"]),
            parent: hex(&span["parentSpanId"]),
            service: printable(service, SERVICE_WIDTH_MAX),
            name: printable(text(&span["name"]), NAME_WIDTH_MAX),
            start,
            end: long(&span["endTimeUnixNano"]).max(start),
            failed: span["status"]["code"] == "STATUS_CODE_ERROR",
            message: printable(text(&span["status"]["message"]), MESSAGE_WIDTH_MAX),
            trace_id: hex(&span["traceId"]),
        }
    }
}

/// Ids are base64 in this JSON.
fn hex(id: &Value) -> String {
    let bytes = STANDARD.decode(text(id)).unwrap_or_default();
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A line of the tree: which span, and what stands before its name.
struct Line {
    span: usize,
    lead: String,
}

/// The spans in the order of a tree, children by their start. What hangs on a parent that did not come is a root of its
/// own; spans that are each other's ancestors are shown once.
fn tree(spans: &[Span]) -> Vec<Line> {
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (at, span) in spans.iter().enumerate() {
        if span.parent.is_empty() || span.parent == span.id || !ids.contains(span.parent.as_str()) {
            roots.push(at);
        } else {
            children.entry(&span.parent).or_default().push(at);
        }
    }
    let by_start = |at: &usize| spans.get(*at).map_or((0, ""), |span| (span.start, span.id.as_str()));
    roots.sort_by_key(by_start);
    children.values_mut().for_each(|siblings| siblings.sort_by_key(by_start));

    let mut lines = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    let cycles = (0..spans.len()).collect::<Vec<_>>();
    for root in roots.into_iter().chain(cycles) {
        // What is to be drawn yet: span, depth, the lead of its children's lines, its own.
        let mut stack = vec![(root, 0, String::new(), String::new())];
        while let Some((at, depth, below, lead)) = stack.pop() {
            let Some(span) = spans.get(at) else { continue };
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            lines.push(Line { span: at, lead });
            let siblings = children.get(span.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            for (place, child) in siblings.iter().enumerate().rev() {
                let last = place + 1 == siblings.len();
                let deep = depth >= INDENT_DEPTH_MAX;
                let lead = format!("{below}{}", if last { "└─ " } else { "├─ " });
                let under = if deep { below.clone() } else { format!("{below}{}", if last { "   " } else { "│  " }) };
                stack.push((*child, depth + 1, under, lead));
            }
        }
    }
    lines
}

fn describe(spans: &[Span], message: &str, columns: usize, coloured: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_trace(&mut out, spans, message, columns, coloured);
    out
}

fn write_trace(out: &mut String, spans: &[Span], message: &str, columns: usize, coloured: bool) -> std::fmt::Result {
    let start = spans.iter().map(|span| span.start).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.end).max().unwrap_or(start);
    let services: HashSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let errors = spans.iter().filter(|span| span.failed).count();
    let id = spans.first().map_or("", |span| span.trace_id.as_str());
    writeln!(
        out,
        "{}  {}  {}, {}, {}{}",
        toned(id, Tone::Strong, coloured),
        toned(&moment(start), Tone::Faint, coloured),
        duration(end - start),
        counted(spans.len() as u64, "span"),
        counted(services.len() as u64, "service"),
        match errors {
            0 => String::new(),
            errors => toned(&format!(", {}", counted(errors as u64, "error")), Tone::Error, coloured),
        },
    )?;
    if !message.is_empty() {
        writeln!(out, "{}", printable(message, 200))?;
    }
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let lines = tree(spans);
    let label = |line: &Line| line.lead.chars().count() + spans[line.span].name.chars().count();
    let names = lines.iter().map(label).max().unwrap_or_default();
    let width = spans.iter().map(|span| span.service.chars().count()).max().unwrap_or_default();
    // What is drawn gives way first, then names.
    let rest = width + 8 + 3 * 2;
    let bars = columns.saturating_sub(names + rest).min(BAR_WIDTH);
    let bars = if bars < BAR_WIDTH_MIN { 0 } else { bars };
    let names = names.min(room(columns, rest + bars, usize::MAX));
    for line in &lines {
        let span = &spans[line.span];
        let lead: String = line.lead.chars().take(names.saturating_sub(NAME_WIDTH_MIN)).collect();
        let name = names - lead.chars().count();
        let mut notes = String::new();
        if span.failed {
            let why = if span.message.is_empty() { "error".to_owned() } else { format!("error: {}", span.message) };
            notes = format!("  {}", toned(&why, Tone::Error, coloured));
        }
        if !span.parent.is_empty() && !ids.contains(span.parent.as_str()) {
            let note = format!("  (its parent {} has not come)", span.parent);
            notes.push_str(&toned(&note, Tone::Faint, coloured));
        }
        writeln!(
            out,
            "{}{}  {}  {:>8}  {}{notes}",
            toned(&lead, Tone::Faint, coloured),
            padded(&printable(&span.name, name), name),
            toned(&padded(&span.service, width), Tone::Service, coloured),
            duration(span.end - span.start),
            toned(&bar(span, start, end, bars), if span.failed { Tone::Error } else { Tone::Service }, coloured),
        )?;
    }
    Ok(())
}

/// Where in the trace's time the span lies.
fn bar(span: &Span, start: u64, end: u64, width: usize) -> String {
    if width == 0 {
        return String::new();
    }
    let whole = (end - start).max(1) as f64;
    let place = |nanos: u64| (((nanos - start) as f64 / whole) * width as f64) as usize;
    let first = place(span.start).min(width - 1);
    let last = place(span.end).clamp(first + 1, width);
    let mut bar = " ".repeat(first);
    bar.push_str(&"█".repeat(last - first));
    padded(&bar, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, name: &str, start: u64, end: u64) -> Span {
        Span {
            id: id.to_owned(),
            parent: parent.to_owned(),
            service: "shop".to_owned(),
            name: name.to_owned(),
            start,
            end,
            failed: false,
            message: String::new(),
            trace_id: "01".to_owned(),
        }
    }

    fn drawn(spans: &[Span]) -> Vec<String> {
        tree(spans).iter().map(|line| format!("{}{}", line.lead, spans[line.span].name)).collect()
    }

    #[test]
    fn children_stand_below_their_parent_by_start() {
        let spans = [
            span("b", "a", "late", 5, 6),
            span("a", "", "root", 0, 9),
            span("c", "a", "early", 1, 4),
            span("d", "c", "inner", 2, 3),
        ];
        assert_eq!(drawn(&spans), ["root", "├─ early", "│  └─ inner", "└─ late"]);
    }

    #[test]
    fn a_span_whose_parent_has_not_come_is_a_root_that_says_so() {
        let spans = [span("a", "f00d", "orphan", 0, 2_000_000)];
        let text = describe(&spans, "", usize::MAX, false);
        assert!(text.contains("orphan  shop   2.00 ms"), "{text}");
        assert!(text.contains("(its parent f00d has not come)"), "{text}");
    }

    #[test]
    fn spans_in_a_circle_and_ids_that_repeat_are_each_shown_once() {
        let spans = [span("a", "b", "one", 0, 1), span("b", "a", "two", 0, 1), span("b", "a", "twin", 0, 1)];
        assert_eq!(drawn(&spans).len(), 3);
    }

    #[test]
    fn a_deep_trace_is_drawn_without_recursion() {
        let spans: Vec<Span> =
            (0..20_000u32).map(|at| span(&at.to_string(), &at.wrapping_sub(1).to_string(), "x", 0, 1)).collect();
        assert_eq!(tree(&spans).len(), 20_000);
    }

    #[test]
    fn bars_show_place_and_length() {
        let whole = span("a", "", "x", 0, 32);
        assert_eq!(bar(&whole, 0, 32, BAR_WIDTH).trim_end().chars().count(), BAR_WIDTH);
        let late = span("a", "", "x", 32, 32);
        assert_eq!(bar(&late, 0, 32, BAR_WIDTH), format!("{}█", " ".repeat(BAR_WIDTH - 1)));
    }

    #[test]
    fn on_a_narrow_terminal_a_span_stays_a_line() {
        let spans: Vec<Span> = (0..30)
            .map(|at| span(&format!("{at}"), &format!("{}", at - 1), "a name of some length", at as u64, 100))
            .collect();
        for columns in [120, 80, 60, 40] {
            let text = describe(&spans, "", columns, false);
            let lines: Vec<&str> = text.lines().skip(1).collect();
            assert_eq!(lines.len(), 30);
            // The first has a note that its parent has not come.
            for line in &lines[1..] {
                let width = line.trim_end().chars().count();
                assert!(width <= columns && line.contains("shop"), "{width} of {columns}: {line}");
            }
        }
    }

    #[test]
    fn a_failed_span_says_why() {
        let answer = serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [{"spans": [{"traceId": "AQ==", "spanId": "Ag==", "name": "pay\u{1b}", "startTimeUnixNano": "1",
                "endTimeUnixNano": "2", "status": {"code": "STATUS_CODE_ERROR", "message": "declined"}}]}],
        }]});
        let text = describe(&Span::all(&answer), "", usize::MAX, false);
        assert!(text.starts_with("01  1970-01-01"), "{text}");
        assert!(text.contains("pay\u{fffd}  shop") && text.ends_with("error: declined\n"), "{text}");
    }
}
