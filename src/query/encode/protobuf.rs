//! `tempopb` messages on the wire, cut into several where a client takes only so much at once.
//!
//! Every answer is a repeated field (traces, names, series) and a tail (metrics, status). Protobuf messages that are
//! joined are one message, so an answer can be cut between two elements; each part gets the tail.

use super::value::{protobuf, typed_text};
use super::{Metrics, Shown, Tags};
use crate::otlp::wire::{field_len, put_bytes, put_double_field, put_uint};
use crate::query::body::Allowance;
use crate::query::call::Origin;
use crate::query::error::QueryError;
use crate::traceql::answer::{
    Exemplar, FoundSpan, FoundSpanset, FoundTrace, Inspected, MetricsAnswer, Series, ValuesAnswer,
};
use crate::traceql::control::Booked;
use crate::traceql::value::Value;

/// `tempopb.PartialStatus.PARTIAL`.
const PARTIAL: u64 = 1;

/// Cuts a message between its elements, and writes no more than it may.
#[derive(Debug)]
pub struct Parts {
    /// Bytes of a part; `usize::MAX`: do not cut. One element may be larger.
    bytes_max: usize,
    tail: Vec<u8>,
    parts: Vec<Vec<u8>>,
    current: Vec<u8>,
    allowance: Allowance,
    /// Bytes of `parts`.
    finished: usize,
}

impl Parts {
    fn new(bytes_max: usize, tail: Vec<u8>, allowance: Allowance) -> Self {
        let bytes_max = bytes_max.saturating_sub(tail.len());
        Self { bytes_max, tail, parts: Vec::new(), current: Vec::new(), allowance, finished: 0 }
    }

    /// Whether another element is of use.
    fn push(&mut self, number: u32, element: &[u8]) -> bool {
        if self.allowance.is_refused() {
            return false;
        }
        if !self.current.is_empty() && self.current.len() + field_len(number, element.len()) > self.bytes_max {
            self.cut();
        }
        put_bytes(&mut self.current, number, element);
        self.allowance.allows(self.finished + self.current.len(), self.finished + self.current.capacity())
    }

    fn push_all<T: AsRef<[u8]>>(&mut self, number: u32, elements: impl IntoIterator<Item = T>) {
        for element in elements {
            if !self.push(number, element.as_ref()) {
                return;
            }
        }
    }

    fn cut(&mut self) {
        let mut part = std::mem::take(&mut self.current);
        part.extend_from_slice(&self.tail);
        part.shrink_to_fit();
        self.finished += part.len();
        self.parts.push(part);
    }

    /// At least one part. They stay booked until their query is settled.
    fn finish(self) -> Result<Vec<Vec<u8>>, QueryError> {
        let (parts, booked) = self.finish_booked()?;
        booked.leave();
        Ok(parts)
    }

    fn finish_booked(mut self) -> Result<(Vec<Vec<u8>>, Booked), QueryError> {
        if !self.current.is_empty() || self.parts.is_empty() {
            self.cut();
        }
        Ok((self.parts, self.allowance.finish()?))
    }
}

/// A `tempopb.SearchResponse` in parts, of traces that are already encoded.
#[derive(Debug)]
pub struct SearchParts(Parts);

impl SearchParts {
    pub fn new(inspected: &Inspected, bytes_max: usize, allowance: Allowance) -> Self {
        Self(Parts::new(bytes_max, metrics(inspected), allowance))
    }

    /// Whether another trace is of use.
    pub fn push(&mut self, trace: &[u8]) -> bool {
        self.0.push(1, trace)
    }

    /// At least one part, and what is booked for them.
    pub fn finish(self) -> Result<(Vec<Vec<u8>>, Booked), QueryError> {
        self.0.finish_booked()
    }
}

/// `tempopb.TraceSearchMetadata`. Above `bytes_max` the spans of the first set are not repeated in the deprecated
/// `spanSet`, and if need be fewer of them are shown.
pub fn trace(trace: &FoundTrace, origin: Origin, bytes_max: usize) -> Vec<u8> {
    let shown = Shown { trace, origin };
    let whole = trace_message(shown, usize::MAX, true);
    if whole.len() <= bytes_max {
        return whole;
    }
    let mut spans_max = trace.spansets.iter().map(|spanset| spanset.spans.len()).max().unwrap_or_default();
    loop {
        let less = trace_message(shown, spans_max, false);
        if less.len() <= bytes_max || spans_max == 0 {
            return less;
        }
        spans_max /= 2;
    }
}

/// `tempopb.SearchTagsResponse`.
pub fn tag_names(tags: &Tags, bytes_max: usize, allowance: Allowance) -> Result<Vec<Vec<u8>>, QueryError> {
    let mut parts = Parts::new(bytes_max, inspected_bytes(tags.inspected_bytes), allowance);
    parts.push_all(1, tags.distinct());
    parts.finish()
}

/// `tempopb.SearchTagsV2Response`. A scope with more names than fit in a part comes several times, each time with others,
/// as it does where Tempo tells what it found since.
pub fn tag_names_v2(tags: &Tags, bytes_max: usize, allowance: Allowance) -> Result<Vec<Vec<u8>>, QueryError> {
    let mut parts = Parts::new(bytes_max, inspected_bytes(tags.inspected_bytes), allowance);
    for (scope, names) in &tags.scopes {
        let mut begun = Vec::new();
        put_text(&mut begun, 1, scope);
        let mut message = begun.clone();
        for name in names {
            let len = message.len() + field_len(2, name.len());
            if message.len() > begun.len() && field_len(1, len) > parts.bytes_max {
                if !parts.push(1, &message) {
                    break;
                }
                message.clone_from(&begun);
            }
            put_bytes(&mut message, 2, name.as_bytes());
        }
        parts.push(1, &message);
    }
    parts.finish()
}

/// `tempopb.SearchTagValuesResponse`.
pub fn tag_values(answer: &ValuesAnswer, bytes_max: usize, allowance: Allowance) -> Result<Vec<Vec<u8>>, QueryError> {
    let mut parts = Parts::new(bytes_max, inspected_bytes(answer.inspected_bytes), allowance);
    parts.push_all(1, answer.values.iter().map(|value| typed_text(value).1.into_owned()));
    parts.finish()
}

/// `tempopb.SearchTagValuesV2Response`.
pub fn tag_values_v2(
    answer: &ValuesAnswer,
    bytes_max: usize,
    allowance: Allowance,
) -> Result<Vec<Vec<u8>>, QueryError> {
    let mut parts = Parts::new(bytes_max, inspected_bytes(answer.inspected_bytes), allowance);
    for value in &answer.values {
        let (kind, text) = typed_text(value);
        let mut message = Vec::new();
        put_text(&mut message, 1, kind);
        put_text(&mut message, 2, &text);
        if !parts.push(1, &message) {
            break;
        }
    }
    parts.finish()
}

/// `tempopb.QueryRangeResponse`.
pub fn range(answer: &MetricsAnswer, bytes_max: usize, allowance: Allowance) -> Result<Vec<Vec<u8>>, QueryError> {
    metrics_parts(answer, bytes_max, allowance, |out, series| {
        for sample in &series.samples {
            let mut message = Vec::new();
            put_double(&mut message, 1, sample.value);
            put_number(&mut message, 2, sample.at_ms as u64);
            put_bytes(out, 2, &message);
        }
        series.exemplars.iter().for_each(|exemplar| put_bytes(out, 4, &self::exemplar(exemplar)));
    })
}

/// `tempopb.QueryInstantResponse`.
pub fn instant(answer: &MetricsAnswer, bytes_max: usize, allowance: Allowance) -> Result<Vec<Vec<u8>>, QueryError> {
    metrics_parts(answer, bytes_max, allowance, |out, series| {
        if let Some(sample) = series.samples.first() {
            put_double(out, 2, sample.value);
        }
    })
}

fn metrics_parts(
    answer: &MetricsAnswer,
    bytes_max: usize,
    allowance: Allowance,
    put: impl Fn(&mut Vec<u8>, &Series),
) -> Result<Vec<Vec<u8>>, QueryError> {
    let mut tail = metrics(&answer.inspected);
    if let Some(message) = &answer.partial {
        put_uint(&mut tail, 3, PARTIAL);
        put_text(&mut tail, 4, message);
    }
    let mut parts = Parts::new(bytes_max, tail, allowance);
    for series in &answer.series {
        let mut message = Vec::new();
        put_attributes(&mut message, 1, &series.labels);
        put(&mut message, series);
        if !parts.push(1, &message) {
            break;
        }
    }
    parts.finish()
}

fn exemplar(exemplar: &Exemplar) -> Vec<u8> {
    let mut message = Vec::new();
    put_attributes(&mut message, 1, &exemplar.labels);
    put_double(&mut message, 2, exemplar.value);
    put_number(&mut message, 3, exemplar.at_ms as u64);
    message
}

fn trace_message(shown: Shown<'_>, spans_max: usize, with_deprecated: bool) -> Vec<u8> {
    let mut message = Vec::new();
    put_text(&mut message, 1, &shown.trace.id.to_string());
    put_text(&mut message, 2, shown.service());
    put_text(&mut message, 3, shown.name());
    put_number(&mut message, 4, shown.trace.start);
    put_number(&mut message, 5, u64::from(shown.duration_ms()));
    for (index, spanset) in shown.spansets().iter().enumerate() {
        let spanset = self::spanset(spanset, spans_max);
        if index == 0 && with_deprecated {
            put_bytes(&mut message, 6, &spanset);
        }
        put_bytes(&mut message, 7, &spanset);
    }
    for (service, stats) in &shown.trace.services {
        let mut value = Vec::new();
        put_number(&mut value, 1, u64::from(stats.spans));
        put_number(&mut value, 2, u64::from(stats.errors));
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, service.as_bytes());
        put_bytes(&mut entry, 2, &value);
        put_bytes(&mut message, 8, &entry);
    }
    message
}

fn spanset(spanset: &FoundSpanset, spans_max: usize) -> Vec<u8> {
    let mut message = Vec::new();
    spanset.spans.iter().take(spans_max).for_each(|span| put_bytes(&mut message, 1, &self::span(span)));
    put_number(&mut message, 2, u64::from(spanset.matched));
    put_attributes(&mut message, 3, &spanset.attributes);
    message
}

fn span(span: &FoundSpan) -> Vec<u8> {
    let mut message = Vec::new();
    put_text(&mut message, 1, &span.id.to_string());
    put_text(&mut message, 2, span.name.as_deref().unwrap_or_default());
    put_number(&mut message, 3, span.start);
    put_number(&mut message, 4, span.duration);
    span.attributes.iter().for_each(|(key, value)| put_bytes(&mut message, 5, &attribute(key, Some(value))));
    message
}

fn put_attributes(out: &mut Vec<u8>, number: u32, attributes: &[(String, Option<Value>)]) {
    attributes.iter().for_each(|(key, value)| put_bytes(out, number, &attribute(key, value.as_ref())));
}

fn attribute(key: &str, value: Option<&Value>) -> Vec<u8> {
    let mut message = Vec::new();
    put_text(&mut message, 1, key);
    put_bytes(&mut message, 2, &protobuf(value));
    message
}

/// Field 2 of every answer: `tempopb.SearchMetrics`.
pub fn metrics(inspected: &Inspected) -> Vec<u8> {
    let metrics = Metrics::from(inspected);
    let mut message = Vec::new();
    put_number(&mut message, 1, u64::from(metrics.traces));
    put_number(&mut message, 2, metrics.bytes);
    put_number(&mut message, 3, u64::from(metrics.blocks));
    put_number(&mut message, 4, u64::from(metrics.done));
    put_number(&mut message, 5, u64::from(metrics.blocks));
    put_number(&mut message, 7, metrics.spans);
    let mut field = Vec::new();
    put_bytes(&mut field, 2, &message);
    field
}

/// Field 2 of the tag answers: `tempopb.MetadataMetrics`.
fn inspected_bytes(bytes: u64) -> Vec<u8> {
    let mut message = Vec::new();
    put_number(&mut message, 1, bytes);
    let mut field = Vec::new();
    put_bytes(&mut field, 2, &message);
    field
}

fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_uint(out, number, value);
    }
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    if value.to_bits() != 0 {
        put_double_field(out, number, value);
    }
}
