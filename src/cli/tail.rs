//! `spanreel tail`: spans as they come, until it is stopped.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use serde_json::Value;

use super::place::Place;
use super::status::rows;
use super::traces::{Form, Tone, counted, duration, long, marked, moment, printable, text, toned};
use super::{EXIT_FAILED, EXIT_OK};
use crate::otlp::percent::url_value;

/// Between two looks that found nothing.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Between two looks while spans come, so that a stream of small requests is not looked at one by one.
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// A process that is being restarted is waited for, half a minute.
const FAILURE_WAIT: Duration = Duration::from_secs(1);
const FAILURES_MAX: u32 = 30;
/// Of a directory, which gets no new spans, the spans of so many of the newest traces.
const LAST_OF_DIRECTORY: u32 = 20;

/// Prints spans that match as they come, until a signal or until nobody reads. What cannot be shown is told on stderr.
///
/// A process is asked for what arrived since the look before, by the number of the batch: no clock and no limit of a
/// search decides what is shown, and a restart of the process loses nothing.
pub fn tail(place: &Place, query: &str, last: Option<u32>, form: Form) -> u8 {
    let is_directory = matches!(place, Place::Stored(_));
    let last = last.unwrap_or(if is_directory { LAST_OF_DIRECTORY } else { 0 });
    let mut from: Option<u64> = None;
    let mut failures = 0;
    loop {
        let wait = match place.get(&path(query, from, last)) {
            Ok(answer) => {
                failures = 0;
                if print(&lines(&answer, form)).is_err() {
                    return EXIT_OK;
                }
                not_shown(&answer).iter().for_each(|line| eprintln!("{line}"));
                if is_directory {
                    eprintln!("spanreel: nothing more comes to a directory that nobody runs on");
                    return EXIT_OK;
                }
                let next = Some(long(&answer["next"]));
                let wait = if next == from { IDLE_WAIT } else { BUSY_WAIT };
                from = next;
                wait
            }
            Err(line) => {
                failures += 1;
                if from.is_none() || failures >= FAILURES_MAX {
                    eprintln!("{line}");
                    marked(query).iter().for_each(|mark| eprintln!("{mark}"));
                    return EXIT_FAILED;
                }
                FAILURE_WAIT
            }
        };
        std::thread::sleep(wait);
    }
}

fn path(query: &str, from: Option<u64>, last: u32) -> String {
    let query = url_value(query);
    match from {
        Some(from) => format!("/api/spanreel/tail?q={query}&from={from}"),
        None => format!("/api/spanreel/tail?q={query}&last={last}"),
    }
}

fn lines(answer: &Value, form: Form) -> Vec<String> {
    rows(&answer["spans"]).map(|span| line(span, form)).collect()
}

/// What came and is not among the spans.
fn not_shown(answer: &Value) -> Vec<String> {
    let missed = match long(&answer["missedBatches"]) {
        0 => None,
        1 => Some("1 batch of spans was sealed and left the spool before it could be shown".to_owned()),
        batches => {
            Some(format!("{batches} batches of spans were sealed and left the spool before they could be shown"))
        }
    };
    let left_out = match long(&answer["leftOut"]) {
        0 => None,
        spans => Some(format!("up to {} came at once and could not be shown", counted(spans, "span"))),
    };
    let remedy = |what: String| format!("spanreel: {what}; spanreel search finds what is stored");
    missed.into_iter().chain(left_out).map(remedy).collect()
}

fn line(span: &Value, form: Form) -> String {
    let attribute = |name: &str| {
        let found = rows(&span["attributes"]).find(|attribute| attribute["key"] == name);
        found.map_or("", |attribute| text(&attribute["value"]["stringValue"]))
    };
    let (service, failed) = (attribute("service.name"), attribute("status") == "error");
    if form == Form::Json {
        return format!("{span}\n");
    }
    let coloured = form == Form::Coloured;
    format!(
        "{}  {}  {}  {:>8}  {}{}\n",
        toned(&moment(long(&span["startTimeUnixNano"])), Tone::Faint, coloured),
        toned(&printable(text(&span["traceID"]), 32), Tone::Faint, coloured),
        toned(&printable(service, 32), Tone::Service, coloured),
        duration(long(&span["durationNanos"])),
        printable(text(&span["name"]), 100),
        if failed { format!("  {}", toned("error", Tone::Error, coloured)) } else { String::new() },
    )
}

fn print(lines: &[String]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    // At once: who reads along sees the spans of a look together.
    let written = stdout.write_all(lines.concat().as_bytes()).and_then(|()| stdout.flush());
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
    fn a_span_is_a_line() {
        let answer = serde_json::json!({"spans": [
            {"traceID": "01", "spanID": "a", "name": "x", "startTimeUnixNano": "1", "durationNanos": "5", "attributes": [
                {"key": "service.name", "value": {"stringValue": "shop"}},
                {"key": "status", "value": {"stringValue": "error"}},
            ]},
        ]});
        assert_eq!(lines(&answer, Form::Plain), ["1970-01-01 00:00:00.000Z  01  shop      5 ns  x  error\n"]);
        assert!(lines(&answer, Form::Json)[0].contains(r#""traceID":"01""#));
    }

    #[test]
    fn a_look_goes_on_where_the_one_before_ended() {
        assert_eq!(path("{} // all", None, 5), "/api/spanreel/tail?q=%7B%7D%20%2F%2F%20all&last=5");
        assert_eq!(path("{}", Some(17), 5), "/api/spanreel/tail?q=%7B%7D&from=17");
    }

    #[test]
    fn what_is_not_shown_is_told() {
        assert!(not_shown(&serde_json::json!({"spans": [], "next": "7"})).is_empty());
        let told = not_shown(&serde_json::json!({"missedBatches": "2", "leftOut": "1"}));
        assert!(told.len() == 2 && told[0].contains("2 batches") && told[1].contains("up to 1 span came"), "{told:?}");
    }
}
