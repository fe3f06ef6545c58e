//! The slow evaluator against answers worked out by hand.

use super::super::spans::{Span, Trace, event, span, trace};
use super::metrics::series;
use super::search::search;
use super::tree::trees;
use crate::traceql::ast::Root;
use crate::traceql::read;
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest};
use crate::traceql::value::{Kind, Status, Value};

const EVERYTHING: SearchRequest =
    SearchRequest { start: 0, end: u64::MAX, limit: 100, spans_per_spanset: 100, overlapping: None };

/// A request of a shop, in which the bank is asked twice.
fn purchase() -> Trace {
    trace(
        1,
        [
            span(1).named("buy").service("shop").kind(Kind::Server).lasting(10, 100),
            span(2).child_of(1).named("pay").service("shop").kind(Kind::Client).lasting(20, 50).attribute("n", 3),
            span(3)
                .child_of(2)
                .named("debit")
                .service("bank")
                .lasting(30, 20)
                .attribute("n", 5)
                .status(Status::Error)
                .message("empty"),
            span(4).child_of(2).named("debit").service("bank").lasting(55, 10).event(event("retry").after(1)),
            span(5).child_of(9).named("lost").service("mail").lasting(60, 4),
        ],
    )
}

/// The last digits of the ids of the spans of each spanset.
fn spans(query: &str) -> Vec<Vec<u8>> {
    let Root::Search(pipeline) = read(query).unwrap().root else { panic!("{query} is no search") };
    let found = search(&pipeline, &EVERYTHING, &trees(&[vec![purchase()]])).unwrap();
    let spansets = found.iter().flat_map(|trace| &trace.spansets);
    spansets.map(|spanset| spanset.spans.iter().map(|span| span.id.0[7]).collect()).collect()
}

#[test]
fn filters_take_spans_one_by_one() {
    assert_eq!(spans("{ name = `debit` && status = error }"), [[3]]);
    assert_eq!(spans("{ span.n != 3 }"), [[3]]);
    assert_eq!(spans("{ .n > 2 && statusMessage !~ `empt.` }"), [[2]]);
    assert_eq!(spans("{ span.n = nil && nestedSetParent > 0 }"), [[4]]);
    assert_eq!(spans("{ event:name = `retry` }"), [[4]]);
    assert_eq!(spans("{ rootServiceName = `shop` && duration * 2 > 100ns }"), [[1]]);
    assert_eq!(spans("{ name =~ `deb` }"), [] as [Vec<u8>; 0]);
}

#[test]
fn relations_hold_between_spans_that_hang_on_a_root() {
    assert_eq!(spans("{ name = `pay` } > {}"), [[3, 4]]);
    assert_eq!(spans("{} < { kind = client }"), [[2]]);
    assert_eq!(spans("{ name = `buy` } >> {}"), [[2, 3, 4]]);
    assert_eq!(spans("{ status = error } ~ {}"), [[4]]);
    assert_eq!(spans("{ name = `pay` } !> {}"), [[1, 2, 5]]);
    assert_eq!(spans("{ name = `buy` } &>> { status = error }"), [[1, 3]]);
    assert_eq!(spans("{ name = `lost` } >> {}"), [] as [Vec<u8>; 0]);
}

#[test]
fn pipelines_split_filter_and_join_spansets() {
    assert_eq!(spans("{} | by(resource.service.name)"), [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(spans("{} | by(resource.service.name) | count() > 1 | coalesce()"), [[1, 2, 3, 4]]);
    assert_eq!(spans("{} | by(resource.service.name) | max(duration) < 50ns"), [vec![3, 4], vec![5]]);
    assert_eq!(spans("{} | by(resource.service.name) | avg(span.n) > 2"), [[1, 2], [3, 4]]);
    assert_eq!(spans("({} | by(name) | count() > 1) && ({ name = `pay` } | count() = 1)"), [[2, 3, 4]]);
}

#[test]
fn spansets_and_spans_are_shown_with_what_the_query_names() {
    let Root::Search(pipeline) = read("{ span.n > 1 } | count() > 1 | select(status)").unwrap().root else { panic!() };
    let found = search(&pipeline, &EVERYTHING, &trees(&[vec![purchase()]])).unwrap();
    assert_eq!((found[0].start, found[0].duration), (10, 100));
    let spanset = &found[0].spansets[0];
    assert_eq!((spanset.matched, &spanset.attributes), (2, &vec![("count()".to_string(), Some(Value::Int(2)))]));
    let shown = vec![("n".to_string(), Value::Int(5)), ("status".to_string(), Value::Status(Status::Error))];
    assert_eq!((&spanset.spans[1].name, &spanset.spans[1].attributes), (&None, &shown));
}

#[test]
fn of_several_events_that_is_shown_which_the_query_is_about() {
    let Root::Search(pipeline) = read("{ event:name = `gone` || event.n > 1 }").unwrap().root else { panic!() };
    let events = [event("here").attribute("n", 1), event("gone").attribute("n", 2), event("gone").attribute("n", 3)];
    let span = events.into_iter().fold(span(1), Span::event);
    let found = search(&pipeline, &EVERYTHING, &trees(&[vec![trace(1, [span])]])).unwrap();
    let shown = [("n".to_string(), Value::Int(2)), ("event:name".to_string(), Value::from("gone"))];
    assert_eq!(found[0].spansets[0].spans[0].attributes, shown);
}

/// The samples of each series, under the texts of its labels.
fn samples(query: &str) -> Vec<(String, Vec<f64>)> {
    let Root::Metrics(metrics) = read(query).unwrap().root else { panic!("{query} is no metrics query") };
    let request = RangeRequest { start: 20, end: 60, step: 20, exemplars: 0, series_max: 0 };
    let series = series(&metrics, (&request).into(), &trees(&[vec![purchase()]])).unwrap();
    let labels = |labels: &[(String, Option<Value>)]| {
        let texts = labels.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => format!("{name}=nil"),
        });
        texts.collect::<Vec<String>>().join(",")
    };
    let samples = series
        .iter()
        .map(|series| (labels(&series.labels), series.samples.iter().map(|sample| sample.value).collect()));
    samples.collect()
}

#[test]
fn spans_count_in_the_interval_that_ends_after_they_start() {
    // Starts: 10, 20 | 30 | 55, 60.
    assert_eq!(samples("{} | count_over_time()"), [("__name__=`count_over_time`".into(), vec![2.0, 1.0, 2.0])]);
    assert_eq!(samples("{ name = `debit` } | rate()"), [("__name__=`rate`".into(), vec![0.0, 5e7, 5e7])]);
    assert_eq!(samples("{} | sum_over_time(span.n)"), [("__name__=`sum_over_time`".into(), vec![3.0, 5.0])]);
}

#[test]
fn groups_leave_out_labels_without_value() {
    let all = [
        ("span.n=nil".into(), vec![1.0, 0.0, 2.0]),
        ("span.n=3".into(), vec![1.0, 0.0, 0.0]),
        ("span.n=5".into(), vec![0.0, 1.0, 0.0]),
    ];
    let mut found = samples("{} | count_over_time() by(span.n)");
    found.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then(one.0.cmp(&other.0)));
    assert_eq!(found, all);
    assert_eq!(samples("{} | count_over_time() by(span.n) | topk(1) > 1"), [("span.n=nil".into(), vec![2.0])]);
}

#[test]
fn quantiles_lie_between_powers_of_two() {
    // Durations 100 and 50 ns in the first interval: buckets up to 64 and 128 ns, with one span each.
    let found = samples("{} | quantile_over_time(duration, 0.5, 1.0)");
    assert_eq!(found[0].0, "p=0.5");
    assert!((found[0].1[0] - 64e-9).abs() < 1e-15 && (found[1].1[0] - 128e-9).abs() < 1e-15, "{found:?}");
    let buckets = samples("{} | histogram_over_time(duration)");
    assert_eq!(buckets.iter().map(|(_, counts)| counts[0]).collect::<Vec<f64>>(), [0.0, 0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn series_with_the_same_labels_meet() {
    let errors = samples("({ status = error } | count_over_time() by(name)) / ({} | count_over_time() by(name))");
    assert_eq!(errors, [("name=`debit`".into(), vec![1.0, 0.0])]);
    let shares = samples("({} | count_over_time()) * 10 - ({ name = `buy` } | count_over_time())");
    assert_eq!(shares, [("__name__=`(count_over_time - count_over_time)`".into(), vec![19.0, 10.0, 20.0])]);
}

#[test]
fn an_instant_is_one_interval() {
    let Root::Metrics(metrics) = read("{} | count_over_time()").unwrap().root else { panic!() };
    let request = InstantRequest { start: 10, end: 55, series_max: 0 };
    let series = series(&metrics, (&request).into(), &trees(&[vec![purchase()]])).unwrap();
    assert_eq!(series[0].samples[0].value, 3.0);
}
