use super::*;
use crate::config::duration;
use crate::config::yaml;
use std::sync::Arc;
use std::time::Duration;

/// Reads `text` as a section at `path`; what was read and what was said.
pub(super) fn decode<T>(text: &str, path: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Vec<String>) {
    let (value, _, said) = at(text, path, read);
    (value, said)
}

/// Reads `text` by `read`; what it returned and what was said.
fn with<T>(text: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Effective, Vec<String>) {
    at(text, "a", read)
}

fn at<T>(text: &str, path: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Effective, Vec<String>) {
    let report = Report::default();
    let root = yaml::parse(&Arc::from("t"), text).unwrap();
    let mut section = Section::over(&report, Some(&root), root.position.clone(), path.to_owned());
    let value = read(&mut section);
    let effective = section.finish().0;
    let said = match report.into_result() {
        Ok(notes) => notes.iter().map(Diagnostic::to_string).collect(),
        Err(diagnostics) => diagnostics.lines(),
    };
    (value, effective, said)
}

#[test]
fn defaults_hold_where_nothing_is_written() {
    let (value, effective, said) = with("n:\n", |s| (s.u32("n", 7), s.bool("b", true), s.text("t", "x")));
    assert_eq!((value, said), ((7, true, "x".to_owned()), vec![]));
    assert!(matches!(effective, Effective::Map(entries) if entries.len() == 3));
}

#[test]
fn types_are_strict() {
    let said = |text: &str| with(text, |s| (s.u32("n", 7), s.text("t", ""), s.bool("b", false), s.list("l"))).2;
    assert_eq!(
        said("n: \"10\""),
        ["t:1:4: a::n: expected a whole number, got the text \"10\" (write it without quotes)"]
    );
    assert_eq!(said("n: -1"), ["t:1:4: a::n: must not be below 0, is -1"]);
    assert_eq!(said("n: 4294967296"), ["t:1:4: a::n: must not be above 4294967295, is 4294967296"]);
    assert_eq!(said("t: 5"), ["t:1:4: a::t: expected text, got the number \"5\" (put it in quotes)"]);
    assert_eq!(said("b: yes"), ["t:1:4: a::b: expected true or false, got the text \"yes\""]);
    assert_eq!(said("l: {}"), ["t:1:4: a::l: expected a list of texts, got a map"]);
    assert_eq!(said("l: [1]"), ["t:1:5: a::l: expected text in this list, got the number \"1\" (put it in quotes)"]);
}

#[test]
fn lists_split_at_commas() {
    assert_eq!(with("l: a, b", |s| s.list("l")).0, ["a", "b"]);
    assert_eq!(with("l: [a]", |s| s.list("l")).0, ["a"]);
    assert!(with("l: ''", |s| s.list("l")).0.is_empty());
}

#[test]
fn bare_numbers_are_nanoseconds_and_earn_a_warning() {
    let (value, _, said) = with("d: 5", |s| s.duration("d", Duration::from_secs(1)));
    assert_eq!(value, Duration::from_nanos(5));
    assert_eq!(said, ["t:1:1: a::d: 5 without a unit means nanoseconds, as in the Collector: 5ns (did you mean 5s?)"]);
    assert!(with("d: 0", |s| s.duration("d", Duration::from_secs(1))).2.is_empty());
    let said = |text: &str| with(text, |s| s.duration("d", Duration::ZERO)).2;
    assert_eq!(
        said("d: 5d"),
        [
            "t:1:4: a::d: \"5d\" uses the unit \"d\", which durations do not have (units: ns, us, ms, s, m, h; a day is 24h)"
        ]
    );
    assert_eq!(said("d: -5s"), ["t:1:4: a::d: \"-5s\" is a negative duration"]);
}

#[test]
fn optional_sections() {
    let read = |text: &str, when| with(text, |s| s.optional("o", when, |o| o.u32("n", 1)));
    assert_eq!(read("{}", WhenNull::On).0, None);
    assert_eq!(read("o:", WhenNull::On).0, Some(1));
    assert_eq!(read("o: {}", WhenNull::Absent).0, Some(1));
    assert_eq!(read("o:", WhenNull::Absent).0, None);
    assert_eq!(read("o: {enabled: false, n: 5}", WhenNull::On).0, None);
    assert_eq!(read("o: {enabled: true, n: 5}", WhenNull::On).0, Some(5));
    assert_eq!(read("o: 5", WhenNull::On).2, ["t:1:4: a::o: expected a map of settings, got the number \"5\""]);
}

#[test]
fn unknown_keys_name_the_nearest_also_one_level_below() {
    let read = |text: &str| {
        with(text, |s| {
            s.text("endpoint", "");
            s.section("tls", |tls| tls.bool("insecure", false))
        })
        .2
    };
    assert_eq!(read("endpont: x"), ["t:1:1: a::endpont: unknown key (did you mean \"endpoint\"?)"]);
    assert_eq!(
        read("insecure: true"),
        ["t:1:1: a::insecure: unknown key (did you mean tls::insecure? It is indented too little here)"]
    );
    assert_eq!(read("banana: 1"), ["t:1:1: a::banana: unknown key (known keys: endpoint, tls)"]);
}

#[test]
fn inert_and_unsupported_keys_are_never_silent() {
    let read = |text: &str| {
        with(text, |s| {
            s.inert("queue_size", Shape::Int, "the spool is the queue");
            s.unsupported("cors", "browsers cannot send here yet", "use a proxy");
            s.only("transport", &["tcp"], "only tcp", "");
        })
        .2
    };
    assert_eq!(read("queue_size: 5"), ["t:1:1: a::queue_size: accepted, without effect: the spool is the queue"]);
    assert_eq!(read("queue_size: x"), ["t:1:13: a::queue_size: expected a whole number, got the text \"x\""]);
    assert_eq!(read("cors: {}"), ["t:1:1: a::cors: not supported: browsers cannot send here yet (use a proxy)"]);
    assert_eq!(read("transport: unix"), ["t:1:12: a::transport: not supported: only tcp"]);
    assert!(read("transport: tcp").is_empty());
}

#[test]
fn endpoints() {
    let said = |text: &str| with(text, |s| s.endpoint("e", "localhost:4317")).2.join("\n");
    for good in ["e: 0.0.0.0:4317", "e: ':4317'", "e: '[::1]:4317'", "{}", "e: localhost:0"] {
        assert_eq!(said(good), "");
    }
    assert!(said("e: http://0.0.0.0:4318/x").contains("is a URL; a listener takes host:port (write 0.0.0.0:4318)"));
    assert!(said("e: 0.0.0.0").contains("has no port"));
    assert!(said("e: ''").contains("must not be empty"));
    assert!(said("e: localhost:99999").contains("no port number"));
    assert!(said("e: '::1:4317'").contains("write [::1]:4317"));
}

#[test]
fn secrets_are_not_repeated_in_errors() {
    let said = with("h: {authorization: 12345}", |s| s.pairs("h", Secrecy::Secret)).2;
    assert_eq!(said, ["t:1:20: a::h::authorization: expected text, got a number (put it in quotes)"]);
    assert_eq!(duration::format(Duration::from_secs(90)), "1m30s");
}

#[test]
fn urls_are_shown_unless_they_hold_what_nobody_may_see() {
    for (url, is_shown) in [
        ("https://tempo:4318/v1/traces", true),
        ("https://me:secret@tempo:4318", false),
        ("https://tempo:4318/v1/traces?api_key=secret", false),
    ] {
        let effective = with(&format!("u: {url}"), |s| s.optional_text("u", Secrecy::Url)).1;
        let url = url.to_owned();
        let value = if is_shown { Effective::Text(url) } else { Effective::Secret(url) };
        assert_eq!(effective, Effective::Map(vec![("u".to_owned(), value)]));
    }
}

#[test]
fn plain_values_keep_their_types() {
    let (value, effective, said) = with("v: {a: [1, 1.5, true], b: \"1\", c: }", |s| s.plain("v"));
    let list = Plain::List(vec![Plain::Int(1), Plain::Float(1.5), Plain::Bool(true)]);
    let entries = [("a", list), ("b", Plain::Text("1".to_owned())), ("c", Plain::Null)];
    assert_eq!(value, Some(Plain::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())));
    assert!(matches!(effective, Effective::Map(entries) if entries.len() == 1));
    assert!(said.is_empty());
    assert_eq!(with("v:", |s| s.plain("v")).0, None);
    assert_eq!(
        with("v: 99999999999999999999", |s| s.plain("v")).2,
        ["t:1:4: a::v: holds a number of more than 64 bits (put it in quotes)"]
    );
}
