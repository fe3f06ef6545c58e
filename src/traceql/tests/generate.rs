//! Traces and queries at random, from few names and values so that they meet.

use std::collections::BTreeSet;
use std::fmt;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::spans::{Attributes, Event, Instrumentation, Link, Span, Trace, span_id, trace_id};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::value::{Kind, Status, Value};

pub mod expression;
pub mod metrics;
pub mod pipeline;

/// Unix nanoseconds that all generated traces begin after.
pub const BEGIN: u64 = 1_700_000_000_000_000_000;

/// Starts of spans are multiples of this after [`BEGIN`], so that some are equal.
pub const TICK: u64 = 250_000_000;

/// The last start, in ticks.
pub const TICKS: u64 = 24;

/// Traces, and how they lie in segments.
#[derive(Clone)]
pub struct World {
    /// The pieces of traces in each segment, the oldest first.
    pub parts: Vec<Vec<Trace>>,
    /// Fields that no segment lists.
    pub unlisted: Vec<Field>,
    pub split_unsure: bool,
}

/// Shown as its text where a test fails.
#[derive(Clone)]
pub struct Written<T>(pub T);

impl<T: fmt::Display> fmt::Debug for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl World {
    /// Every span in one part only.
    pub fn without_repetition(mut self) -> Self {
        let mut seen = BTreeSet::new();
        for trace in self.parts.iter_mut().flatten() {
            let id = trace.id;
            trace.spans.retain(|span| seen.insert((id, span.id, span.kind)));
        }
        for part in &mut self.parts {
            part.retain(|trace| !trace.spans.is_empty());
        }
        self
    }
}

/// A line for each span, with what it has.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.parts.iter().enumerate() {
            writeln!(f, "segment {number}")?;
            for trace in part {
                writeln!(f, "  trace {}", trace.id)?;
                trace.spans.iter().try_for_each(|span| write_span(f, span))?;
            }
        }
        let unlisted: Vec<String> = self.unlisted.iter().map(ToString::to_string).collect();
        write!(f, "not listed: {}; split unsure: {}", unlisted.join(", "), self.split_unsure)
    }
}

fn write_span(f: &mut fmt::Formatter<'_>, span: &Span) -> fmt::Result {
    let parent = span.parent.map_or("no parent".into(), |parent| format!("under {parent}"));
    let ticks = (span.start - BEGIN) / TICK;
    write!(f, "    {} {parent} {:?} {} {}", span.id, span.name, span.kind, span.status)?;
    write!(f, " {:?} begins at {ticks} ticks, lasts {} ns", span.message, span.duration)?;
    let lists = [("span", &span.attributes), ("resource", &span.resource), ("instrumentation", &span.scope.attributes)];
    for (scope, attributes) in lists.into_iter().filter(|(_, attributes)| !attributes.is_empty()) {
        write!(f, " {scope} {attributes:?}")?;
    }
    if !(span.scope.name.is_empty() && span.scope.version.is_empty()) {
        write!(f, " by {:?} {:?}", span.scope.name, span.scope.version)?;
    }
    for event in &span.events {
        write!(f, " event {:?} after {} ns {:?}", event.name, event.since_start, event.attributes)?;
    }
    for link in &span.links {
        write!(f, " link to {} {} {:?}", link.trace, link.span, link.attributes)?;
    }
    writeln!(f)
}

/// Attributes are called by what they hold: `a` strings, `n` integers, `f` floats, `b` booleans, `m` anything, `l` arrays.
pub const NAMES: [&str; 6] = ["a", "n", "f", "b", "m", "l"];

pub fn strings() -> impl Strategy<Value = Value> {
    select(vec!["x", "y", "z", "xy", ""]).prop_map(Value::from)
}

pub fn ints() -> impl Strategy<Value = Value> {
    select(vec![-3_i64, 0, 1, 2, 3, 200, 500]).prop_map(Value::from)
}

pub fn floats() -> impl Strategy<Value = Value> {
    select(vec![-0.5, 0.0, 1.0, 1.5, 2.0, 200.0]).prop_map(Value::from)
}

pub fn bools() -> impl Strategy<Value = Value> {
    any::<bool>().prop_map(Value::from)
}

fn arrays() -> impl Strategy<Value = Value> {
    let array = |values: Vec<Value>| Value::Array(values.into());
    prop_oneof![
        vec(strings(), 1..4).prop_map(array),
        vec(ints(), 1..4).prop_map(array),
        vec(floats(), 1..3).prop_map(array),
        vec(bools(), 1..3).prop_map(array),
    ]
}

/// A value that an attribute of this name may have.
pub fn value_of(name: &str) -> BoxedStrategy<Value> {
    match name {
        "a" => strings().boxed(),
        "n" => ints().boxed(),
        "f" => floats().boxed(),
        "b" => bools().boxed(),
        "l" => arrays().boxed(),
        _ => prop_oneof![strings(), ints(), floats(), bools()].boxed(),
    }
}

fn attributes(names: &'static [&'static str], most: usize) -> impl Strategy<Value = Attributes> {
    let attribute = select(names).prop_flat_map(|name| value_of(name).prop_map(move |value| (name.to_string(), value)));
    vec(attribute, 0..=most).prop_map(|attributes| attributes.into_iter().collect())
}

fn resource() -> impl Strategy<Value = Attributes> {
    let service = btree_map(Just("service.name".to_string()), service(), 0..=1);
    (service, attributes(&["a", "n", "m"], 2)).prop_map(|(mut service, others)| {
        service.extend(others);
        service
    })
}

pub fn service() -> impl Strategy<Value = Value> {
    select(vec!["shop", "bank", "mail"]).prop_map(Value::from)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event =
        (select(vec!["start", "exception", ""]), select(vec![0, 1, 1_000_000]), attributes(&["a", "n", "b", "l"], 2));
    let event = event.prop_map(|(name, since_start, attributes)| Event { name: name.into(), since_start, attributes });
    prop_oneof![4 => Just(Vec::new()), 1 => vec(event, 1..4)]
}

fn links() -> impl Strategy<Value = Vec<Link>> {
    let link = (1..4_u128, 1..4_u64, attributes(&["a", "n"], 2));
    let link =
        link.prop_map(|(trace, span, attributes)| Link { trace: trace_id(trace), span: span_id(span), attributes });
    prop_oneof![6 => Just(Vec::new()), 1 => vec(link, 1..3)]
}

fn instrumentation() -> impl Strategy<Value = Instrumentation> {
    let scope = (select(vec!["", "http", "sql"]), select(vec!["", "1.0"]), attributes(&["a", "n"], 1));
    scope.prop_map(|(name, version, attributes)| Instrumentation {
        name: name.into(),
        version: version.into(),
        attributes,
    })
}

pub fn kinds() -> impl Strategy<Value = Kind> {
    select(&Kind::ALL[..])
}

pub fn statuses() -> impl Strategy<Value = Status> {
    select(&Status::ALL[..])
}

pub fn span_names() -> impl Strategy<Value = &'static str> {
    select(vec!["GET /", "query", "send", ""])
}

/// Nanoseconds.
pub fn durations() -> impl Strategy<Value = u64> {
    select(vec![0, 1, 2, 3, 1_000, 1_000_000, 5_000_000, 1_000_000_000, 3_000_000_000])
}

/// Where a span hangs: on none, on the one with this place in its trace (itself and later ones too), or on one that never
/// came.
#[derive(Debug, Clone, Copy)]
enum Place {
    Root,
    Under(usize),
    Orphan,
}

fn span() -> impl Strategy<Value = (Span, Place, bool)> {
    let names = (span_names(), kinds(), statuses(), select(vec!["", "failed"]));
    let place = prop_oneof![
        2 => Just(Place::Root),
        8 => (0..8_usize).prop_map(Place::Under),
        1 => Just(Place::Orphan),
    ];
    let tags = (attributes(&NAMES, 4), events(), links(), resource(), instrumentation());
    (names, 0..=TICKS, durations(), tags, place, prop::bool::weighted(0.2)).prop_map(
        |((name, kind, status, message), tick, duration, tags, place, shares)| {
            let (attributes, events, links, resource, scope) = tags;
            let span = Span {
                id: span_id(1),
                parent: None,
                name: name.into(),
                kind,
                status,
                message: message.into(),
                start: BEGIN + tick * TICK,
                duration,
                attributes,
                events,
                links,
                resource,
                scope,
            };
            (span, place, shares)
        },
    )
}

/// Gives a span the id of the one before it: a pair as the two halves of a call, or a third and a fourth that nobody can
/// tell from them.
fn share_id(spans: &mut [Span], span: &mut Span) {
    let Some(id) = spans.last().map(|before| before.id) else { return };
    let mut sharing: Vec<&mut Span> = spans.iter_mut().filter(|other| other.id == id).collect();
    match &mut sharing[..] {
        [before] => (before.kind, span.kind) = (Kind::Client, Kind::Server),
        [_, _] => span.kind = Kind::Producer,
        [_, _, _] => span.kind = Kind::Internal,
        _ => return,
    }
    span.id = id;
    // At one instant nothing would say which of them comes first.
    while sharing.iter().any(|other| other.start == span.start) {
        span.start += 1;
    }
}

/// A trace; some spans share the id of the one before them, as the two halves of a call do with Zipkin.
fn spans() -> impl Strategy<Value = Vec<Span>> {
    prop_oneof![3 => vec(span(), 1..4), 2 => vec(span(), 3..9)].prop_map(|drafts| {
        let mut spans: Vec<Span> = Vec::new();
        for (position, (mut span, place, shares)) in drafts.into_iter().enumerate() {
            span.id = span_id(position as u64 + 1);
            span.parent = match place {
                Place::Root => None,
                Place::Under(other) => Some(span_id(other as u64 + 1)),
                Place::Orphan => Some(span_id(99)),
            };
            if shares {
                share_id(&mut spans, &mut span);
            }
            spans.push(span);
        }
        spans
    })
}

/// In which parts each span is: one, rarely two.
fn parts(count: usize) -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![5 => (0..count).prop_map(|part| vec![part]), 1 => vec(0..count, 1..3)]
}

pub fn worlds() -> impl Strategy<Value = World> {
    let one = vec(spans(), 0..6).prop_map(|traces| {
        let place = vec![vec![vec![0]; 16]; traces.len()];
        (traces, place, 1)
    });
    let several = (vec(spans(), 0..6), 2..5_usize).prop_flat_map(|(traces, count)| {
        let place = vec(vec(parts(count), 16), traces.len());
        (Just(traces), place, Just(count))
    });
    let unlisted = vec(prop_oneof![attribute_fields(), select(&UNLISTED[..]).prop_map(Field::Intrinsic)], 0..5);
    (prop_oneof![one.boxed(), several.boxed()], unlisted, prop::bool::weighted(0.2)).prop_map(
        |((traces, place, count), unlisted, split_unsure)| {
            let mut parts = vec![Vec::new(); count];
            for (number, spans) in traces.into_iter().enumerate() {
                let id = trace_id(number as u128 + 1 + if number % 2 == 0 { 1 << 124 } else { 0 });
                for (part, pieces) in parts.iter_mut().enumerate() {
                    let here = spans.iter().zip(&place[number]).filter(|(_, places)| places.contains(&part));
                    let spans: Vec<Span> = here.map(|(span, _)| span.clone()).collect();
                    if !spans.is_empty() {
                        pieces.push(Trace { id, spans });
                    }
                }
            }
            let unlisted =
                unlisted.into_iter().filter(|field| !matches!(field, Field::Attribute(Attribute { scope: None, .. })));
            World { parts, unlisted: unlisted.collect(), split_unsure }
        },
    )
}

/// Intrinsics that a store may leave unlisted.
const UNLISTED: [Intrinsic; 6] = [
    Intrinsic::Name,
    Intrinsic::StatusMessage,
    Intrinsic::EventName,
    Intrinsic::EventTimeSinceStart,
    Intrinsic::LinkTraceId,
    Intrinsic::LinkSpanId,
];

pub fn attribute(scope: Option<Scope>, name: &str) -> Field {
    Field::Attribute(Attribute { scope, of_parent: false, name: name.into() })
}

fn scopes() -> impl Strategy<Value = Option<Scope>> {
    prop_oneof![
        4 => Just(None),
        6 => Just(Some(Scope::Span)),
        4 => Just(Some(Scope::Resource)),
        2 => Just(Some(Scope::Event)),
        1 => Just(Some(Scope::Link)),
        1 => Just(Some(Scope::Instrumentation)),
    ]
}

pub fn attribute_fields() -> impl Strategy<Value = Field> {
    prop_oneof![
        1 => Just(attribute(Some(Scope::Resource), "service.name")),
        6 => (scopes(), select(&NAMES[..])).prop_map(|(scope, name)| attribute(scope, name)),
    ]
}
