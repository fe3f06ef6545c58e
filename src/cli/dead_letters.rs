//! `spanreel dead-letters`: what destinations refused for good.

use super::outcome::Outcome;
use super::place::Place;
use super::status::rows;
use super::traces::{ANSWER_WAIT_MAX, Form, counted, text};
use crate::otlp::percent::url_value;
use http::Method;
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// The process itself gives up on a destination after a minute.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(90);

/// What is done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling<'a> {
    List,
    Show(&'a str),
    Retry(&'a str),
    Drop(&'a str),
}

pub fn dead_letters(place: &Place, handling: Handling<'_>, form: Form) -> Outcome {
    const PATH: &str = "/api/spanreel/dead-letters";
    let asked = match handling {
        Handling::List => place.get(PATH),
        Handling::Show(id) => place.get(&format!("{PATH}/show?id={}", url_value(id))),
        Handling::Retry(id) => place.ask(Method::POST, &format!("{PATH}/retry?id={}", url_value(id)), RETRY_WAIT_MAX),
        Handling::Drop(id) => place.ask(Method::DELETE, &format!("{PATH}?id={}", url_value(id)), ANSWER_WAIT_MAX),
    };
    match asked {
        Ok(answer) if form == Form::Json => Outcome::printed(format!("{answer:#}\n")),
        Ok(answer) => Outcome::printed(match handling {
            Handling::List => listed(&answer),
            Handling::Show(_) => format!("{}\n{:#}\n", line(&answer), answer["request"]),
            Handling::Retry(_) => format!(
                "delivered {}, rejected {}\n",
                answer["delivered"].as_u64().unwrap_or(0),
                answer["rejected"].as_u64().unwrap_or(0)
            ),
            Handling::Drop(id) => format!("dropped {id}\n"),
        }),
        Err(line) => Outcome::failed(&[line]),
    }
}

fn listed(answer: &Value) -> String {
    let mut out = String::new();
    for letter in rows(&answer["dead_letters"]) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", line(letter));
    }
    if out.is_empty() {
        out.push_str("no dead letters\n");
    }
    if answer["more"] == true {
        out.push_str("... and more: drop or retry some of these to see them\n");
    }
    out
}

fn line(letter: &Value) -> String {
    let items = letter["items"].as_u64().unwrap_or(0);
    let word = match letter["signal"].as_str() {
        Some("metrics") => "data point",
        Some("logs") => "log record",
        _ => "span",
    };
    format!("{}  {}  {}", text(&letter["id"]), counted(items, word), text(&letter["answer"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dead_letter_has_a_line_with_its_name_and_the_destinations_words() {
        let letter =
            serde_json::json!({ "id": "otlp/tempo@traces:17-0", "signal": "traces", "items": 2, "answer": "no" });
        let answer = serde_json::json!({ "dead_letters": [letter], "more": true });
        assert!(listed(&answer).starts_with("otlp/tempo@traces:17-0  2 spans  no\n..."), "{}", listed(&answer));
        assert_eq!(listed(&serde_json::json!({})), "no dead letters\n");
    }
}
