//! `spanreel pin`, `verify` and `snapshot`: looking after what is stored.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
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

const VERIFY_PATH: &str = "/api/spanreel/verify";

/// Between two looks at how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// What is not known by then is asked again.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(2);

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

/// Fails if anything is damaged. Who looks on at a terminal sees how far it is.
pub fn verify(place: &Place, form: Form) -> Outcome {
    let verify = || place.ask(Method::POST, VERIFY_PATH, WHOLE_DISK_WAIT_MAX);
    let answer = if std::io::stderr().is_terminal() { with_progress(place, verify) } else { verify() };
    match answer {
        Ok(answer) => {
            let damaged = rows(&answer["damages"]).next().is_some();
            let stdout = if form == Form::Json { format!("{answer:#}\n") } else { describe(&answer) };
            Outcome { stdout, stderr: String::new(), code: if damaged { EXIT_FAILED } else { 0 } }
        }
        Err(line) => Outcome::failed(&[line]),
    }
}

/// Does something that takes long, and says on stderr how far it is.
fn with_progress<T>(place: &Place, work: impl FnOnce() -> T) -> T {
    let (working, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let show = move || {
            // Nobody is left to be told if stderr cannot be written.
            let put = |text: &str| drop(write!(std::io::stderr(), "\r\x1b[K{text}"));
            while ended.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Ok(answer) = place.ask(Method::GET, VERIFY_PATH, PROGRESS_WAIT_MAX) {
                    put(&progress(&answer).unwrap_or_default());
                }
            }
            put("");
        };
        // Without a thread it is done in silence.
        let shown = thread::Builder::new().name("progress".into()).spawn_scoped(scope, show);
        let done = work();
        drop(working);
        drop(shown);
        done
    })
}

fn progress(answer: &Value) -> Option<String> {
    let (done, of) = (answer["done"].as_u64()?, answer["of"].as_u64()?);
    let percent = done.saturating_mul(100) / of.max(1);
    Some(format!("reading what is stored: {percent} % ({done} of {of} parts)"))
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
    fn progress_is_told_while_there_is_any() {
        let running = serde_json::json!({"running": true, "done": 3, "of": 10});
        assert_eq!(progress(&running).unwrap(), "reading what is stored: 30 % (3 of 10 parts)");
        assert_eq!(progress(&serde_json::json!({"running": false})), None);
    }

    #[test]
    fn what_is_whole_is_said_to_be() {
        let answer = serde_json::json!({"runs": 1, "traces": 1, "spans": 1, "batches": 0, "damages": []});
        let expected = "read 1 sealed run with 1 span of 1 trace, and 0 batches of the spool\nnothing is damaged\n";
        assert_eq!(describe(&answer), expected);
    }
}
