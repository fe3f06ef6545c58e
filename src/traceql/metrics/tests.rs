//! Metrics over small sets of spans, with numbers worked out by hand.

use std::time::Duration;

use super::{instant, range};
use crate::traceql::answer::{MetricsAnswer, Series};
use crate::traceql::ast::{Attribute, Field, Scope};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::error::QueryError;
use crate::traceql::read;
use crate::traceql::request::{InstantRequest, RangeRequest};
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{Trace, event, span, trace};
use crate::traceql::value::{Kind, Status, Value};

const SECOND: u64 = 1_000_000_000;

/// Intervals that end at 10, 20 and 30 s.
const REQUEST: RangeRequest =
    RangeRequest { start: 10 * SECOND, end: 30 * SECOND, step: 10 * SECOND, exemplars: 0, series_max: 0 };

fn control() -> Control {
    Control::new(Duration::from_secs(60), 64 << 20)
}

fn ask_for(memory: &Memory, text: &str, request: &RangeRequest) -> MetricsAnswer {
    range(&read(text).unwrap(), request, memory, &control(), &mut |_| {}).unwrap()
}

fn ask(memory: &Memory, text: &str) -> Vec<String> {
    shown(&ask_for(memory, text, &REQUEST).series)
}

fn ask_at_once(memory: &Memory, text: &str) -> Vec<String> {
    let request = InstantRequest { start: 0, end: 30 * SECOND, series_max: 0 };
    shown(&instant(&read(text).unwrap(), &request, memory, &control(), &mut |_| {}).unwrap().series)
}

/// `label=value label=value: second=number second=number`
fn shown(series: &[Series]) -> Vec<String> {
    let line = |series: &Series| {
        let labels: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        let samples = series.samples.iter().map(|sample| format!(" {}={}", sample.at_ms / 1000, sample.value));
        format!("{}:{}", labels.join(" "), samples.collect::<String>())
    };
    series.iter().map(line).collect()
}

fn text(value: &Option<Value>) -> String {
    value.as_ref().map_or("nil".to_owned(), |value| match value {
        Value::String(text) => text.to_string(),
        other => other.to_string(),
    })
}

/// Two shop requests at 5 and 25 s, lasting 1 and 4 s, each with a query of 250 ms, of which the second fails.
fn traces() -> Vec<Trace> {
    let request = |id| span(id).named("GET /").service("shop").kind(Kind::Server).attribute("code", 200);
    let query = |id| span(id).named("SELECT").service("db").kind(Kind::Client).attribute("size", 7.5);
    vec![
        trace(1, [request(1).lasting(5 * SECOND, SECOND), query(2).child_of(1).lasting(10 * SECOND, SECOND / 4)]),
        trace(
            2,
            [
                request(1).lasting(25 * SECOND, 4 * SECOND).attribute("code", 500),
                query(2).child_of(1).lasting(26 * SECOND, SECOND / 4).status(Status::Error),
            ],
        ),
    ]
}

fn memory() -> Memory {
    Memory::whole(&traces())
}

#[test]
fn rates_are_spans_per_second_and_zero_where_there_are_none() {
    assert_eq!(ask(&memory(), "{} | rate()"), ["__name__=rate: 10=0.2 20=0 30=0.2"]);
    assert_eq!(ask(&memory(), "{} | count_over_time()"), ["__name__=count_over_time: 10=2 20=0 30=2"]);
    assert_eq!(
        ask(&memory(), "{} | count_over_time() by (name)"),
        ["name=GET /: 10=1 20=0 30=1", "name=SELECT: 10=1 20=0 30=1"]
    );
}

#[test]
fn without_spans_the_ungrouped_count_is_zero_and_all_else_is_empty() {
    let empty = Memory::default();
    assert_eq!(ask(&empty, "{} | rate()"), ["__name__=rate: 10=0 20=0 30=0"]);
    for query in ["{} | rate() by (name)", "{} | max_over_time(duration)", "{} | quantile_over_time(duration, .5)"] {
        assert_eq!(ask(&empty, query), [""; 0], "{query}");
    }
    assert_eq!(ask(&memory(), "{ name = `none` } | rate()"), ["__name__=rate: 10=0 20=0 30=0"]);
}

#[test]
fn durations_are_in_seconds_and_intervals_without_spans_have_no_sample() {
    assert_eq!(ask(&memory(), "{} | min_over_time(duration)"), ["__name__=min_over_time: 10=0.25 30=0.25"]);
    assert_eq!(ask(&memory(), "{} | max_over_time(duration)"), ["__name__=max_over_time: 10=1 30=4"]);
    assert_eq!(ask(&memory(), "{} | sum_over_time(duration)"), ["__name__=sum_over_time: 10=1.25 30=4.25"]);
    assert_eq!(ask(&memory(), "{} | avg_over_time(duration)"), ["__name__=avg_over_time: 10=0.625 30=2.125"]);
    // Both traces last from the request's start to the end of what ends last.
    assert_eq!(
        ask(&memory(), "{ kind = server } | max_over_time(trace:duration)"),
        ["__name__=max_over_time: 10=5.25 30=4"]
    );
}

#[test]
fn attributes_are_folded_where_they_are_numbers() {
    assert_eq!(ask(&memory(), "{} | sum_over_time(span.code)"), ["__name__=sum_over_time: 10=200 30=500"]);
    assert_eq!(ask(&memory(), "{} | avg_over_time(.size)"), ["__name__=avg_over_time: 10=7.5 30=7.5"]);
    assert_eq!(ask(&memory(), "{} | max_over_time(resource.service.name)"), [""; 0]);
    assert_eq!(ask(&memory(), "{} | max_over_time(span.nothing) by (name)"), [""; 0]);
}

#[test]
fn histograms_have_powers_of_two_in_their_labels() {
    // 2^28 ns hold 250 ms, 2^30 ns 1 s, 2^32 ns 4 s.
    assert_eq!(
        ask(&memory(), "{} | histogram_over_time(duration)"),
        [
            "__bucket=0.268435456: 10=1 20=0 30=1",
            "__bucket=1.073741824: 10=1 20=0 30=0",
            "__bucket=4.294967296: 10=0 20=0 30=1"
        ]
    );
    assert_eq!(
        ask(&memory(), "{} | histogram_over_time(span.code) by (kind)"),
        ["kind=server __bucket=256.0: 10=1 20=0 30=0", "kind=server __bucket=512.0: 10=0 20=0 30=1"]
    );
    assert_eq!(ask(&memory(), "{} | histogram_over_time(span.size)"), [""; 0]);
}

#[test]
fn quantiles_are_between_the_bounds_of_their_bucket_and_zero_where_there_are_no_spans() {
    let answer = ask(&memory(), "{} | quantile_over_time(duration, 0.5, 1) by (kind)");
    assert_eq!(
        answer,
        [
            "kind=client p=0.5: 10=0.268435456 20=0 30=0.268435456",
            "kind=client p=1.0: 10=0.268435456 20=0 30=0.268435456",
            "kind=server p=0.5: 10=1.073741824 20=0 30=4.294967296",
            "kind=server p=1.0: 10=1.073741824 20=0 30=4.294967296",
        ]
    );
    // Three values in (512, 1024]: the first is a third of the way up on a logarithmic scale.
    let spans = (1..=3).map(|id| span(id).attribute("x", 1000).lasting(5 * SECOND, 0));
    let memory = Memory::whole(&[trace(1, spans)]);
    let expected = (9.0_f64 + 1.0 / 3.0).exp2();
    let series = ask_for(&memory, "{} | quantile_over_time(span.x, 0.1)", &REQUEST).series;
    assert!((series[0].samples[0].value - expected).abs() < 1e-9, "{series:?}");
}

#[test]
fn nil_is_no_label_unless_there_is_no_other() {
    assert_eq!(
        ask(&memory(), "{} | count_over_time() by (span.code, kind)"),
        [
            "kind=client: 10=1 20=0 30=1",
            "span.code=200 kind=server: 10=1 20=0 30=0",
            "span.code=500 kind=server: 10=0 20=0 30=1"
        ]
    );
    assert_eq!(ask(&memory(), "{} | rate() by (span.none, span.nor)"), ["span.none=nil: 10=0.2 20=0 30=0.2"]);
}

#[test]
fn values_of_different_types_are_different_series() {
    let with = |id, value: Value| span(id).attribute("x", value).lasting(5 * SECOND, 0);
    let spans = [with(1, 1.into()), with(2, 1.0.into()), with(3, "1".into()), with(4, true.into()), with(5, 1.into())];
    let answer = ask_for(&Memory::whole(&[trace(1, spans)]), "{} | count_over_time() by (span.x)", &REQUEST);
    let first: Vec<(Option<Value>, f64)> =
        answer.series.iter().map(|series| (series.labels[0].1.clone(), series.samples[0].value)).collect();
    assert_eq!(
        first,
        [(Some(1.into()), 2.0), (Some(1.0.into()), 1.0), (Some("1".into()), 1.0), (Some(true.into()), 1.0)]
    );
}

#[test]
fn attributes_without_scope_are_those_of_the_first_scope_that_has_them() {
    let memory = Memory::whole(&[trace(
        1,
        [
            span(1).attribute("x", "span").resource("x", "resource").lasting(5 * SECOND, 0),
            span(2).resource("x", "resource").lasting(5 * SECOND, 0),
            span(3).event(event("e").attribute("x", "first")).event(event("e").attribute("x", "second")),
            span(4).lasting(5 * SECOND, 0),
        ],
    )]);
    let request = RangeRequest { start: 5 * SECOND, end: 5 * SECOND, step: 10 * SECOND, ..REQUEST };
    assert_eq!(
        shown(&ask_for(&memory, "{} | count_over_time() by (.x)", &request).series),
        [".x=nil: 5=1", ".x=first: 5=1", ".x=resource: 5=1", ".x=span: 5=1"]
    );
}

#[test]
fn fields_of_the_trace_can_be_grouped_by() {
    // The pieces of each trace lie in two segments.
    let memory = Memory::spread(&traces(), 2, |_, span| vec![span]);
    for memory in [&memory, &self::memory(), &self::memory().split_unsure()] {
        assert_eq!(
            ask(memory, "{} | count_over_time() by (rootName, rootServiceName)"),
            ["rootName=GET / rootServiceName=shop: 10=2 20=0 30=2"]
        );
        assert_eq!(
            ask(memory, "{} | count_over_time() by (span:childCount)"),
            ["span:childCount=0: 10=1 20=0 30=1", "span:childCount=1: 10=1 20=0 30=1"]
        );
    }
    assert_eq!(
        ask(&memory, "{ kind = client } | count_over_time() by (trace:id, span:parentID)"),
        [
            "trace:id=00000000000000000000000000000001 span:parentID=0000000000000001: 10=1 20=0 30=0",
            "trace:id=00000000000000000000000000000002 span:parentID=0000000000000001: 10=0 20=0 30=1",
        ]
    );
}

#[test]
fn values_that_no_dictionary_lists_are_grouped_by_as_well() {
    let code = Field::Attribute(Attribute { scope: Some(Scope::Span), of_parent: false, name: "code".into() });
    let query = "{} | count_over_time() by (span.code)";
    assert_eq!(ask(&memory().unlisted([code]), query), ask(&memory(), query));
}

#[test]
fn filters_and_the_time_range_decide_what_counts() {
    assert_eq!(ask(&memory(), "{ status = error } | rate()"), ["__name__=rate: 10=0 20=0 30=0.1"]);
    assert_eq!(
        ask(&memory(), "{ kind = client } | { status = error } | select(name) | count_over_time()"),
        ["__name__=count_over_time: 10=0 20=0 30=1"]
    );
    let request = RangeRequest { start: 20 * SECOND, end: 20 * SECOND, step: 15 * SECOND, ..REQUEST };
    let query = read("{ duration > 100ms } | count_over_time()").unwrap();
    let answer = range(&query, &request, &memory(), &control(), &mut |_| {}).unwrap();
    assert_eq!(shown(&answer.series), ["__name__=count_over_time: 20=1"]);
}

#[test]
fn pipelines_over_whole_traces_count_the_spans_that_they_yield() {
    let pieces = Memory::spread(&traces(), 2, |_, span| vec![span]);
    for memory in [&memory(), &pieces, &memory().split_unsure()] {
        for (pipeline, expected) in [
            ("{ kind = server } > { status = error }", "10=0 20=0 30=1"),
            ("{ kind = server } &> { status = error }", "10=0 20=0 30=2"),
            ("{ duration > 3s } && { kind = client }", "10=0 20=0 30=2"),
            ("{} | sum(duration) > 2s", "10=0 20=0 30=2"),
            ("{} | by(name) | max(duration) > 500ms", "10=1 20=0 30=1"),
            ("{} | by(name) | coalesce()", "10=2 20=0 30=2"),
        ] {
            let query = format!("{pipeline} | count_over_time()");
            assert_eq!(ask(memory, &query), [format!("__name__=count_over_time: {expected}")], "{query}");
        }
    }
}

#[test]
fn spans_before_the_time_range_can_be_in_a_relation() {
    let request = RangeRequest { start: 10 * SECOND, end: 10 * SECOND, step: SECOND, ..REQUEST };
    let answer = ask_for(&memory(), "{ kind = server } >> { kind = client } | count_over_time()", &request);
    assert_eq!(shown(&answer.series), ["__name__=count_over_time: 10=1"]);
}

#[test]
fn an_instant_is_one_number_over_all_of_the_time() {
    assert_eq!(ask_at_once(&memory(), "{} | rate()"), [format!("__name__=rate: 30={}", 4.0 / 30.0)]);
    assert_eq!(ask_at_once(&memory(), "{} | max_over_time(duration)"), ["__name__=max_over_time: 30=4"]);
}

#[test]
fn series_are_computed_with() {
    let ratio = "({ status = error } | count_over_time()) / ({} | count_over_time())";
    assert_eq!(ask(&memory(), ratio), ["__name__=(count_over_time / count_over_time): 10=0 30=0.5"]);
    let share = "({ status = error } | count_over_time() by (name)) / ({} | count_over_time() by (name)) * 100";
    assert_eq!(ask(&memory(), share), ["name=SELECT: 10=0 30=100"]);
    assert_eq!(ask(&memory(), "1 - ({} | count_over_time())"), ["__name__=count_over_time: 10=-1 20=1 30=-1"]);
    assert_eq!(
        ask(&memory(), "({ kind = server } | count_over_time() by (span.code)) / ({} | count_over_time())"),
        ["span.code=200: 10=0.5 30=0", "span.code=500: 10=0 30=0.5"]
    );
}

#[test]
fn second_stages_act_one_after_the_other() {
    let longest = "{} | max_over_time(duration) by (name) | topk(1)";
    assert_eq!(ask(&memory(), longest), ["name=GET /: 10=1 30=4"]);
    assert_eq!(ask(&memory(), "{} | max_over_time(duration) by (name) | bottomk(1)"), ["name=SELECT: 10=0.25 30=0.25"]);
    assert_eq!(ask(&memory(), "{} | max_over_time(duration) by (name) > 2s"), ["name=GET /: 30=4"]);
    assert_eq!(ask(&memory(), "{} | max_over_time(duration) by (name) | topk(1) < 2s"), ["name=GET /: 10=1"]);
}

#[test]
fn comparisons_count_values_inside_and_outside_of_the_selection() {
    let answer = ask_at_once(&memory(), "{} | compare({ status = error })");
    for line in [
        "__meta_type=baseline name=GET /: 30=2",
        "__meta_type=baseline name=SELECT: 30=1",
        "__meta_type=selection name=SELECT: 30=1",
        "__meta_type=baseline span.code=200: 30=1",
        "__meta_type=baseline span.code=500: 30=1",
        "__meta_type=baseline_total span.code=nil: 30=2",
        "__meta_type=selection resource.service.name=db: 30=1",
        "__meta_type=baseline_total resource.service.name=nil: 30=3",
        "__meta_type=selection_total resource.service.name=nil: 30=1",
        "__meta_type=selection rootName=GET /: 30=1",
        "__meta_type=selection kind=client: 30=1",
    ] {
        assert!(answer.iter().any(|shown| shown == line), "{line} in {answer:#?}");
    }
    let absent = ["selection span.code", "selection_total span.code", "duration", "trace:id"];
    assert!(absent.iter().all(|part| answer.iter().all(|line| !line.contains(part))), "{answer:#?}");
}

#[test]
fn comparisons_keep_the_most_frequent_values_and_may_have_a_window() {
    let spans = (0..30).map(|id| span(id + 1).attribute("x", (id % 7) as i64).lasting((id + 1) * SECOND, 0));
    let memory = Memory::whole(&[trace(1, spans)]);
    let values = |query: &str, kind: &str| -> Vec<String> {
        let wanted = format!("__meta_type={kind} span.x");
        ask_at_once(&memory, query).into_iter().filter(|line| line.starts_with(&wanted)).collect()
    };
    // 0 and 1 occur five times, the others four times.
    assert_eq!(
        values("{} | compare({ duration = 1s }, 2)", "baseline"),
        ["__meta_type=baseline span.x=0: 30=5", "__meta_type=baseline span.x=1: 30=5"]
    );
    // Seconds 8 to 10 are 7, 8 and 9 modulo 7.
    assert_eq!(
        values("{} | compare({ span.x >= 0 }, 10, 7000000000, 10000000000)", "selection"),
        [0, 1, 2].map(|x| format!("__meta_type=selection span.x={x}: 30=1"))
    );
}

#[test]
fn of_many_values_comparisons_keep_those_that_stand_out() {
    // Every other span has one value, the others one each.
    let spans = (0..800_i64).map(|id| {
        let x = if id % 2 == 0 { -1 } else { id };
        span(id as u64 + 1).attribute("x", x).lasting(SECOND, 0)
    });
    let answer = ask_at_once(&Memory::whole(&[trace(1, spans)]), "{} | compare({ status = error })");
    let of_x: Vec<&String> = answer.iter().filter(|line| line.contains("span.x")).collect();
    assert_eq!(of_x, ["__meta_type=baseline span.x=-1: 30=400", "__meta_type=baseline_total span.x=nil: 30=800"]);
}

#[test]
fn events_have_no_part_in_comparisons() {
    let span = span(1).event(event("e").attribute("x", "a")).attribute("y", "b");
    let memory = Memory::whole(&[trace(1, [span.lasting(SECOND, 0)])]);
    let answer = ask_at_once(&memory, "{} | compare({ status = error })");
    assert!(answer.iter().any(|shown| shown == "__meta_type=baseline span.y=b: 30=1"), "{answer:#?}");
    assert!(!answer.iter().any(|shown| shown.contains("event")), "{answer:#?}");
}

#[test]
fn exemplars_name_their_trace_in_full_and_show_what_the_query_names() {
    let request = RangeRequest { exemplars: 100, ..REQUEST };
    let answer = ask_for(&memory(), "{ kind = server } | max_over_time(duration) by (span.code)", &request);
    let [first, second] = &answer.series[..] else { panic!("{answer:?}") };
    let [exemplar] = &first.exemplars[..] else { panic!("{answer:?}") };
    assert_eq!((exemplar.at_ms, exemplar.value), (5000, 1.0));
    let labels: Vec<String> = exemplar.labels.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    assert_eq!(labels, ["span.code=200", "duration=1s", "kind=server", "trace:id=00000000000000000000000000000001"]);
    assert_eq!(second.exemplars.iter().map(|exemplar| exemplar.value).collect::<Vec<_>>(), [4.0]);
}

#[test]
fn exemplars_of_counts_carry_the_number_of_their_series() {
    let request = RangeRequest { exemplars: 100, ..REQUEST };
    let values = |query: &str| -> Vec<(i64, f64)> {
        let answer = ask_for(&memory(), query, &request);
        let exemplars = answer.series.iter().flat_map(|series| &series.exemplars);
        exemplars.map(|exemplar| (exemplar.at_ms / 1000, exemplar.value)).collect()
    };
    assert_eq!(values("{ kind = server } | count_over_time()"), [(5, 1.0), (25, 1.0)]);
    assert_eq!(values("{ kind = server } | histogram_over_time(duration)"), [(5, 1.0), (25, 1.0)]);
    assert_eq!(values("{ kind = server } | quantile_over_time(duration, 0.5, 0.9)"), [(5, 1.0), (25, 4.0)]);
    assert_eq!(values("{ kind = server } | max_over_time(duration) > 2s"), [(25, 4.0)]);
    assert_eq!(values("{ kind = server } | count_over_time() with(exemplars=false)"), []);
    assert_eq!(values("{ kind = server } | count_over_time() with(exemplars=1)").len(), 1);
}

#[test]
fn series_beyond_the_limit_are_left_out_and_said_so() {
    let request = RangeRequest { series_max: 1, ..REQUEST };
    let answer = ask_for(&memory(), "{} | rate() by (name)", &request);
    assert_eq!(shown(&answer.series), ["name=GET /: 10=0.1 20=0 30=0.1"]);
    assert!(answer.partial.is_some_and(|text| text.starts_with("Response exceeds maximum series limit of 1, ")));
    assert_eq!(ask_for(&memory(), "{} | rate()", &request).partial, None);
}

#[test]
fn how_spans_are_spread_over_segments_makes_no_difference() {
    let queries = [
        "{} | rate() by (name, resource.service.name)",
        "{} | avg_over_time(duration) by (kind)",
        "{} | quantile_over_time(duration, 0.5, 0.99) by (rootName)",
        "{} | histogram_over_time(duration) | topk(2)",
        "{} | compare({ status = error })",
    ];
    for query in queries {
        let whole = ask(&memory(), query);
        assert_eq!(ask(&Memory::spread(&traces(), 2, |trace, _| vec![trace]), query), whole, "{query}");
        assert_eq!(ask(&Memory::spread(&traces(), 3, |trace, span| vec![trace + span]), query), whole, "{query}");
    }
}

#[test]
fn two_threads_count_like_one() {
    // Enough for a thread of its own in each of two segments.
    let spans = |first: u64| (first..first + 40_000).map(|id| span(id).attribute("x", (id % 3) as i64).lasting(id, id));
    let memory = Memory::parts(vec![vec![trace(1, spans(1))], vec![trace(2, spans(40_001))]]);
    let request = RangeRequest { start: 20_000, end: 80_000, step: 20_000, exemplars: 0, series_max: 0 };
    let answer = ask_for(&memory, "{} | count_over_time() by (span.x)", &request);
    let total: f64 = answer.series.iter().flat_map(|series| &series.samples).map(|sample| sample.value).sum();
    assert_eq!((answer.series.len(), total), (3, 80_000.0));
    assert_eq!((answer.inspected.spans, answer.inspected.segments, answer.inspected.segments_done), (80_000, 2, 2));
}

#[test]
fn what_retention_took_is_not_missed() {
    let memory = Memory::spread(&traces(), 2, |trace, _| vec![trace]).gone(0);
    let answer = ask_for(&memory, "{} | count_over_time()", &REQUEST);
    assert_eq!(shown(&answer.series), ["__name__=count_over_time: 10=0 20=0 30=2"]);
    assert_eq!(answer.partial, None);
}

#[test]
fn queries_end_when_their_client_leaves_or_memory_is_over() {
    let run = |query: &str, request: &RangeRequest, control: &Control| match range(
        &read(query).unwrap(),
        request,
        &memory(),
        control,
        &mut |_| {},
    ) {
        Err(QueryError::Stopped(stopped)) => stopped,
        other => panic!("{other:?}"),
    };
    let cancelled = control();
    cancelled.cancel();
    assert_eq!(run("{} | rate()", &REQUEST, &cancelled), Stopped::Cancelled);
    let small = Control::new(Duration::from_secs(60), 10_000);
    let long = RangeRequest { step: SECOND / 100, ..REQUEST };
    assert_eq!(run("{} | rate() by (name)", &long, &small), Stopped::MemoryOver(10_000));
}

#[test]
fn a_query_without_a_function_is_refused() {
    let result = range(&read("{}").unwrap(), &REQUEST, &memory(), &control(), &mut |_| {});
    assert!(matches!(result, Err(QueryError::Invalid(_))));
}
