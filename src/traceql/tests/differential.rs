//! The evaluator in use against the slow one, on traces and queries at random.
//!
//! The evaluator in use reads the printed query, so that what is printed and parsed has to keep its meaning too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::generate::expression::{predicates, windows};
use super::generate::metrics::metrics;
use super::generate::pipeline::{pipelines, straight};
use super::generate::{TICK, World, Written, attribute_fields, worlds};
use super::memory::Memory;
use super::reference;
use super::reference::pipeline::SeveralSpansets;
use super::reference::tree::trees;
use crate::traceql::answer::{FoundSpanset, FoundTrace, MetricsAnswer, Series};
use crate::traceql::ast::{Expression, Field, FirstStage, Intrinsic, Metrics, OverTime, Pipeline, Query, Root};
use crate::traceql::control::Control;
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};
use crate::traceql::value::Value;
use crate::traceql::{QueryError, metrics as evaluator, read, search, tags};

/// Far more than a query here needs.
const BYTES_MAX: usize = 1 << 30;

pub fn control() -> Control {
    Control::new(Duration::from_secs(600), BYTES_MAX)
}

pub fn source(world: &World) -> Memory {
    let source = Memory::parts(world.parts.clone()).unlisted(world.unlisted.iter().cloned());
    if world.split_unsure { source.split_unsure() } else { source }
}

fn text(root: Root) -> String {
    Query { root, hints: Vec::new() }.to_string()
}

/// Values of one kind are written one way, floats so that the order of additions does not show.
fn written(value: Option<&Value>) -> String {
    match value {
        None => "nil".into(),
        Some(Value::Float(float)) => format!("Float({})", rounded(*float)),
        Some(value) => format!("{value:?}"),
    }
}

/// To 40 bits. Rounding decimal digits would tell apart neighbours of a half, of which averages of nanoseconds have many.
fn rounded(float: f64) -> String {
    const SPARE_BITS: u32 = 12;
    // Adding 0.0 makes 0.0 of -0.0.
    let bits = (float + 0.0).to_bits() + (1 << (SPARE_BITS - 1));
    format!("{:?}", f64::from_bits(bits >> SPARE_BITS << SPARE_BITS))
}

fn labels_of(labels: &[(String, Option<Value>)]) -> Vec<String> {
    let mut labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}={}", written(value.as_ref()))).collect();
    labels.sort();
    labels
}

fn by_labels(series: &[Series]) -> BTreeMap<Vec<String>, Vec<(i64, String)>> {
    let samples = |series: &Series| series.samples.iter().map(|sample| (sample.at_ms, rounded(sample.value))).collect();
    series.iter().map(|series| (labels_of(&series.labels), samples(series))).collect()
}

/// A trace of an answer as text. Spansets, and what is shown of a span, are in no particular order.
fn found(trace: &FoundTrace) -> String {
    let root = trace.root.as_ref().map(|root| format!("{:?} of {:?}", root.name, root.service));
    let mut text = format!("{} starts {} lasts {} root {root:?}", trace.id, trace.start, trace.duration);
    for (service, stats) in &trace.services {
        let _ = write!(text, " [{service:?} {} spans {} errors]", stats.spans, stats.errors);
    }
    let mut spansets: Vec<String> = trace.spansets.iter().map(spanset).collect();
    spansets.sort();
    text + &spansets.concat()
}

fn spanset(spanset: &FoundSpanset) -> String {
    let mut text = format!("\n  {} match, {}", spanset.matched, labels_of(&spanset.attributes).join(", "));
    for span in &spanset.spans {
        let mut attributes: Vec<String> =
            span.attributes.iter().map(|(name, value)| format!("{name}={}", written(Some(value)))).collect();
        attributes.sort();
        let name = span.name.as_ref().map(|name| format!("{name:?}"));
        let attributes = attributes.join(", ");
        let _ = write!(text, "\n    {} {name:?} starts {} lasts {} {attributes}", span.id, span.start, span.duration);
    }
    text
}

type Expected<T> = Result<Vec<T>, SeveralSpansets>;

/// Series are equal if labels and times are, and numbers nearly. How far a query gets that has to fail is not compared.
fn same_series(answer: Result<MetricsAnswer, QueryError>, expected: Expected<Series>) -> Result<(), String> {
    let Ok(expected) = expected else { return Ok(()) };
    let answer = answer.map_err(|error| error.to_string())?.series;
    let (found, wanted) = (by_labels(&answer), by_labels(&expected));
    if answer.len() == expected.len() && found == wanted {
        return Ok(());
    }
    let only = |one: &BTreeMap<_, _>, other: &BTreeMap<_, _>| {
        let differing = one.iter().filter(|(labels, samples)| other.get(*labels) != Some(*samples));
        differing.map(|series| format!("{series:?}\n")).collect::<String>()
    };
    Err(format!("found:\n{}expected:\n{}", only(&found, &wanted), only(&wanted, &found)))
}

fn query(root: Root) -> Result<Query, String> {
    read(&text(root)).map_err(|error| error.to_string())
}

pub fn range(source: &Memory, world: &World, metrics: &Metrics, request: &RangeRequest) -> Result<(), String> {
    let query = query(Root::Metrics(metrics.clone()))?;
    let answer = evaluator::range(&query, request, source, &control(), &mut |_| {});
    same_series(answer, reference::metrics::series(metrics, request.into(), &trees(&world.parts)))
}

pub fn instant(source: &Memory, world: &World, metrics: &Metrics, request: &InstantRequest) -> Result<(), String> {
    let query = query(Root::Metrics(metrics.clone()))?;
    let answer = evaluator::instant(&query, request, source, &control(), &mut |_| {});
    same_series(answer, reference::metrics::series(metrics, request.into(), &trees(&world.parts)))
}

pub fn searched(source: &Memory, world: &World, pipeline: &Pipeline, request: &SearchRequest) -> Result<(), String> {
    let query = query(Root::Search(pipeline.clone()))?;
    let answer = search::run(&query, request, source, &control(), &mut search::Nobody);
    let Ok(expected) = reference::search::search(pipeline, request, &trees(&world.parts)) else { return Ok(()) };
    let texts = |traces: &[FoundTrace]| traces.iter().map(found).collect::<Vec<String>>().join("\n");
    let answer = texts(&answer.map_err(|error| error.to_string())?.traces);
    let expected = texts(&expected);
    if answer == expected { Ok(()) } else { Err(format!("found:\n{answer}\nexpected:\n{expected}")) }
}

/// Without a filter segments are taken as a whole: then the window has to hold everything.
pub fn tagged(world: &World, field: &Field, filter: Option<&Expression>, window: (u64, u64)) -> Result<(), String> {
    let request = TagsRequest { start: window.0, end: window.1, count_max: 0, bytes_max: BYTES_MAX };
    let (source, trees) = (source(world), trees(&world.parts));
    let all = Expression::Literal(Value::Bool(true));
    let passing = filter.unwrap_or(&all);

    let answer = tags::values(&source, field, filter, &request, &control()).map_err(|error| error.to_string())?;
    let found: BTreeSet<String> = answer.values.iter().map(|value| format!("{value:?}")).collect();
    let expected = reference::tags::values(&trees, field, passing, window);
    if found != expected || found.len() != answer.values.len() {
        return Err(format!("values found:\n{:?}\nexpected:\n{expected:?}", answer.values));
    }

    let answer = tags::names(&source, None, filter, &request, &control()).map_err(|error| error.to_string())?;
    let of_scope = |(scope, names): &(&str, Vec<Arc<str>>)| {
        names.iter().map(|name| format!("{scope} {name}")).collect::<Vec<String>>()
    };
    let found: BTreeSet<String> = answer.scopes.iter().flat_map(of_scope).collect();
    let expected = reference::tags::names(&trees, passing, window);
    if found == expected { Ok(()) } else { Err(format!("names found:\n{found:?}\nexpected:\n{expected:?}")) }
}

/// Exemplars are spans that the query is about, each of its own trace, and no more than were asked for.
pub fn exemplified(world: &World, pipeline: &Pipeline, request: &RangeRequest) -> Result<(), String> {
    let first = FirstStage::Over { function: OverTime::Count, by: vec![Field::Intrinsic(Intrinsic::Name)] };
    let query = query(Root::Metrics(Metrics::Series { pipeline: pipeline.clone(), first }))?;
    let answer = evaluator::range(&query, request, &source(world), &control(), &mut |_| {});
    let trees = trees(&world.parts);
    let Ok(spans) = reference::metrics::spans(pipeline, request.into(), &trees) else { return Ok(()) };
    let spans: BTreeSet<(String, i64)> =
        spans.map(|(tree, span)| (tree.id.to_string(), (span.start / 1_000_000) as i64)).collect();
    let mut chosen = Vec::new();
    for exemplar in answer.map_err(|error| error.to_string())?.series.iter().flat_map(|series| &series.exemplars) {
        let trace = exemplar.labels.iter().find(|(name, _)| name == "trace:id");
        let Some((_, Some(Value::String(trace)))) = trace else { return Err(format!("no trace in {exemplar:?}")) };
        if !spans.contains(&(trace.to_string(), exemplar.at_ms)) {
            return Err(format!("{exemplar:?} is none of {spans:?}"));
        }
        chosen.push(trace.to_string());
    }
    let traces: BTreeSet<&String> = chosen.iter().collect();
    if traces.len() != chosen.len() || chosen.len() > request.exemplars || (chosen.is_empty() != spans.is_empty()) {
        return Err(format!("chosen: {chosen:?} of {spans:?}"));
    }
    Ok(())
}

/// A source whose oldest segment is gone though it is named, and what is left of the world.
pub fn bereft(mut world: World) -> (Memory, World) {
    let source = source(&world).gone(0);
    world.parts[0].clear();
    (source, world)
}

/// What a request with aligned times asks for.
pub fn aligned(start: u64, end: u64, step: u64) -> RangeRequest {
    RangeRequest { start: start - start % step, end: end - end % step + step, step, exemplars: 0, series_max: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn traces_found_are_those_of_the_reference(
        world in worlds(),
        Written(pipeline) in pipelines().prop_map(Written),
        (start, end) in windows(),
        spans_per_spanset in prop::sample::select(vec![1, 3, 100]),
    ) {
        let request = SearchRequest { start, end, limit: 1000, spans_per_spanset, overlapping: None };
        searched(&source(&world), &world, &pipeline, &request).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_limited_answer_is_the_newest_of_the_full_one(
        world in worlds(),
        Written(pipeline) in pipelines().prop_map(Written),
        (start, end) in windows(),
        limit in 1..4_usize,
    ) {
        let query = read(&text(Root::Search(pipeline))).unwrap();
        let full = SearchRequest { start, end, limit: 1000, spans_per_spanset: 3, overlapping: None };
        let run = |request| search::run(&query, &request, &source(&world), &control(), &mut search::Nobody);
        let limited = run(SearchRequest { limit, ..full });
        if let Ok(full) = run(full) {
            // As texts: no number is equal to NaN.
            let newest: Vec<String> = full.traces.iter().take(limit).map(found).collect();
            prop_assert_eq!(limited.unwrap().traces.iter().map(found).collect::<Vec<_>>(), newest);
        }
    }

    #[test]
    fn series_over_time_are_those_of_the_reference(
        world in worlds(),
        Written(metrics) in metrics().prop_map(Written),
        (start, end) in windows(),
        step in prop::sample::select(vec![TICK, 4 * TICK, 7 * TICK]),
    ) {
        let world = world.without_repetition();
        let request = aligned(start, end, step);
        range(&source(&world), &world, &metrics, &request).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn series_at_an_instant_are_those_of_the_reference(
        world in worlds(),
        Written(metrics) in metrics().prop_map(Written),
        (start, end) in windows(),
    ) {
        let request = InstantRequest { start, end, series_max: 0 };
        let world = world.without_repetition();
        instant(&source(&world), &world, &metrics, &request).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn names_and_values_are_those_of_spans_that_pass(
        world in worlds(),
        field in prop_oneof![
            attribute_fields(),
            prop::sample::select(vec![Intrinsic::Name, Intrinsic::RootServiceName, Intrinsic::EventName])
                .prop_map(Field::Intrinsic),
        ],
        filter in prop::option::of(predicates().prop_map(Written)),
        window in windows(),
    ) {
        // A filter that is true of everything is none.
        let may_take_all = filter.as_ref().is_none_or(|Written(filter)| filter.to_string().contains("true"));
        let window = if may_take_all { (0, u64::MAX) } else { window };
        tagged(&world, &field, filter.as_ref().map(|filter| &filter.0), window).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn exemplars_are_spans_that_the_query_is_about(
        world in worlds(),
        Written(pipeline) in straight().prop_map(Written),
        (start, end) in windows(),
        exemplars in 1..6_usize,
    ) {
        let request = RangeRequest { exemplars, ..aligned(start, end, 4 * TICK) };
        exemplified(&world.without_repetition(), &pipeline, &request).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_segment_that_is_gone_has_no_spans(
        world in worlds(),
        Written(pipeline) in pipelines().prop_map(Written),
        Written(metrics) in metrics().prop_map(Written),
        (start, end) in windows(),
    ) {
        let (source, world) = bereft(world.without_repetition());
        let request = SearchRequest { start, end, limit: 1000, spans_per_spanset: 3, overlapping: None };
        searched(&source, &world, &pipeline, &request).map_err(TestCaseError::fail)?;
        range(&source, &world, &metrics, &aligned(start, end, 4 * TICK)).map_err(TestCaseError::fail)?;
    }
}
