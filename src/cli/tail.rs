//! `spanreel tail`: spans as they come, until it is stopped.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::place::Place;
use super::status::rows;
use super::traces::{Form, Tone, duration, long, moment, printable, text, toned};
use super::{EXIT_FAILED, EXIT_OK};
use crate::otlp::percent::url_value;

const INTERVAL: Duration = Duration::from_secs(1);
/// Spans that started longer ago are not shown when they come.
const LOOK_BACK: Duration = Duration::from_secs(60);
/// Clocks of other machines may be ahead.
const LOOK_AHEAD: Duration = Duration::from_secs(60);
const TRACES_PER_LOOK_MAX: u32 = 200;
const SPANS_PER_TRACE_MAX: u32 = 100;
/// Span ids that were shown already; when there are more, those of the last look are kept.
const SHOWN_MAX: usize = 200_000;
/// A process that is being restarted is waited for.
const FAILURES_MAX: u32 = 30;

/// Prints spans that match, each once, until a signal or until nobody reads.
pub fn tail(place: &Place, query: &str, form: Form) -> u8 {
    let query = format!("{query} | select(status, resource.service.name, name)");
    let mut shown: HashSet<String> = HashSet::new();
    let mut failures = 0;
    // What is there already is history.
    let mut first = true;
    loop {
        match place.get(&path(&query, SystemTime::now())) {
            Ok(answer) => {
                failures = 0;
                let (lines, ids) = new_lines(&answer, &shown, form);
                if !first && print(&lines).is_err() {
                    return EXIT_OK;
                }
                if shown.len() + ids.len() > SHOWN_MAX {
                    shown.clear();
                }
                shown.extend(ids);
                first = false;
            }
            Err(line) => {
                failures += 1;
                if first || failures >= FAILURES_MAX {
                    eprintln!("{line}");
                    return EXIT_FAILED;
                }
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

fn path(query: &str, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!(
        "/api/search?q={}&start={}&end={}&limit={TRACES_PER_LOOK_MAX}&spss={SPANS_PER_TRACE_MAX}",
        url_value(query),
        now.saturating_sub(LOOK_BACK).as_secs(),
        (now + LOOK_AHEAD).as_secs(),
    )
}

/// The spans of an answer that were not shown yet, by start, as lines; and the ids of all.
fn new_lines(answer: &Value, shown: &HashSet<String>, form: Form) -> (Vec<String>, Vec<String>) {
    let mut new = Vec::new();
    let mut ids = Vec::new();
    for trace in rows(&answer["traces"]) {
        for span in rows(&trace["spanSets"]).flat_map(|spanset| rows(&spanset["spans"])) {
            let id = format!("{}{}", text(&trace["traceID"]), text(&span["spanID"]));
            if !shown.contains(&id) {
                new.push((long(&span["startTimeUnixNano"]), line(trace, span, form)));
            }
            ids.push(id);
        }
    }
    new.sort();
    (new.into_iter().map(|(_, line)| line).collect(), ids)
}

fn line(trace: &Value, span: &Value, form: Form) -> String {
    let attribute = |name: &str| {
        let found = rows(&span["attributes"]).find(|attribute| attribute["key"] == name);
        found.map_or("", |attribute| text(&attribute["value"]["stringValue"]))
    };
    let (service, failed) = (attribute("service.name"), attribute("status") == "error");
    if form == Form::Json {
        let mut object = span.clone();
        object["traceID"] = trace["traceID"].clone();
        return format!("{}\n", json!(object));
    }
    let coloured = form == Form::Coloured;
    format!(
        "{}  {}  {}  {:>8}  {}{}\n",
        toned(&moment(long(&span["startTimeUnixNano"])), Tone::Faint, coloured),
        toned(&printable(text(&trace["traceID"]), 32), Tone::Faint, coloured),
        toned(&printable(service, 32), Tone::Service, coloured),
        duration(long(&span["durationNanos"])),
        printable(text(&span["name"]), 100),
        if failed { format!("  {}", toned("error", Tone::Error, coloured)) } else { String::new() },
    )
}

fn print(lines: &[String]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = lines.iter().try_for_each(|line| stdout.write_all(line.as_bytes())).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("spanreel: writing the output: {error}");
            Err(error)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_is_shown_once_and_in_the_order_of_time() {
        let span = |id: &str, start: u64| json!({"spanID": id, "name": "x", "startTimeUnixNano": start.to_string(), "durationNanos": "5"});
        let answer = json!({"traces": [{"traceID": "01", "spanSets": [{"spans": [span("b", 2), span("a", 1)]}]}]});
        let (lines, ids) = new_lines(&answer, &HashSet::new(), Form::Plain);
        assert_eq!(ids, ["01b", "01a"]);
        assert!(lines[0].starts_with("1970-01-01 00:00:00.000Z  01") && lines.len() == 2, "{lines:?}");
        let shown: HashSet<String> = ids.into_iter().collect();
        assert!(new_lines(&answer, &shown, Form::Plain).0.is_empty());
    }

    #[test]
    fn a_look_reaches_back_a_minute() {
        let path = path("{}", SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        assert_eq!(path, "/api/search?q=%7B%7D&start=40&end=160&limit=200&spss=100");
    }
}
