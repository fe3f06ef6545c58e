//! Traces that nobody has sent before, and whose ids can be worked out again to ask for them.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// A stream of traces: the same seed gives the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traces {
    pub seed: u64,
    pub spans_per_trace: usize,
}

impl Traces {
    /// The id of the trace number `index`.
    pub fn id(&self, index: u64) -> [u8; 16] {
        let high = mix(self.seed ^ mix(index));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&high.to_be_bytes());
        id[8..].copy_from_slice(&mix(high).to_be_bytes());
        id
    }

    /// Pseudo-random but repeatable.
    pub fn spread(value: u64) -> u64 {
        mix(value)
    }

    /// One request with the traces of `indices`, all of service `service`, timed now.
    pub fn request(&self, service: &str, indices: std::ops::Range<u64>) -> ExportTraceServiceRequest {
        let spans = indices.flat_map(|index| self.spans(index)).collect();
        request_of(service, spans)
    }

    fn spans(&self, index: u64) -> impl Iterator<Item = Span> + use<> {
        let trace = self.id(index);
        let root = span_id(&trace, 0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64;
        (0..self.spans_per_trace).map(move |number| Span {
            trace_id: trace.to_vec(),
            span_id: span_id(&trace, number as u64),
            parent_span_id: if number == 0 { Vec::new() } else { root.clone() },
            name: format!("GET /item/{number}"),
            kind: SpanKind::Server as i32,
            start_time_unix_nano: now - 5_000_000 + number as u64,
            end_time_unix_nano: now,
            attributes: vec![
                attribute("http.request.method", Value::StringValue("GET".to_owned())),
                attribute("http.response.status_code", Value::IntValue(200)),
                attribute("item", Value::IntValue(index as i64)),
            ],
            status: Some(Status::default()),
            ..Span::default()
        })
    }
}

pub fn request_of(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![attribute("service.name", Value::StringValue(service.to_owned()))],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "spanreel.tests".to_owned(), ..InstrumentationScope::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    }
}

pub fn span_count(request: &ExportTraceServiceRequest) -> usize {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// So many letters that no compressor makes smaller than three quarters.
pub fn noise(seed: u64, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";
    let words = (0..(bytes / 8) as u64).map(|number| mix(mix(seed) ^ number));
    words.flat_map(|word| word.to_be_bytes()).map(|byte| LETTERS[usize::from(byte % 64)] as char).collect()
}

pub fn service_name(resource: &Resource) -> Option<String> {
    let attribute = resource.attributes.iter().find(|attribute| attribute.key == "service.name")?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(name) => Some(name.clone()),
        _ => None,
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request in OTLP/JSON: hex ids, 64-bit integers as text. Covers what [`Traces::request`] makes.
pub fn json(request: &ExportTraceServiceRequest) -> String {
    let attributes = |list: &[KeyValue]| -> Vec<serde_json::Value> {
        let value = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => json!({ "stringValue": text }),
            Some(Value::IntValue(number)) => json!({ "intValue": number.to_string() }),
            other => panic!("the tests send no such attribute as JSON: {other:?}"),
        };
        list.iter().map(|attribute| json!({ "key": attribute.key, "value": value(attribute) })).collect()
    };
    let span = |span: &Span| {
        json!({
            "traceId": hex(&span.trace_id),
            "spanId": hex(&span.span_id),
            "parentSpanId": hex(&span.parent_span_id),
            "name": span.name,
            "kind": span.kind,
            "startTimeUnixNano": span.start_time_unix_nano.to_string(),
            "endTimeUnixNano": span.end_time_unix_nano.to_string(),
            "attributes": attributes(&span.attributes),
            "status": {},
        })
    };
    let scope = |scope: &ScopeSpans| {
        let name = scope.scope.as_ref().map_or("", |scope| scope.name.as_str());
        json!({ "scope": { "name": name }, "spans": scope.spans.iter().map(span).collect::<Vec<_>>() })
    };
    let resource = |resource: &ResourceSpans| {
        let found = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        json!({
            "resource": { "attributes": attributes(found) },
            "scopeSpans": resource.scope_spans.iter().map(scope).collect::<Vec<_>>(),
        })
    };
    json!({ "resourceSpans": request.resource_spans.iter().map(resource).collect::<Vec<_>>() }).to_string()
}

fn span_id(trace: &[u8; 16], number: u64) -> Vec<u8> {
    let mut seed = [0; 8];
    seed.copy_from_slice(&trace[8..]);
    mix(u64::from_be_bytes(seed).wrapping_add(number)).to_be_bytes().to_vec()
}

/// The finaliser of SplitMix64: different inputs give different, evenly spread outputs.
pub fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
