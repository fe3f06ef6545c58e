//! `spanreel pin`, `verify` and `snapshot`: looking after what is stored.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::EXIT_FAILED;
use super::outcome::Outcome;
use super::place::Place;
use super::status::rows;
use super::traces::{ANSWER_WAIT_MAX, Form, counted, text};
use crate::otlp::percent::url_value;

/// Reading a whole disk takes its time: at 100 MB/s this is 8 TB.
const WHOLE_DISK_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a trace's pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    Pin,
    Remove,
}

/// Without an id: the pinned traces, one a line.
pub fn pin(place: &Place, id: Option<&str>, pinning: Pinning, form: Form) -> Outcome {
    let asked = match id {
        None => place.get("/api/spanreel/pins"),
        Some(id) => {
            let method = if pinning == Pinning::Pin { Method::POST } else { Method::DELETE };
            place.ask(method, &format!("/api/spanreel/pins/{}", url_value(id)), ANSWER_WAIT_MAX)
        }
    };
    Outcome::answered(asked, form, |answer| {
        rows(&answer["traces"]).map(text).fold(String::new(), |out, id| out + id + "\n")
    })
}

/// Fails if anything is damaged.
pub fn verify(place: &Place, form: Form) -> Outcome {
    match place.ask(Method::POST, "/api/spanreel/verify", WHOLE_DISK_WAIT_MAX) {
        Ok(answer) => {
            let damaged = rows(&answer["damages"]).next().is_some();
            let stdout = if form == Form::Json { format!("{answer:#}\n") } else { describe(&answer) };
            Outcome { stdout, stderr: String::new(), code: if damaged { EXIT_FAILED } else { 0 } }
        }
        Err(line) => Outcome::failed(&[line]),
    }
}

fn describe(answer: &Value) -> String {
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    let mut out = format!(
        "read {} with {} of {}, and {}\n",
        counted(number("runs"), "sealed run"),
        counted(number("spans"), "span"),
        counted(number("traces"), "trace"),
        match number("batches") {
            1 => "1 batch of the spool".to_owned(),
            batches => format!("{batches} batches of the spool"),
        },
    );
    for damage in rows(&answer["damages"]) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "damaged: {}: {}", text(&damage["place"]), text(&damage["problem"]));
    }
    if rows(&answer["damages"]).next().is_none() {
        out.push_str("nothing is damaged\n");
    }
    out
}

pub fn snapshot(place: &Place, directory: &Path, form: Form) -> Outcome {
    let absolute = match std::path::absolute(directory) {
        Ok(path) => path,
        Err(error) => return Outcome::failed(&[format!("spanreel: {}: {error}", directory.display())]),
    };
    let Some(path) = absolute.to_str() else {
        return Outcome::failed(&[format!("spanreel: {} is not UTF-8", absolute.display())]);
    };
    let path = format!("/api/spanreel/snapshot?directory={}", url_value(path));
    let asked = place.ask(Method::POST, &path, WHOLE_DISK_WAIT_MAX);
    Outcome::answered(asked, form, |answer| format!("{}\n", text(&answer["directory"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_has_a_line_with_its_place() {
        let answer = serde_json::json!({"runs": 2, "traces": 10, "spans": 90, "batches": 1,
            "damages": [{"place": "run 17", "problem": "block checksum mismatch"}]});
        let text = describe(&answer);
        assert!(
            text.starts_with("read 2 sealed runs with 90 spans of 10 traces, and 1 batch of the spool\n"),
            "{text}"
        );
        assert!(text.ends_with("damaged: run 17: block checksum mismatch\n"), "{text}");
    }

    #[test]
    fn what_is_whole_is_said_to_be() {
        let answer = serde_json::json!({"runs": 1, "traces": 1, "spans": 1, "batches": 0, "damages": []});
        let expected = "read 1 sealed run with 1 span of 1 trace, and 0 batches of the spool\nnothing is damaged\n";
        assert_eq!(describe(&answer), expected);
    }
}
