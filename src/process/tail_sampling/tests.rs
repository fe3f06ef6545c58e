use super::settings::{DECLARATION, OttlCondition, PolicySettings, Rule, TailSamplingSettings};
use super::*;
use crate::config::decode_for_test;
use crate::otlp::TraceId;
use crate::process::ottl::settings::ErrorMode;
use crate::process::ottl::{Condition, Context, Prefixes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as trace, ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn sampler(rules: Vec<Rule>) -> Sampler {
    sampler_of(rules, false)
}

fn sampler_of(rules: Vec<Rule>, sample_on_first_match: bool) -> Sampler {
    let name = |number: usize| format!("policy {number}");
    let policies = rules.into_iter().enumerate().map(|(number, rule)| PolicySettings { name: name(number), rule });
    Sampler::new(&TailSamplingSettings {
        decision_wait: Duration::from_secs(30),
        num_traces: 100,
        sample_on_first_match,
        policies: policies.collect(),
    })
}

fn part(rule: Rule) -> PolicySettings {
    PolicySettings { name: "part".to_owned(), rule }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(value: &str) -> any_value::Value {
    any_value::Value::StringValue(value.to_owned())
}

/// A span of trace `trace`, from 0 for `millis`.
fn span(trace: u8, millis: u64, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![1; 8],
        start_time_unix_nano: SECOND,
        end_time_unix_nano: SECOND + millis * MS,
        attributes,
        ..Span::default()
    }
}

fn request(resource: Vec<KeyValue>, spans: Vec<Span>) -> Vec<u8> {
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Whether a trace of these spans is kept by these rules.
fn keeps(rules: Vec<Rule>, resource: Vec<KeyValue>, spans: Vec<Span>) -> bool {
    let mut sampler = sampler(rules);
    let traces = sampler.questions().look(&request(resource, spans));
    let (id, facts) = traces[0];
    sampler.decide(id, &facts, SECOND).is_kept
}

#[test]
fn latency_is_from_the_first_start_to_the_last_end() {
    let spans = || vec![span(1, 30, vec![]), Span { start_time_unix_nano: SECOND - 70 * MS, ..span(1, 0, vec![]) }];
    let latency = |threshold_ms, upper_threshold_ms| vec![Rule::Latency { threshold_ms, upper_threshold_ms }];
    assert!(keeps(latency(99, 0), vec![], spans()));
    assert!(!keeps(latency(100, 0), vec![], spans()), "more than the threshold");
    assert!(keeps(latency(99, 100), vec![], spans()));
    assert!(!keeps(latency(100, 200), vec![], spans()));
    assert!(!keeps(latency(50, 99), vec![], spans()));
}

#[test]
fn one_condition_in_ottl_on_one_span_or_event_is_enough() {
    let ottl = |span: &str, event: &str| {
        let parse = |text: &str, context| {
            let text = Some(text).filter(|text| !text.is_empty());
            text.map(|text| Condition::parse(text, context, Prefixes::Optional).unwrap().value).into_iter().collect()
        };
        vec![Rule::OttlCondition(OttlCondition {
            error_mode: ErrorMode::Silent,
            span: parse(span, Context::Span),
            span_event: parse(event, Context::SpanEvent),
        })]
    };
    let service = || vec![attribute("service.name", text("shop"))];
    let event = trace::span::Event { name: "boom".to_owned(), ..Default::default() };
    let spans = || {
        vec![span(1, 5, vec![]), Span { events: vec![event.clone()], ..span(1, 50, vec![attribute("a", text("b"))]) }]
    };
    let kept = |span: &str, event: &str| keeps(ottl(span, event), service(), spans());
    assert!(kept("attributes[\"a\"] == \"b\"", ""));
    assert!(kept(
        "end_time - start_time > Duration(\"40ms\") and resource.attributes[\"service.name\"] == \"shop\"",
        ""
    ));
    assert!(!kept("attributes[\"a\"] == \"c\"", ""));
    assert!(kept("false", "name == \"boom\""));
    assert!(!kept("", "name == \"x\""));
    assert!(!kept("attributes[\"a\"] / 0 == 1", ""));

    let (_, mut said) = decode_for_test(
        "{policies: [{name: p, type: ottl_condition, ottl_condition: {span: ['nmae == \"a\"']}}]}",
        |section| {
            (DECLARATION.decode)(section);
        },
    );
    let said = said.remove(0);
    assert!(
        said.ends_with("ottl_condition::span::0: at column 1: a span has no nmae (did you mean \"name\"?)"),
        "{said}"
    );
}

#[test]
fn conditions_in_ottl_are_asked_of_a_large_request_in_parts() {
    let condition = Condition::parse("name == \"work\"", Context::Span, Prefixes::Optional).unwrap().value;
    let settings =
        OttlCondition { error_mode: ErrorMode::Ignore, span: vec![condition].into(), span_event: vec![].into() };
    let padding = || vec![attribute("k", text("v")); 50_000];
    let named = |trace, name: &str| Span { name: name.to_owned(), ..span(trace, 1, padding()) };
    let request = request(vec![], vec![named(1, "rest"), named(2, "work"), named(3, "rest"), named(4, "work")]);
    let sampler = sampler(vec![Rule::OttlCondition(settings)]);
    let answers: Vec<u64> = sampler.questions().look(&request).iter().map(|(_, facts)| facts.answers).collect();
    assert_eq!(answers, [0, 1, 0, 1]);
}

#[test]
fn attributes_of_spans_and_of_resources_count() {
    let numeric = || vec![Rule::NumericAttribute { key: "n".to_owned(), min: 5, max: 9, invert: false }];
    let int = |value| vec![attribute("n", any_value::Value::IntValue(value))];
    assert!(keeps(numeric(), int(9), vec![span(1, 1, vec![])]));
    assert!(keeps(numeric(), vec![], vec![span(1, 1, vec![]), span(1, 1, int(5))]));
    assert!(!keeps(numeric(), int(10), vec![span(1, 1, int(4))]));
    assert!(!keeps(numeric(), vec![], vec![span(1, 1, vec![attribute("n", text("7"))])]));
    let double = || vec![span(1, 1, vec![attribute("n", any_value::Value::DoubleValue(5.5))])];
    assert!(!keeps(numeric(), vec![], double()));
    let up_to = vec![Rule::NumericAttribute { key: "n".to_owned(), min: i64::MIN, max: 5, invert: false }];
    assert!(keeps(up_to, vec![], double()), "what is no integer counts as zero");

    let boolean = |value| vec![Rule::BooleanAttribute { key: "b".to_owned(), value, invert: false }];
    let yes = || vec![span(1, 1, vec![attribute("b", any_value::Value::BoolValue(true))])];
    assert!(keeps(boolean(true), vec![], yes()));
    assert!(!keeps(boolean(false), vec![], yes()));
    assert!(keeps(boolean(false), vec![attribute("b", text("x"))], yes()), "what is no truth value counts as false");

    let string = |values: &[&str], regex, invert| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        vec![Rule::StringAttribute { key: "s".to_owned(), values, regex, invert }]
    };
    let health = || vec![span(1, 1, vec![attribute("s", text("/health/live"))])];
    assert!(!keeps(string(&["/health"], false, false), vec![], health()));
    assert!(keeps(string(&["x", "^/health"], true, false), vec![], health()));
    assert!(!keeps(string(&["^/health"], true, true), vec![], health()));
    assert!(keeps(string(&["^/other"], true, true), vec![], health()));
    // Braces that repeat nothing stand for themselves, and a digit is an ASCII one, as Go reads patterns.
    let route = |path| vec![span(1, 1, vec![attribute("s", text(path))])];
    assert!(keeps(string(&["^/users/{id}$"], true, false), vec![], route("/users/{id}")));
    assert!(!keeps(string(&[r"^/\d$"], true, false), vec![], route("/\u{664}")));
}

#[test]
fn status_flags_and_trace_state_of_any_span_count() {
    let status = |code| Some(Status { code, ..Status::default() });
    let failed = || vec![span(1, 1, vec![]), Span { status: status(2), ..span(1, 1, vec![]) }];
    assert!(keeps(vec![Rule::StatusCode { codes: vec![2] }], vec![], failed()));
    assert!(keeps(vec![Rule::StatusCode { codes: vec![0] }], vec![], failed()), "a span without status is UNSET");
    assert!(!keeps(vec![Rule::StatusCode { codes: vec![1] }], vec![], failed()));

    assert!(!keeps(vec![Rule::TraceFlags], vec![], failed()));
    assert!(keeps(vec![Rule::TraceFlags], vec![], vec![Span { flags: 0x101, ..span(1, 1, vec![]) }]));

    let state = |key: &str| Rule::TraceState { key: key.to_owned(), values: vec!["x".to_owned(), "y".to_owned()] };
    let stated = || vec![Span { trace_state: "a=z, b=y,cb=x".to_owned(), ..span(1, 1, vec![]) }];
    assert!(keeps(vec![state("b")], vec![], stated()));
    assert!(!keeps(vec![state("a")], vec![], stated()));
}

#[test]
fn span_counts_have_both_bounds() {
    let spans = || vec![span(1, 1, vec![]), span(1, 1, vec![])];
    let count = |min, max| vec![Rule::SpanCount { min, max }];
    assert!(keeps(count(2, 0), vec![], spans()) && keeps(count(1, 2), vec![], spans()));
    assert!(!keeps(count(3, 0), vec![], spans()) && !keeps(count(0, 1), vec![], spans()));
}

#[test]
fn drop_wins_and_policies_of_policies_combine() {
    let long = |threshold_ms| Rule::Latency { threshold_ms, upper_threshold_ms: 0 };
    let one = || vec![span(1, 10, vec![])];
    assert!(!keeps(vec![Rule::AlwaysSample, Rule::Drop(vec![part(long(5))])], vec![], one()));
    assert!(keeps(vec![Rule::AlwaysSample, Rule::Drop(vec![part(long(50))])], vec![], one()));
    assert!(!keeps(vec![long(50)], vec![], one()));
    let not = |rule| Rule::Not(Box::new(part(rule)));
    assert!(keeps(vec![not(long(50))], vec![], one()));
    assert!(!keeps(vec![Rule::And(vec![part(Rule::AlwaysSample), part(long(50))])], vec![], one()));
    assert!(keeps(vec![Rule::And(vec![part(not(long(50))), part(long(9))])], vec![], one()));
    assert!(!keeps(vec![Rule::AlwaysSample, Rule::Drop(vec![part(not(long(50)))])], vec![], one()));
}

#[test]
fn an_inverted_policy_is_one_among_others() {
    let long = |threshold_ms| Rule::Latency { threshold_ms, upper_threshold_ms: 0 };
    let inverted = || Rule::BooleanAttribute { key: "b".to_owned(), value: true, invert: true };
    let marked = || vec![span(1, 10, vec![attribute("b", any_value::Value::BoolValue(true))])];
    let one = || vec![span(1, 10, vec![])];
    for rules in [vec![inverted(), long(50)], vec![long(50), inverted()]] {
        assert!(keeps(rules.clone(), vec![], one()));
        assert!(!keeps(rules, vec![], marked()));
    }
    assert!(keeps(vec![Rule::AlwaysSample, inverted()], vec![], marked()), "another policy wants it");
}

#[test]
fn what_drops_is_asked_before_what_would_keep_wherever_it_stands() {
    let rate = Rule::RateLimiting { spans_per_second: 1, burst_capacity: 1 };
    let slow = part(Rule::Latency { threshold_ms: 5, upper_threshold_ms: 0 });
    let mut sampler = sampler_of(vec![rate, Rule::Drop(vec![slow])], true);
    let trace = |millis: u64| Facts { spans: 1, min_start: 1, max_end: millis * MS + 1, ..Facts::NONE };
    let mut decide = |millis| sampler.decide(TraceId([1; 16]), &trace(millis), SECOND);
    assert_eq!(decide(10), Decision { is_kept: false, policy: Some(1) });
    assert_eq!(decide(1), Decision { is_kept: true, policy: Some(0) }, "what was dropped took nothing of the rate");
}

#[test]
fn spans_pass_by_a_bucket_that_fills_with_the_time_of_arrival() {
    let mut sampler = sampler(vec![Rule::RateLimiting { spans_per_second: 5, burst_capacity: 4 }]);
    let facts = |spans| Facts { spans, ..Facts::NONE };
    let mut keeps = |spans, arrived| sampler.decide(TraceId([1; 16]), &facts(spans), arrived).is_kept;
    assert_eq!([0, 1, 2].map(|nanos| keeps(2, SECOND + nanos)), [true, true, false]);
    assert!(keeps(2, SECOND + SECOND / 2));
    assert!(!keeps(5, 100 * SECOND), "more than the burst never passes");
}

#[test]
fn fractions_of_what_a_bucket_gains_add_up() {
    let mut sampler = sampler(vec![Rule::RateLimiting { spans_per_second: 100, burst_capacity: 200 }]);
    let facts = Facts { spans: 2, ..Facts::NONE };
    // Two spans every 15 ms, for 30 s.
    let arrivals = (1..=2_000).map(|trace| trace * 15 * MS);
    let kept = arrivals.filter(|arrived| sampler.decide(TraceId([1; 16]), &facts, *arrived).is_kept).count() * 2;
    assert!((3_190..=3_202).contains(&kept), "{kept}");
}

#[test]
fn bytes_pass_by_a_bucket_that_fills() {
    let mut sampler = sampler(vec![Rule::BytesLimiting { bytes_per_second: 100, burst_capacity: 150 }]);
    let facts = |bytes| Facts { bytes, ..Facts::NONE };
    let mut keeps = |bytes, arrived| sampler.decide(TraceId([1; 16]), &facts(bytes), arrived).is_kept;
    assert!(keeps(150, SECOND));
    assert!(!keeps(1, SECOND));
    assert!(keeps(50, SECOND + SECOND / 2));
    assert!(!keeps(151, 100 * SECOND), "more than the burst never passes");
}

#[test]
fn a_composite_policy_gives_each_part_its_share() {
    let long = Rule::Latency { threshold_ms: 100, upper_threshold_ms: 0 };
    let policies = vec![(part(long), 2), (part(Rule::AlwaysSample), 1)];
    let mut sampler = sampler(vec![Rule::Composite { spans_per_second: 3, policies }]);
    let slow = Facts { spans: 1, min_start: 1, max_end: 200 * MS, ..Facts::NONE };
    let fast = Facts { max_end: 2, ..slow };
    let mut keeps = |facts: &Facts| sampler.decide(TraceId([1; 16]), facts, SECOND).is_kept;
    assert_eq!([&slow, &slow, &slow].map(&mut keeps), [true, true, false], "a used share is not filled up by others");
    assert_eq!([&fast, &fast].map(&mut keeps), [true, false]);
}

#[test]
fn probabilities_are_the_collectors() {
    // The expected numbers come from Go's math/big and hash/fnv, which the Collector uses.
    for (percentage, expected) in [
        (0.0, 0),
        (1e-15, 184),
        (0.001, 184_467_440_737_095),
        (0.1, 18_446_744_073_709_551),
        (1.0, 184_467_440_737_095_519),
        (3.7, 682_529_530_727_253_503),
        (10.0, 1_844_674_407_370_955_263),
        (33.333_333, 6_148_914_629_747_371_007),
        (50.0, 9_223_372_036_854_775_807),
        (66.6, 12_285_531_553_090_559_999),
        (99.999, 18_446_559_606_268_813_311),
        (100.0, u64::MAX),
        (250.0, u64::MAX),
    ] {
        assert_eq!(policy::threshold(percentage / 100.0), expected, "{percentage} %");
    }
    let id = TraceId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(policy::hash(b"default-hash-seed", id), 15_838_989_281_584_434_349);
    assert_eq!(policy::hash(b"salt", id), 5_761_461_898_446_907_153);
    // 85.86 % of all hashes are below the first one.
    for (percentage, is_kept) in [(85.8, false), (85.9, true)] {
        let mut sampler = sampler(vec![Rule::Probabilistic { salt: String::new(), percentage }]);
        assert_eq!(sampler.decide(id, &Facts::NONE, SECOND).is_kept, is_kept, "{percentage} %");
    }
}

proptest! {
    /// However spans are spread over requests, the facts of a trace are the same.
    #[test]
    fn facts_of_parts_join_to_those_of_the_whole(
        spans in proptest::collection::vec((0u8..4, 0u64..500, any::<bool>(), 0i32..3), 1..40),
        cut in 0usize..40,
    ) {
        let spans: Vec<Span> = spans
            .into_iter()
            .map(|(trace, millis, marked, code)| Span {
                status: Some(Status { code, ..Status::default() }),
                ..span(trace + 1, millis, vec![attribute("b", any_value::Value::BoolValue(marked))])
            })
            .collect();
        let rules = vec![
            Rule::BooleanAttribute { key: "b".to_owned(), value: true, invert: false },
            Rule::StatusCode { codes: vec![2] },
        ];
        let sampler = sampler(rules);
        let (first, second) = spans.split_at(cut.min(spans.len()));
        let whole = sampler.questions().look(&request(vec![], spans.clone()));
        let mut joined = sampler.questions().look(&request(vec![], first.to_vec()));
        for (id, facts) in sampler.questions().look(&request(vec![], second.to_vec())) {
            match joined.iter_mut().find(|(known, _)| *known == id) {
                Some((_, known)) => known.join(&facts),
                None => joined.push((id, facts)),
            }
        }
        prop_assert_eq!(whole, joined);
    }
}
