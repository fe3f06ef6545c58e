//! Zipkin v1 as JSON: a list of spans, read one by one.

use super::ConvertError;
use super::json::{JsonEndpoint, JsonText, Micros, Parts, each, span_id, text, trace_id};
use super::v1::{Annotation, BinaryAnnotation, Span};
use crate::otlp::draft::{PartCount, TooLong, Value};
use serde::Deserialize;
use std::borrow::Cow;

/// Reads the spans in turn.
pub fn read<'a>(body: &'a [u8], mut take: impl FnMut(Span<'a>) -> Result<(), TooLong>) -> Result<(), ConvertError> {
    each(body, |at, span: JsonSpan<'a>| {
        let span = span.into_span().map_err(|(field, problem)| ConvertError::Field { span: at, field, problem })?;
        PartCount::default().add(span.annotations.len() + span.binary_annotations.len())?;
        take(span).map_err(ConvertError::TooLong)
    })
}

/// As it stands in the document; `null` is absence.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan<'a> {
    #[serde(borrow, default)]
    trace_id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    parent_id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    name: Option<JsonText<'a>>,
    #[serde(default)]
    timestamp: Option<Micros>,
    #[serde(default)]
    duration: Option<Micros>,
    #[serde(borrow, default)]
    annotations: Option<Parts<Option<JsonAnnotation<'a>>>>,
    #[serde(borrow, default)]
    binary_annotations: Option<Parts<Option<JsonBinaryAnnotation<'a>>>>,
}

#[derive(Deserialize)]
struct JsonAnnotation<'a> {
    #[serde(default)]
    timestamp: Option<Micros>,
    #[serde(borrow, default)]
    value: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    endpoint: Option<JsonEndpoint<'a>>,
}

#[derive(Deserialize)]
struct JsonBinaryAnnotation<'a> {
    #[serde(borrow, default)]
    key: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    value: Option<JsonValue<'a>>,
    #[serde(borrow, default)]
    endpoint: Option<JsonEndpoint<'a>>,
}

/// The format has texts, and `true` for addresses; libraries write numbers as well.
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonValue<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl<'a> JsonSpan<'a> {
    fn into_span(self) -> Result<Span<'a>, (&'static str, &'static str)> {
        let annotations = self.annotations.unwrap_or_default().0.into_iter().flatten();
        let binary_annotations = self.binary_annotations.unwrap_or_default().0.into_iter().flatten();
        Ok(Span {
            trace_id: trace_id(self.trace_id.as_ref()).map_err(|problem| ("traceId", problem))?,
            id: span_id(self.id.as_ref()).map_err(|problem| ("id", problem))?.ok_or(("id", "is missing"))?,
            parent_id: span_id(self.parent_id.as_ref()).map_err(|problem| ("parentId", problem))?,
            name: self.name.map(text).unwrap_or_default(),
            timestamp: self.timestamp.map_or(0, |micros| micros.0),
            duration: self.duration.map_or(0, |micros| micros.0),
            annotations: annotations.map(JsonAnnotation::into_annotation).collect(),
            binary_annotations: binary_annotations.map(JsonBinaryAnnotation::into_annotation).collect(),
        })
    }
}

impl<'a> JsonAnnotation<'a> {
    fn into_annotation(self) -> Annotation<'a> {
        Annotation {
            timestamp: self.timestamp.map_or(0, |micros| micros.0),
            value: self.value.map(text).unwrap_or_default(),
            endpoint: self.endpoint.map(JsonEndpoint::into_endpoint).unwrap_or_default(),
        }
    }
}

impl<'a> JsonBinaryAnnotation<'a> {
    fn into_annotation(self) -> BinaryAnnotation<'a> {
        let value = match self.value {
            Some(JsonValue::Bool(value)) => Value::Bool(value),
            Some(JsonValue::Int(value)) => Value::Int(value),
            Some(JsonValue::Double(value)) => Value::Double(value),
            Some(JsonValue::Text(value)) => Value::Text(text(JsonText(value))),
            None => Value::Text(Cow::Borrowed(b"")),
        };
        BinaryAnnotation {
            key: self.key.map(text).unwrap_or_default(),
            value,
            endpoint: self.endpoint.map(JsonEndpoint::into_endpoint).unwrap_or_default(),
        }
    }
}
