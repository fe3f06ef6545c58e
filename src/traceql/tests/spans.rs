//! Traces as plain structures, with short ways to write them down in tests.
//!
//! ```text
//! trace(7, [
//!     span(1).named("GET /").service("shop").lasting(0, 50),
//!     span(2).child_of(1).attribute("db.system", "mysql").lasting(10, 20),
//! ])
//! ```

use std::collections::BTreeMap;

use crate::otlp::{SpanId, TraceId};
use crate::traceql::value::{Kind, Status, Value};

pub type Attributes = BTreeMap<String, Value>;

/// Spans in no particular order.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub id: TraceId,
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: String,
    pub kind: Kind,
    pub status: Status,
    pub message: String,
    /// Unix nanoseconds.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    pub attributes: Attributes,
    pub events: Vec<Event>,
    pub links: Vec<Link>,
    pub resource: Attributes,
    pub scope: Instrumentation,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    pub name: String,
    /// Nanoseconds since the start of the span.
    pub since_start: i64,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub trace: TraceId,
    pub span: SpanId,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instrumentation {
    pub name: String,
    pub version: String,
    pub attributes: Attributes,
}

pub fn trace_id(id: u128) -> TraceId {
    TraceId(id.to_be_bytes())
}

pub fn span_id(id: u64) -> SpanId {
    SpanId(id.to_be_bytes())
}

pub fn trace(id: u128, spans: impl IntoIterator<Item = Span>) -> Trace {
    Trace { id: trace_id(id), spans: spans.into_iter().collect() }
}

/// A root span of no duration at time 0 that has nothing but its id.
pub fn span(id: u64) -> Span {
    Span {
        id: span_id(id),
        parent: None,
        name: String::new(),
        kind: Kind::Unspecified,
        status: Status::Unset,
        message: String::new(),
        start: 0,
        duration: 0,
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        resource: Attributes::new(),
        scope: Instrumentation::default(),
    }
}

impl Span {
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.duration)
    }

    pub fn child_of(mut self, parent: u64) -> Self {
        self.parent = Some(span_id(parent));
        self
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    pub fn message(mut self, message: &str) -> Self {
        self.message = message.into();
        self
    }

    /// Start in Unix nanoseconds and duration in nanoseconds.
    pub fn lasting(mut self, start: u64, duration: u64) -> Self {
        (self.start, self.duration) = (start, duration);
        self
    }

    /// `resource.service.name`
    pub fn service(self, name: &str) -> Self {
        self.resource("service.name", name)
    }

    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    pub fn resource(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.resource.insert(name.into(), value.into());
        self
    }

    pub fn instrumentation(mut self, name: &str, version: &str) -> Self {
        (self.scope.name, self.scope.version) = (name.into(), version.into());
        self
    }

    pub fn instrumentation_attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.scope.attributes.insert(name.into(), value.into());
        self
    }

    pub fn event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    pub fn link(mut self, link: Link) -> Self {
        self.links.push(link);
        self
    }
}

/// An event at the start of its span.
pub fn event(name: &str) -> Event {
    Event { name: name.into(), ..Event::default() }
}

impl Event {
    /// Nanoseconds since the start of the span.
    pub fn after(mut self, since_start: i64) -> Self {
        self.since_start = since_start;
        self
    }

    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }
}

pub fn link(trace: u128, span: u64) -> Link {
    Link { trace: trace_id(trace), span: span_id(span), attributes: Attributes::new() }
}

impl Link {
    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }
}

impl From<&str> for Value {
    fn from(string: &str) -> Self {
        Self::String(string.into())
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}
