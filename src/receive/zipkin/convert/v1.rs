//! A v1 span and what becomes of it (the rules of the Collector's `zipkinv1` translator).
//!
//! Version 1 has no kind, no endpoints and no tags of its own: all of them are read from annotations.

use super::Rules;
use super::span::{Endpoint, START_TIME_ABSENT};
use super::text::typed;
use crate::otlp::draft::{
    Attributes, Draft, EventDraft, ScopeDraft, SpanDraft, SpanKind, StatusCode, Text, TooLong, Value,
};
use std::borrow::Cow;

/// The service of a span that does not say.
const UNKNOWN_SERVICE: &[u8] = b"unknown-service";

/// A span of Zipkin's v1 model. Times are microseconds; 0: absent.
#[derive(Debug, Default)]
pub struct Span<'a> {
    pub trace_id: [u8; 16],
    pub id: [u8; 8],
    pub parent_id: Option<[u8; 8]>,
    pub name: Text<'a>,
    pub timestamp: u64,
    pub duration: u64,
    pub annotations: Vec<Annotation<'a>>,
    pub binary_annotations: Vec<BinaryAnnotation<'a>>,
}

#[derive(Debug, Default)]
pub struct Annotation<'a> {
    pub timestamp: u64,
    pub value: Text<'a>,
    pub endpoint: Endpoint<'a>,
}

#[derive(Debug)]
pub struct BinaryAnnotation<'a> {
    pub key: Text<'a>,
    pub value: Value<'a>,
    pub endpoint: Endpoint<'a>,
}

/// What the binary annotations say of how it went; of several, the first that speaks counts, in this order.
#[derive(Default)]
struct Status<'a> {
    census: Option<StatusCode>,
    census_message: Text<'a>,
    otel: Option<StatusCode>,
    otel_message: Text<'a>,
    /// The error's text, `true` where there is none.
    error: Option<Text<'a>>,
    http: Option<StatusCode>,
    http_message: Text<'a>,
}

impl<'a> Span<'a> {
    pub fn push(self, rules: Rules, now: u64, draft: &mut Draft) -> Result<(), TooLong> {
        let mut span = SpanDraft {
            trace_id: self.trace_id,
            span_id: self.id,
            parent_span_id: self.parent_id.filter(|parent| *parent != [0; 8]),
            name: self.name,
            ..SpanDraft::default()
        };
        let mut endpoint = annotate(self.annotations, &mut span);
        let service_name = attribute(self.binary_annotations, rules, &mut span);
        if endpoint.service_name.is_empty() {
            endpoint.service_name = if service_name.is_empty() { Cow::Borrowed(UNKNOWN_SERVICE) } else { service_name };
        }
        if self.timestamp > 0 {
            span.start = self.timestamp.saturating_mul(1_000);
            span.end = self.timestamp.saturating_add(self.duration).saturating_mul(1_000);
        }
        if span.start == 0 {
            (span.start, span.end) = (now, now);
            span.attributes.put(START_TIME_ABSENT.as_bytes(), Value::Bool(true));
        }
        let resource = draft.resource(&mut resource(endpoint))?;
        draft.push(resource, &ScopeDraft::default(), &mut span)
    }
}

fn resource(endpoint: Endpoint<'_>) -> Attributes<'_> {
    let mut resource = Attributes::default();
    resource.put_text("service.name", endpoint.service_name);
    for (key, address) in [("ipv4", endpoint.ipv4), ("ipv6", endpoint.ipv6)] {
        if !address.is_empty() {
            resource.put_text(key, address);
        }
    }
    if endpoint.port > 0 {
        resource.put_text("port", endpoint.port.to_string().into_bytes());
    }
    resource
}

/// Kind, times and events; the endpoint of the first annotation that speaks for the span itself.
fn annotate<'a>(annotations: Vec<Annotation<'a>>, span: &mut SpanDraft<'a>) -> Endpoint<'a> {
    let mut own = None;
    let mut times: Option<(u64, u64)> = None;
    for Annotation { timestamp, value, endpoint } in annotations.into_iter().filter(|it| !it.value.is_empty()) {
        let (first, last) = times.unwrap_or((timestamp, timestamp));
        times = Some((first.min(timestamp), last.max(timestamp)));
        let kind = match &*value {
            b"cs" | b"cr" => SpanKind::Client,
            b"ss" | b"sr" => SpanKind::Server,
            b"ms" => SpanKind::Producer,
            b"mr" => SpanKind::Consumer,
            _ => {
                let time = timestamp.saturating_mul(1_000);
                span.events.push(EventDraft { time, name: value, ..EventDraft::default() });
                continue;
            }
        };
        if span.kind == SpanKind::Unspecified {
            span.kind = kind;
        }
        if own.is_none() && !endpoint.service_name.is_empty() {
            own = Some(endpoint);
        }
    }
    if let Some((first, last)) = times {
        (span.start, span.end) = (first.saturating_mul(1_000), last.saturating_mul(1_000));
    }
    own.unwrap_or_default()
}

/// Attributes, status and the other side of the call; the service name that stands in where no annotation has one.
fn attribute<'a>(annotations: Vec<BinaryAnnotation<'a>>, rules: Rules, span: &mut SpanDraft<'a>) -> Text<'a> {
    let (mut service_name, mut local_component) = (Text::default(), Text::default());
    let mut status = Status::default();
    for BinaryAnnotation { key, value, mut endpoint } in annotations {
        // The address of the other side: the endpoint is what it says.
        if matches!(&*key, b"sa" | b"ca" | b"ma") && value == Value::Bool(true) {
            endpoint.describe_remote(&mut span.attributes);
            continue;
        }
        if !endpoint.service_name.is_empty() {
            service_name = std::mem::take(&mut endpoint.service_name);
        }
        let value = if rules.parse_string_tags { typed(value) } else { value };
        if &*key == b"lc" {
            local_component = value.text().to_owned().into();
            span.attributes.put_text("component", value.into_text());
        } else if !status.hears(&key, &value) {
            span.attributes.put(key, value);
        }
    }
    (span.status, span.status_message) = status.outcome();
    if service_name.is_empty() { local_component } else { service_name }
}

impl<'a> Status<'a> {
    /// Whether the annotation is about the status alone.
    fn hears(&mut self, key: &[u8], value: &Value<'a>) -> bool {
        let text = || value.clone().into_text();
        match key {
            b"census.status_code" => {
                // 0 is OK in OpenCensus.
                self.census = number(value).map(|code| if code == 0 { StatusCode::Ok } else { StatusCode::Error });
            }
            b"census.status_description" | b"opencensus.status_description" => self.census_message = text(),
            b"otel.status_code" => {
                self.otel = match number(value) {
                    Some(1) => Some(StatusCode::Ok),
                    Some(2) => Some(StatusCode::Error),
                    Some(_) => Some(StatusCode::Unset),
                    None => self.otel,
                }
            }
            b"otel.status_description" => self.otel_message = text(),
            b"error" => self.error = Some(text()),
            b"http.status_code" | b"http.response.status_code" => {
                let code = |code| if (100..400).contains(&code) { StatusCode::Unset } else { StatusCode::Error };
                self.http = number(value).map(code);
                return false;
            }
            b"http.status_message" => {
                self.http_message = text();
                return false;
            }
            _ => return false,
        }
        true
    }

    fn outcome(self) -> (StatusCode, Text<'a>) {
        if let Some(code) = self.census {
            return (code, self.census_message);
        }
        if let Some(code) = self.otel {
            return (code, self.otel_message);
        }
        if let Some(error) = self.error {
            let said = [self.census_message, self.otel_message].into_iter().find(|message| !message.is_empty());
            // The text of the error is all there is of it: the annotation is no attribute.
            let message = said.unwrap_or(if matches!(&*error, b"true" | b"") { Text::default() } else { error });
            return (StatusCode::Error, message);
        }
        match self.http {
            Some(code) => (code, self.http_message),
            None => (StatusCode::Unset, Text::default()),
        }
    }
}

fn number(value: &Value<'_>) -> Option<i32> {
    match value {
        Value::Int(value) => i32::try_from(*value).ok(),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}
