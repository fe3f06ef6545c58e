//! What the processors' tests share: settings from YAML, requests, and what an editor makes of them.

use super::{Client, Editor};
use crate::config::{Section, decode_for_test};
use crate::otlp::edit::Traces;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use std::net::{IpAddr, Ipv4Addr};

/// Settings that must decode without a complaint.
pub fn decoded_settings<T>(text: &str, decode: impl FnOnce(&mut Section<'_>) -> T) -> T {
    let (settings, said) = decode_for_test(text, decode);
    assert_eq!(said, Vec::<String>::new(), "{text}");
    settings
}

/// Everything that is said about settings, each with its path and without its place.
pub fn errors_of(text: &str, decode: impl FnOnce(&mut Section<'_>)) -> Vec<String> {
    let path = |line: &String| line.splitn(4, ':').nth(3).unwrap_or_default().trim_start().to_owned();
    decode_for_test(text, decode).1.iter().map(path).collect()
}

pub fn attribute(key: &str, value: impl Into<Plain>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value.into().0) }), ..Default::default() }
}

/// A text or a number.
pub struct Plain(Any);

impl From<&str> for Plain {
    fn from(text: &str) -> Self {
        Self(Any::StringValue(text.to_owned()))
    }
}

impl From<i64> for Plain {
    fn from(number: i64) -> Self {
        Self(Any::IntValue(number))
    }
}

pub fn request(resource_spans: Vec<ResourceSpans>) -> Vec<u8> {
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The request as an editor leaves it.
pub fn edited(editor: &dyn Editor, request: &[u8], client: &Client) -> ExportTraceServiceRequest {
    let mut traces = Traces::parse(request);
    editor.edit(&mut traces, client).unwrap();
    ExportTraceServiceRequest::decode(traces.encode().as_slice()).unwrap()
}

/// The spans as an editor leaves them.
pub fn run(editor: &dyn Editor, request: &[u8]) -> Vec<Span> {
    let edited = edited(editor, request, &Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    edited.resource_spans.into_iter().flat_map(|it| it.scope_spans).flat_map(|it| it.spans).collect()
}
