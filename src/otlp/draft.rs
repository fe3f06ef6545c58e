//! A request that is put together span by span from another format.
//!
//! In: resources, and spans with their scope, as a converter read them, text and bytes borrowed from the body.
//! Out: the bytes of an `ExportTraceServiceRequest`, spans of one resource together.
//!
//! Invariants: an attribute list holds no key twice; the request never outgrows the limit it was begun with; what a
//! converter holds of one span is counted ([`PartCount`]).

use super::wire::{field_len, put_bytes, put_double_field, put_fixed32, put_fixed64, put_header, put_uint, varint_len};
use std::borrow::Cow;
use std::collections::HashMap;
use thiserror::Error;

/// A span looks for its resource, and there for its scope, among this many of the last ones. Beyond it a resource may
/// come twice, which is legal; a search without bound would not be.
const GROUPS_LOOKED_AT: usize = 64;
/// What a resource or scope takes beside its bytes.
const GROUP_BYTES: usize = 128;
/// Up to this many attributes, comparing each with each is quicker than a map of them.
const PAIRWISE_MAX: usize = 24;

/// Tags, annotations, logs and references of one span or process, all together: an empty one takes a byte on the wire and
/// a hundred here.
pub const PARTS_MAX: usize = 64 * 1024;

/// Text of the source. Formats without JSON do not promise UTF-8, and a Collector passes on what it gets.
pub type Text<'a> = Cow<'a, [u8]>;

/// A scalar attribute value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Text(Text<'a>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Cow<'a, [u8]>),
}

/// Attributes in the order of their source. Of several with one key the last counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes<'a> {
    entries: Vec<(Text<'a>, Value<'a>)>,
}

/// The numbers of `SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanKind {
    #[default]
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// The numbers of `StatusCode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatusCode {
    #[default]
    Unset = 0,
    Ok = 1,
    Error = 2,
}

/// A span. Times are Unix nanoseconds; ids that are all zero are left to the scan to refuse.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanDraft<'a> {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_span_id: Option<[u8; 8]>,
    pub trace_state: Text<'a>,
    pub flags: u32,
    pub name: Text<'a>,
    pub kind: SpanKind,
    pub start: u64,
    pub end: u64,
    pub attributes: Attributes<'a>,
    pub events: Vec<EventDraft<'a>>,
    pub links: Vec<LinkDraft<'a>>,
    pub status: StatusCode,
    pub status_message: Text<'a>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventDraft<'a> {
    pub time: u64,
    pub name: Text<'a>,
    pub attributes: Attributes<'a>,
    pub dropped_attributes: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkDraft<'a> {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub trace_state: Text<'a>,
    pub attributes: Attributes<'a>,
    pub dropped_attributes: u32,
}

/// Instrumentation scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeDraft<'a> {
    pub name: Text<'a>,
    pub version: Text<'a>,
}

/// The parts of a span or process, counted while it is read.
#[derive(Debug, Clone, Default)]
pub struct PartCount(usize);

/// A span or process has too many parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a span or process has more than {PARTS_MAX} tags, annotations, logs and references")]
pub struct TooManyParts;

/// A resource of the request, for the spans that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceAt(usize);

/// The request would outgrow its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("as OTLP the request takes more than the {bytes_max} bytes that are held for it")]
pub struct TooLong {
    pub bytes_max: usize,
}

/// The request so far.
#[derive(Debug)]
pub struct Draft {
    bytes_max: usize,
    bytes: usize,
    resources: Vec<ResourceSpans>,
    /// Messages on their way, kept for their memory.
    resource: Vec<u8>,
    scope: Vec<u8>,
    span: Vec<u8>,
}

#[derive(Debug)]
struct ResourceSpans {
    resource: Vec<u8>,
    scopes: Vec<ScopeSpans>,
}

#[derive(Debug)]
struct ScopeSpans {
    scope: Vec<u8>,
    /// Framed as fields of `ScopeSpans`.
    spans: Vec<u8>,
}

impl PartCount {
    /// So many more were met.
    ///
    /// # Errors
    /// Now there are more than [`PARTS_MAX`].
    pub fn add(&mut self, parts: usize) -> Result<(), TooManyParts> {
        self.0 = self.0.saturating_add(parts);
        if self.0 > PARTS_MAX { Err(TooManyParts) } else { Ok(()) }
    }
}

impl<'a> Attributes<'a> {
    /// Adds one; an earlier one with this key is given up when the request is written.
    pub fn put(&mut self, key: impl Into<Text<'a>>, value: Value<'a>) {
        self.entries.push((key.into(), value));
    }

    pub fn put_text(&mut self, key: &'static str, text: impl Into<Text<'a>>) {
        self.put(key.as_bytes(), Value::Text(text.into()));
    }

    /// The value that counts for this key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entries.iter().rev().find(|(name, _)| **name == *key.as_bytes()).map(|(_, value)| value)
    }

    /// Takes the value for this key out.
    pub fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let at = self.entries.iter().rposition(|(name, _)| **name == *key.as_bytes())?;
        let (_, value) = self.entries.remove(at);
        if self.entries[..at].iter().any(|(name, _)| **name == *key.as_bytes()) {
            self.entries.retain(|(name, _)| **name != *key.as_bytes());
        }
        Some(value)
    }

    /// Takes out those whose key is one of `keys`, which are sorted.
    pub fn split_off(&mut self, keys: &[&str]) -> Self {
        let wanted = |key: &Text<'_>| keys.binary_search_by(|known| known.as_bytes().cmp(key)).is_ok();
        Self { entries: self.entries.extract_if(.., |(key, _)| wanted(key)).collect() }
    }

    /// Makes something else of every value.
    pub fn change_values(&mut self, change: impl Fn(Value<'a>) -> Value<'a>) {
        for (_, value) in &mut self.entries {
            *value = change(std::mem::replace(value, Value::Bool(false)));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Text<'a>, Value<'a>)> {
        self.entries.iter()
    }

    /// Each key once, with its last value.
    fn settle(&mut self) {
        let entries = &mut self.entries;
        if entries.len() <= PAIRWISE_MAX {
            let mut at = 0;
            while at < entries.len() {
                let (key, rest) = (&entries[at].0, &entries[at + 1..]);
                if rest.iter().any(|(other, _)| other == key) {
                    entries.remove(at);
                } else {
                    at += 1;
                }
            }
            return;
        }
        let last: HashMap<&[u8], usize> = entries.iter().enumerate().map(|(at, (key, _))| (&**key, at)).collect();
        if last.len() == entries.len() {
            return;
        }
        let mut kept: Vec<usize> = last.into_values().collect();
        kept.sort_unstable();
        let mut kept = kept.into_iter().peekable();
        let mut at = 0;
        entries.retain(|_| {
            let keep = kept.next_if_eq(&at).is_some();
            at += 1;
            keep
        });
    }

    fn write(&mut self, out: &mut Vec<u8>, number: u32) {
        self.settle();
        for (key, value) in &self.entries {
            let any_len = value.any_len();
            put_header(out, number, field_len(1, key.len()) + field_len(2, any_len));
            put_bytes(out, 1, key);
            put_header(out, 2, any_len);
            value.write(out);
        }
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (Text<'a>, Value<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a> Value<'a> {
    /// The text, if it is one; empty otherwise, as a Collector reads it.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            _ => b"",
        }
    }

    pub fn into_text(self) -> Text<'a> {
        match self {
            Self::Text(text) => text,
            _ => Cow::Borrowed(b""),
        }
    }

    /// Length of the `AnyValue`.
    fn any_len(&self) -> usize {
        match self {
            Self::Text(text) => field_len(1, text.len()),
            Self::Bool(_) => 2,
            Self::Int(value) => 1 + varint_len(*value as u64),
            Self::Double(_) => 9,
            Self::Bytes(bytes) => field_len(7, bytes.len()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => put_bytes(out, 1, text),
            Self::Bool(value) => put_uint(out, 2, u64::from(*value)),
            Self::Int(value) => put_uint(out, 3, *value as u64),
            Self::Double(value) => put_double_field(out, 4, *value),
            Self::Bytes(bytes) => put_bytes(out, 7, bytes),
        }
    }
}

impl SpanDraft<'_> {
    fn write(&mut self, out: &mut Vec<u8>) {
        put_bytes(out, 1, &self.trace_id);
        put_bytes(out, 2, &self.span_id);
        put_text(out, 3, &self.trace_state);
        if let Some(parent) = self.parent_span_id {
            put_bytes(out, 4, &parent);
        }
        put_text(out, 5, &self.name);
        put_number(out, 6, self.kind as u64);
        put_fixed64(out, 7, self.start);
        put_fixed64(out, 8, self.end);
        self.attributes.write(out, 9);
        let mut message = Vec::new();
        for event in &mut self.events {
            message.clear();
            put_fixed64(&mut message, 1, event.time);
            put_text(&mut message, 2, &event.name);
            event.attributes.write(&mut message, 3);
            put_number(&mut message, 4, u64::from(event.dropped_attributes));
            put_bytes(out, 11, &message);
        }
        for link in &mut self.links {
            message.clear();
            put_bytes(&mut message, 1, &link.trace_id);
            put_bytes(&mut message, 2, &link.span_id);
            put_text(&mut message, 3, &link.trace_state);
            link.attributes.write(&mut message, 4);
            put_number(&mut message, 5, u64::from(link.dropped_attributes));
            put_bytes(out, 13, &message);
        }
        if self.status != StatusCode::Unset || !self.status_message.is_empty() {
            message.clear();
            put_text(&mut message, 2, &self.status_message);
            put_number(&mut message, 3, self.status as u64);
            put_bytes(out, 15, &message);
        }
        if self.flags != 0 {
            put_fixed32(out, 16, self.flags);
        }
    }
}

impl Draft {
    /// An empty request that may take `bytes_max`. While it is finished, as much again is needed.
    pub fn new(bytes_max: usize) -> Self {
        let (resource, scope, span) = (Vec::new(), Vec::new(), Vec::new());
        Self { bytes_max, bytes: 0, resources: Vec::new(), resource, scope, span }
    }

    /// Adds a resource, or finds it if it is among the last ones; spans are pushed to it.
    ///
    /// # Errors
    /// With it the request would outgrow its limit.
    pub fn resource(&mut self, attributes: &mut Attributes<'_>) -> Result<ResourceAt, TooLong> {
        self.resource.clear();
        attributes.write(&mut self.resource, 1);
        let from = self.resources.len().saturating_sub(GROUPS_LOOKED_AT);
        if let Some(at) = self.resources[from..].iter().rposition(|known| known.resource == self.resource) {
            return Ok(ResourceAt(from + at));
        }
        self.grow(self.resource.len() + GROUP_BYTES)?;
        self.resources.push(ResourceSpans { resource: self.resource.clone(), scopes: Vec::new() });
        Ok(ResourceAt(self.resources.len() - 1))
    }

    /// Adds a span of a resource of this draft.
    ///
    /// # Errors
    /// With it the request would outgrow its limit.
    pub fn push(
        &mut self,
        resource: ResourceAt,
        scope: &ScopeDraft<'_>,
        span: &mut SpanDraft<'_>,
    ) -> Result<(), TooLong> {
        self.scope.clear();
        put_text(&mut self.scope, 1, &scope.name);
        put_text(&mut self.scope, 2, &scope.version);
        self.span.clear();
        span.write(&mut self.span);
        let scopes = &self.resources[resource.0].scopes;
        let from = scopes.len().saturating_sub(GROUPS_LOOKED_AT);
        let known = scopes[from..].iter().rposition(|known| known.scope == self.scope).map(|at| from + at);
        let group_bytes = if known.is_some() { 0 } else { self.scope.len() + GROUP_BYTES };
        self.grow(field_len(2, self.span.len()) + group_bytes)?;
        let scopes = &mut self.resources[resource.0].scopes;
        let at = known.unwrap_or_else(|| {
            scopes.push(ScopeSpans { scope: self.scope.clone(), spans: Vec::new() });
            scopes.len() - 1
        });
        put_bytes(&mut scopes[at].spans, 2, &self.span);
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), TooLong> {
        let grown = self.bytes.saturating_add(bytes);
        if grown > self.bytes_max {
            return Err(TooLong { bytes_max: self.bytes_max });
        }
        self.bytes = grown;
        Ok(())
    }

    /// The bytes of the `ExportTraceServiceRequest`.
    pub fn into_request(self) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.bytes);
        // A resource whose spans did not come says nothing.
        for ResourceSpans { resource, scopes } in self.resources.into_iter().filter(|it| !it.scopes.is_empty()) {
            let scope_len = |scope: &ScopeSpans| field_len(1, scope.scope.len()) + scope.spans.len();
            let scopes_len: usize = scopes.iter().map(|scope| field_len(2, scope_len(scope))).sum();
            put_header(&mut request, 1, field_len(1, resource.len()) + scopes_len);
            put_bytes(&mut request, 1, &resource);
            for scope in scopes {
                put_header(&mut request, 2, scope_len(&scope));
                put_bytes(&mut request, 1, &scope.scope);
                request.extend_from_slice(&scope.spans);
            }
        }
        request
    }
}

/// A text field, left out when empty.
fn put_text(out: &mut Vec<u8>, number: u32, text: &[u8]) {
    if !text.is_empty() {
        put_bytes(out, number, text);
    }
}

/// A number field, left out when zero.
fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_uint(out, number, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value;
    use proptest::prelude::*;
    use prost::Message;

    fn value() -> impl Strategy<Value = Value<'static>> {
        prop_oneof![
            ".{0,8}".prop_map(|text| Value::Text(text.into_bytes().into())),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("NaN is not equal to itself", |value| !value.is_nan()).prop_map(Value::Double),
            any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
        ]
    }

    fn attributes() -> impl Strategy<Value = Attributes<'static>> {
        let entry = ("[a-f]{1,2}".prop_map(|key| Text::from(key.into_bytes())), value());
        proptest::collection::vec(entry, 0..60).prop_map(|entries| Attributes { entries })
    }

    fn of_proto(value: &any_value::Value) -> Value<'static> {
        match value {
            any_value::Value::StringValue(text) => Value::Text(text.clone().into_bytes().into()),
            any_value::Value::BoolValue(value) => Value::Bool(*value),
            any_value::Value::IntValue(value) => Value::Int(*value),
            any_value::Value::DoubleValue(value) => Value::Double(*value),
            any_value::Value::BytesValue(bytes) => Value::Bytes(bytes.clone().into()),
            other => panic!("{other:?} is no scalar"),
        }
    }

    proptest! {
        #[test]
        fn what_was_put_together_is_read_back_by_another_reader(
            resources in proptest::collection::vec((attributes(), ".{0,4}", any::<(u64, u64, u32)>(), attributes()), 1..20),
        ) {
            let mut draft = Draft::new(usize::MAX);
            for (at, (resource, name, (start, end, flags), attributes)) in resources.iter().enumerate() {
                let mut span = SpanDraft {
                    trace_id: [1; 16],
                    span_id: (at as u64 + 1).to_be_bytes(),
                    name: name.clone().into_bytes().into(),
                    kind: SpanKind::Consumer,
                    start: *start,
                    end: *end,
                    flags: *flags,
                    attributes: attributes.clone(),
                    events: vec![EventDraft { time: 5, attributes: attributes.clone(), ..EventDraft::default() }],
                    links: vec![LinkDraft { attributes: attributes.clone(), dropped_attributes: 3, ..LinkDraft::default() }],
                    status: StatusCode::Error,
                    ..SpanDraft::default()
                };
                let scope = ScopeDraft { name: name.clone().into_bytes().into(), ..ScopeDraft::default() };
                let resource = draft.resource(&mut resource.clone()).unwrap();
                draft.push(resource, &scope, &mut span).unwrap();
            }
            let request = ExportTraceServiceRequest::decode(&*draft.into_request()).unwrap();
            let mut read = 0;
            for resource_spans in &request.resource_spans {
                for scope_spans in &resource_spans.scope_spans {
                    for span in &scope_spans.spans {
                        read += 1;
                        let at = u64::from_be_bytes(span.span_id.clone().try_into().unwrap()) as usize - 1;
                        let (resource, name, times, attributes) = &resources[at];
                        prop_assert_eq!(&span.name, name);
                        prop_assert_eq!(&scope_spans.scope.as_ref().unwrap().name, name);
                        prop_assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano, span.flags), *times);
                        let lists = [
                            (&resource_spans.resource.as_ref().unwrap().attributes, resource),
                            (&span.attributes, attributes),
                            (&span.events[0].attributes, attributes),
                            (&span.links[0].attributes, attributes),
                        ];
                        for (got, put) in lists {
                            let mut last = std::collections::BTreeMap::new();
                            for (key, value) in put.iter() {
                                last.insert(String::from_utf8(key.to_vec()).unwrap(), value.clone());
                            }
                            prop_assert_eq!(got.len(), last.len(), "each key once");
                            for attribute in got {
                                let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
                                prop_assert_eq!(Some(&of_proto(value)), last.get(&attribute.key));
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(read, resources.len());
        }
    }

    #[test]
    fn spans_of_one_resource_and_scope_stand_together() {
        let mut draft = Draft::new(1 << 20);
        for at in 0..9u64 {
            let mut resource = Attributes::default();
            resource.put("service.name".as_bytes(), Value::Int((at % 3) as i64));
            let mut span = SpanDraft { span_id: at.to_be_bytes(), ..SpanDraft::default() };
            let resource = draft.resource(&mut resource).unwrap();
            draft.push(resource, &ScopeDraft::default(), &mut span).unwrap();
        }
        let request = ExportTraceServiceRequest::decode(&*draft.into_request()).unwrap();
        let spans: Vec<usize> =
            request.resource_spans.iter().map(|resource| resource.scope_spans[0].spans.len()).collect();
        assert_eq!(spans, [3, 3, 3]);
    }

    #[test]
    fn a_request_that_outgrows_its_limit_is_given_up() {
        let mut draft = Draft::new(1000);
        let resource = draft.resource(&mut Attributes::default()).unwrap();
        let mut pushed = 0;
        let error = loop {
            match draft.push(resource, &ScopeDraft::default(), &mut SpanDraft::default()) {
                Ok(()) => pushed += 1,
                Err(error) => break error,
            }
            assert!(pushed < 100);
        };
        assert_eq!(error, TooLong { bytes_max: 1000 });
        assert!(pushed > 5);
    }

    #[test]
    fn a_key_that_was_taken_is_gone_with_its_earlier_values() {
        let mut attributes = Attributes::default();
        attributes.put_text("a", &b"1"[..]);
        attributes.put_text("b", &b"2"[..]);
        attributes.put_text("a", &b"3"[..]);
        assert_eq!(attributes.get("a"), Some(&Value::Text(b"3".into())));
        assert_eq!(attributes.take("a"), Some(Value::Text(b"3".into())));
        assert_eq!(attributes.take("a"), None);
        assert_eq!(attributes.iter().count(), 1);
    }
}
