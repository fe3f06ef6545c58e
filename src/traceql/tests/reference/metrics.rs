//! The series of a metrics query.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use super::super::spans::Span;
use super::expression::{as_float, evaluate, field_of};
use super::pipeline::{Set, SeveralSpansets, run};
use super::tree::Tree;
use crate::traceql::answer::{Sample, Series};
use crate::traceql::ast::{
    Arithmetic, Comparison, Field, FirstStage, Intrinsic, Metrics, OverTime, Pipeline, Scope, SecondStage, Spanset,
};
use crate::traceql::request::{InstantRequest, RangeRequest};
use crate::traceql::value::Value;

type Labels = Vec<(String, Option<Value>)>;

const NANOS: f64 = 1e9;

/// Intervals of equal length, `(begin + i * step, begin + (i + 1) * step]`, each with its end as its time.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    begin: u64,
    step: u64,
    count: usize,
}

/// A series with a value, or NaN for none, for each interval.
#[derive(Debug, Clone)]
struct Line {
    labels: Labels,
    values: Vec<f64>,
}

/// A span, and the interval that it starts in.
#[derive(Clone, Copy)]
struct Seen<'a> {
    tree: &'a Tree,
    span: usize,
    interval: usize,
}

impl From<&RangeRequest> for Window {
    fn from(request: &RangeRequest) -> Self {
        let count = (request.end - request.start) / request.step + 1;
        Self { begin: request.start - request.step, step: request.step, count: count as usize }
    }
}

impl From<&InstantRequest> for Window {
    fn from(request: &InstantRequest) -> Self {
        Self { begin: request.start, step: request.end - request.start, count: 1 }
    }
}

impl Window {
    fn interval(&self, start: u64) -> Option<usize> {
        (0..self.count).find(|interval| {
            let begin = self.begin + *interval as u64 * self.step;
            begin < start && start <= begin + self.step
        })
    }

    fn at_ms(&self, interval: usize) -> i64 {
        ((self.begin + (interval as u64 + 1) * self.step) / 1_000_000) as i64
    }
}

/// In no particular order, without exemplars.
pub fn series(metrics: &Metrics, window: Window, trees: &[Tree]) -> Result<Vec<Series>, SeveralSpansets> {
    let lines = lines(metrics, window, trees)?;
    let series = lines.into_iter().map(|line| Series {
        labels: line.labels,
        samples: (0..window.count)
            .filter(|interval| !line.values[*interval].is_nan())
            .map(|interval| Sample { at_ms: window.at_ms(interval), value: line.values[interval] })
            .collect(),
        exemplars: Vec::new(),
    });
    Ok(series.filter(|series| !series.samples.is_empty()).collect())
}

/// The spans that a pipeline takes, of those that start in an interval.
pub fn spans<'a>(
    pipeline: &Pipeline,
    window: Window,
    trees: &'a [Tree],
) -> Result<impl Iterator<Item = (&'a Tree, &'a Span)>, SeveralSpansets> {
    Ok(seen(pipeline, window, trees)?.into_iter().map(|seen| (seen.tree, &seen.tree.spans[seen.span])))
}

fn lines(metrics: &Metrics, window: Window, trees: &[Tree]) -> Result<Vec<Line>, SeveralSpansets> {
    Ok(match metrics {
        Metrics::Series { pipeline, first } => {
            let seen = seen(pipeline, window, trees)?;
            match first {
                FirstStage::Over { function, by } => over(function, by, window, &seen),
                FirstStage::Compare { selection, top, window: selected } => {
                    compare(selection, top.unwrap_or(10) as usize, *selected, window, &seen)
                }
            }
        }
        Metrics::Staged { of, stages } => {
            stages.iter().fold(lines(of, window, trees)?, |lines, stage| second_stage(stage, window, lines))
        }
        Metrics::Binary { op, left, right } => match (&**left, &**right) {
            (Metrics::Constant(left), right) => {
                with_constant(lines(right, window, trees)?, |value| calculate(*op, as_float(left), value))
            }
            (left, Metrics::Constant(right)) => {
                with_constant(lines(left, window, trees)?, |value| calculate(*op, value, as_float(right)))
            }
            (left, right) => join(*op, &lines(left, window, trees)?, &lines(right, window, trees)?),
        },
        Metrics::Constant(_) => panic!("a constant is no query"),
    })
}

fn seen<'a>(pipeline: &Pipeline, window: Window, trees: &'a [Tree]) -> Result<Vec<Seen<'a>>, SeveralSpansets> {
    let mut seen = Vec::new();
    for tree in trees {
        let all = Set { spans: (0..tree.spans.len()).collect(), attributes: Vec::new() };
        for set in run(pipeline, tree, vec![all])? {
            for span in set.spans {
                if let Some(interval) = window.interval(tree.spans[span].start) {
                    seen.push(Seen { tree, span, interval });
                }
            }
        }
    }
    Ok(seen)
}

impl Seen<'_> {
    fn value(&self, field: &Field) -> Option<Value> {
        field_of(field, self.tree, self.span).first()
    }

    /// Durations in seconds.
    fn number(&self, field: &Field) -> Option<f64> {
        match self.value(field)? {
            Value::Duration(duration) => Some(duration as f64 / NANOS),
            value @ (Value::Int(_) | Value::Float(_)) => Some(as_float(&value)),
            _ => None,
        }
    }

    /// The power of two that is not below the value; durations in seconds.
    fn bucket(&self, field: &Field) -> Option<f64> {
        let (value, unit) = match self.value(field)? {
            Value::Int(int) => (int, 1.0),
            Value::Duration(duration) => (duration, NANOS),
            _ => return None,
        };
        (value >= 2).then(|| (value as u64).next_power_of_two() as f64 / unit)
    }
}

fn over(function: &OverTime, by: &[Field], window: Window, seen: &[Seen<'_>]) -> Vec<Line> {
    let mut groups: BTreeMap<String, (Labels, Vec<Seen<'_>>)> = BTreeMap::new();
    for span in seen {
        let labels: Labels = by.iter().map(|field| (field.to_string(), span.value(field))).collect();
        groups.entry(format!("{labels:?}")).or_insert((labels, Vec::new())).1.push(*span);
    }
    if by.is_empty() && groups.is_empty() {
        groups.insert(String::new(), (Vec::new(), Vec::new()));
    }
    groups.into_values().flat_map(|(labels, spans)| group(function, by, labels, window, &spans)).collect()
}

fn group(function: &OverTime, by: &[Field], labels: Labels, window: Window, spans: &[Seen<'_>]) -> Vec<Line> {
    let present: Labels = labels.into_iter().filter(|(_, value)| value.is_some()).collect();
    let line = |value: &dyn Fn(&[Seen<'_>]) -> f64| {
        let labels = match by.first() {
            None => vec![("__name__".into(), Some(Value::from(name(function))))],
            Some(first) if present.is_empty() => vec![(first.to_string(), None)],
            Some(_) => present.clone(),
        };
        vec![Line { labels, values: per_interval(window, spans, value) }]
    };
    let numbers = |field: &Field, fold: &dyn Fn(Vec<f64>) -> f64| {
        line(&|spans| {
            let numbers: Vec<f64> = spans.iter().filter_map(|span| span.number(field)).collect();
            if numbers.is_empty() { f64::NAN } else { fold(numbers) }
        })
    };
    match function {
        OverTime::Count => line(&|spans| spans.len() as f64),
        OverTime::Rate => line(&|spans| spans.len() as f64 / (window.step as f64 / NANOS)),
        OverTime::Min(field) => numbers(field, &|numbers| numbers.into_iter().fold(f64::INFINITY, f64::min)),
        OverTime::Max(field) => numbers(field, &|numbers| numbers.into_iter().fold(f64::NEG_INFINITY, f64::max)),
        OverTime::Sum(field) => numbers(field, &|numbers| numbers.iter().sum()),
        OverTime::Avg(field) => numbers(field, &|numbers| numbers.iter().sum::<f64>() / numbers.len() as f64),
        OverTime::Histogram(field) => {
            let mut buckets: Vec<f64> = spans.iter().filter_map(|span| span.bucket(field)).collect();
            buckets.sort_by(f64::total_cmp);
            buckets.dedup();
            let line = |bucket: f64| {
                let label = ("__bucket".into(), Some(Value::Float(bucket)));
                let count = |spans: &[Seen<'_>]| spans.iter().filter(|span| span.bucket(field) == Some(bucket)).count();
                Line {
                    labels: present.iter().cloned().chain([label]).collect(),
                    values: per_interval(window, spans, &|spans| count(spans) as f64),
                }
            };
            buckets.into_iter().map(line).collect()
        }
        OverTime::Quantile(field, quantiles) => {
            if spans.iter().all(|span| span.bucket(field).is_none()) {
                return Vec::new();
            }
            let line = |wanted: &f64| Line {
                labels: present.iter().cloned().chain([("p".into(), Some(Value::Float(*wanted)))]).collect(),
                values: per_interval(window, spans, &|spans| {
                    quantile(*wanted, spans.iter().filter_map(|span| span.bucket(field)).collect())
                }),
            };
            quantiles.iter().map(line).collect()
        }
    }
}

fn per_interval(window: Window, spans: &[Seen<'_>], value: &dyn Fn(&[Seen<'_>]) -> f64) -> Vec<f64> {
    let of =
        |interval| value(&spans.iter().copied().filter(|span| span.interval == interval).collect::<Vec<Seen<'_>>>());
    (0..window.count).map(of).collect()
}

fn name(function: &OverTime) -> &'static str {
    match function {
        OverTime::Rate => "rate",
        OverTime::Count => "count_over_time",
        OverTime::Min(_) => "min_over_time",
        OverTime::Max(_) => "max_over_time",
        OverTime::Avg(_) => "avg_over_time",
        OverTime::Sum(_) => "sum_over_time",
        OverTime::Histogram(_) => "histogram_over_time",
        OverTime::Quantile(..) => "quantile_over_time",
    }
}

/// The least value that the wanted part of all values (one at least) does not exceed. Values are known by their buckets,
/// and taken to lie between this bucket and the one before as powers of two between the bounds.
fn quantile(wanted: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let rank = ((wanted * values.len() as f64).ceil() as usize).max(1);
    let upper = values[rank - 1];
    let below = values.iter().filter(|value| **value < upper).count();
    let inside = values.iter().filter(|value| **value == upper).count();
    let lower = if below == 0 { upper / 2.0 } else { values[below - 1] };
    let part = (rank - below) as f64 / inside as f64;
    (lower.log2() + (upper.log2() - lower.log2()) * part).exp2()
}

fn second_stage(stage: &SecondStage, window: Window, lines: Vec<Line>) -> Vec<Line> {
    match stage {
        SecondStage::Filter(op, wanted) => {
            let wanted = if let Value::Duration(nanos) = wanted { *nanos as f64 / NANOS } else { as_float(wanted) };
            with_constant(lines, |value| if holds(*op, value, wanted) { value } else { f64::NAN })
        }
        SecondStage::TopK(count) => {
            ranked(*count as usize, window, lines, |one, other, interval| rank(other, one, interval))
        }
        SecondStage::BottomK(count) => ranked(*count as usize, window, lines, rank),
    }
}

fn holds(op: Comparison, left: f64, right: f64) -> bool {
    match op {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => left < right,
        Comparison::LessOrEqual => left <= right,
        Comparison::Greater => left > right,
        Comparison::GreaterOrEqual => left >= right,
    }
}

/// Of each interval the first values in an order; of equal ones those whose labels come first in it.
fn ranked(
    count: usize,
    window: Window,
    lines: Vec<Line>,
    order: impl Fn(&Line, &Line, usize) -> Ordering,
) -> Vec<Line> {
    if lines.len() <= count {
        return lines;
    }
    let mut result = lines.clone();
    for line in &mut result {
        line.values = vec![f64::NAN; window.count];
    }
    for interval in 0..window.count {
        let mut present: Vec<usize> = (0..lines.len()).filter(|line| !lines[*line].values[interval].is_nan()).collect();
        present.sort_by(|one, other| order(&lines[*one], &lines[*other], interval));
        for line in present.into_iter().take(count) {
            result[line].values[interval] = lines[line].values[interval];
        }
    }
    result
}

/// By value, then by labels from the first on; where one series has no label any more it has an empty one.
fn rank(one: &Line, other: &Line, interval: usize) -> Ordering {
    let label = |line: &Line, place: usize| line.labels.get(place).map(Label::from).unwrap_or_default();
    let places = 0..one.labels.len().max(other.labels.len());
    let by_labels = || places.map(|place| label(one, place).cmp(&label(other, place))).find(|order| order.is_ne());
    let by_value = one.values[interval].total_cmp(&other.values[interval]);
    by_value.then_with(|| by_labels().unwrap_or(Ordering::Equal))
}

/// Texts that come first in the alphabet are the greater ones, numbers as usual: `topk` prefers `a` to `b`.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    text: Reverse<String>,
    name: Reverse<String>,
    kind: Kind,
    bits: u64,
}

#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    #[default]
    Missing,
    Int,
    Float,
    Text,
    Bool,
}

impl From<&(String, Option<Value>)> for Label {
    fn from((name, value): &(String, Option<Value>)) -> Self {
        let (kind, text, bits) = match value {
            None => (Kind::Text, "nil".into(), 0),
            Some(Value::String(string)) => (Kind::Text, string.to_string(), 0),
            Some(Value::Status(status)) => (Kind::Text, status.to_string(), 0),
            Some(Value::Kind(kind)) => (Kind::Text, kind.to_string(), 0),
            Some(Value::Int(int)) => (Kind::Int, String::new(), *int as u64),
            Some(Value::Float(float)) => (Kind::Float, String::new(), float.to_bits()),
            Some(Value::Bool(bool)) => (Kind::Bool, String::new(), u64::from(*bool)),
            Some(value) => panic!("series are not ranked by {value}"),
        };
        Self { text: Reverse(text), name: Reverse(name.clone()), kind, bits }
    }
}

fn with_constant(lines: Vec<Line>, calculate: impl Fn(f64) -> f64) -> Vec<Line> {
    let changed = lines.into_iter().map(|line| Line {
        labels: line.labels,
        values: line.values.into_iter().map(|value| if value.is_nan() { value } else { calculate(value) }).collect(),
    });
    changed.filter(|line| line.values.iter().any(|value| !value.is_nan())).collect()
}

/// NaN where there is no result.
fn calculate(op: Arithmetic, left: f64, right: f64) -> f64 {
    match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide if right == 0.0 => f64::NAN,
        Arithmetic::Divide => left / right,
        Arithmetic::Modulo | Arithmetic::Power => panic!("there is no such arithmetic between series"),
    }
}

/// Series with the same labels meet; one without labels meets all of the other side.
fn join(op: Arithmetic, left: &[Line], right: &[Line]) -> Vec<Line> {
    let own = |line: &Line| line.labels.iter().filter(|(name, _)| name != "__name__").cloned().collect::<Labels>();
    let alone = |lines: &[Line]| matches!(lines, [only] if own(only).is_empty());
    let mut joined = Vec::new();
    for left_line in left {
        for right_line in right {
            if own(left_line) != own(right_line) && !alone(left) && !alone(right) {
                continue;
            }
            let names = [left_line, right_line].map(|line| match &line.labels[..] {
                [(name, Some(Value::String(function)))] if name == "__name__" => Some(function.to_string()),
                _ => None,
            });
            let mut labels = own(left_line);
            labels.extend(
                own(right_line).into_iter().filter(|(name, _)| !own(left_line).iter().any(|(own, _)| own == name)),
            );
            if let [Some(left_name), Some(right_name)] = names {
                let sign = match op {
                    Arithmetic::Add => "+",
                    Arithmetic::Subtract => "-",
                    Arithmetic::Multiply => "*",
                    _ => "/",
                };
                labels.push(("__name__".into(), Some(Value::from(&*format!("({left_name} {sign} {right_name})")))));
            }
            let values = left_line.values.iter().zip(&right_line.values);
            joined.push(Line { labels, values: values.map(|(left, right)| calculate(op, *left, *right)).collect() });
        }
    }
    joined
}

/// Counts per value of everything that spans have, of those in the selection and of the others.
fn compare(
    selection: &Spanset,
    top: usize,
    selected: Option<(i64, i64)>,
    window: Window,
    seen: &[Seen<'_>],
) -> Vec<Line> {
    let Spanset::Spans(expression) = selection else { panic!("a selection is a filter of spans") };
    let is_selected = |span: &Seen<'_>| {
        let start = span.tree.spans[span.span].start as i64;
        selected.is_none_or(|(after, until)| after < start && start <= until)
            && expression.as_ref().is_none_or(|expression| evaluate(expression, span.tree, span.span).is_true())
    };
    let (inside, outside): (Vec<Seen<'_>>, Vec<Seen<'_>>) = seen.iter().copied().partition(is_selected);
    let mut lines = Vec::new();
    for (kind, spans) in [("baseline", outside), ("selection", inside)] {
        let mut fields: BTreeMap<String, BTreeMap<String, Line>> = BTreeMap::new();
        for span in &spans {
            for (field, value) in everything(*span) {
                let line = fields.entry(field.clone()).or_default().entry(format!("{value:?}")).or_insert(Line {
                    labels: vec![("__meta_type".into(), Some(Value::from(kind))), (field, Some(value))],
                    values: vec![0.0; window.count],
                });
                line.values[span.interval] += 1.0;
            }
        }
        for (field, values) in fields {
            let total = (0..window.count).map(|interval| values.values().map(|line| line.values[interval]).sum());
            lines.push(Line {
                labels: vec![("__meta_type".into(), Some(Value::from(&*format!("{kind}_total")))), (field, None)],
                values: total.collect(),
            });
            let mut values: Vec<Line> = values.into_values().collect();
            let total = |line: &Line| line.values.iter().sum::<f64>();
            values.sort_by(|one, other| total(other).total_cmp(&total(one)));
            lines.extend(values.into_iter().take(top));
        }
    }
    lines
}

/// Every attribute and intrinsic worth counting: none of events and links, no durations, ids, and numbers of nested sets.
fn everything(seen: Seen<'_>) -> Vec<(String, Value)> {
    let span = &seen.tree.spans[seen.span];
    let mut all = Vec::new();
    let mut attributes = |scope: Scope, name: &String, value: &Value| {
        let field = crate::traceql::ast::Attribute { scope: Some(scope), of_parent: false, name: name.clone() };
        all.push((Field::Attribute(field).to_string(), value.clone()));
    };
    span.attributes.iter().for_each(|(name, value)| attributes(Scope::Span, name, value));
    span.resource.iter().for_each(|(name, value)| attributes(Scope::Resource, name, value));
    span.scope.attributes.iter().for_each(|(name, value)| attributes(Scope::Instrumentation, name, value));
    let intrinsics = [
        Intrinsic::Name,
        Intrinsic::Status,
        Intrinsic::StatusMessage,
        Intrinsic::Kind,
        Intrinsic::RootName,
        Intrinsic::RootServiceName,
        Intrinsic::InstrumentationName,
        Intrinsic::InstrumentationVersion,
    ];
    for intrinsic in intrinsics {
        let field = Field::Intrinsic(intrinsic);
        all.extend(seen.value(&field).map(|value| (field.to_string(), value)));
    }
    all
}
