//! Requests as text, in the Collector's layout. Unknown fields are passed over; a malformed rest is left out.

use crate::otlp::wire::{Field, Fields, Payload};
use std::fmt::Write;

/// Values inside values are printed down to this depth; deeper ones are left out.
const VALUE_DEPTH_MAX: usize = 16;

/// A request's text beyond this is cut off, bytes: it goes to a log.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Resources with what they sent: field 1 of every signal's request.
pub(super) fn count_resources(request: &[u8]) -> usize {
    messages(request, 1).count()
}

/// Spans, metrics or log records: they lie at the same fields.
pub(super) fn count_leaves(request: &[u8]) -> usize {
    messages(request, 1).flat_map(|resource| messages(resource, 2)).flat_map(|scope| messages(scope, 2)).count()
}

/// One line per resource, scope and span.
pub(super) fn normal(request: &[u8]) -> String {
    let mut out = Text::default();
    for (index, resource_spans) in messages(request, 1).enumerate() {
        let resource = messages(resource_spans, 1).last().unwrap_or_default();
        out.line(format_args!("ResourceTraces #{index}{}", inline_attributes(resource, 1)));
        for (index, scope_spans) in messages(resource_spans, 2).enumerate() {
            let scope = messages(scope_spans, 1).last().unwrap_or_default();
            let (name, version) = (string(scope, 1), string(scope, 2));
            let at = if version.is_empty() { name } else { format!("{name}@{version}") };
            out.line(format_args!("ScopeTraces #{index} {at}{}", inline_attributes(scope, 3)));
            for span in messages(scope_spans, 2) {
                let (name, trace, id) = (string(span, 5), hex_of(span, 1), hex_of(span, 2));
                out.line(format_args!("{name} {trace} {id}{}", inline_attributes(span, 9)));
            }
        }
    }
    out.finish()
}

/// Every field, one a line.
pub(super) fn detailed(request: &[u8]) -> String {
    let mut out = Text::default();
    for (index, resource_spans) in messages(request, 1).enumerate() {
        out.line(format_args!("ResourceSpans #{index}"));
        out.line(format_args!("Resource SchemaURL: {}", string(resource_spans, 3)));
        let resource = messages(resource_spans, 1).last().unwrap_or_default();
        out.attributes("Resource attributes:", "     -> ", resource, 1);
        for (index, scope_spans) in messages(resource_spans, 2).enumerate() {
            out.line(format_args!("ScopeSpans #{index}"));
            out.line(format_args!("ScopeSpans SchemaURL: {}", string(scope_spans, 3)));
            let scope = messages(scope_spans, 1).last().unwrap_or_default();
            out.line(format_args!("InstrumentationScope {} {}", string(scope, 1), string(scope, 2)));
            out.attributes("InstrumentationScope attributes:", "     -> ", scope, 3);
            for (index, span) in messages(scope_spans, 2).enumerate() {
                out.line(format_args!("Span #{index}"));
                out.span(span);
            }
        }
    }
    out.finish()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.0.len() < TEXT_BYTES_MAX {
            // Writing to a String cannot fail.
            let _ = writeln!(self.0, "{line}");
        }
    }

    fn attributes(&mut self, title: &str, indent: &str, message: &[u8], number: u32) {
        let mut attributes = messages(message, number).peekable();
        if attributes.peek().is_some() {
            self.line(format_args!("{title}"));
        }
        for attribute in attributes {
            self.line(format_args!("{indent}{}: {}", string(attribute, 1), typed_value(attribute)));
        }
    }

    fn span(&mut self, span: &[u8]) {
        let status = messages(span, 15).last().unwrap_or_default();
        self.line(format_args!("    Trace ID       : {}", hex_of(span, 1)));
        self.line(format_args!("    Parent ID      : {}", hex_of(span, 4)));
        self.line(format_args!("    ID             : {}", hex_of(span, 2)));
        self.line(format_args!("    Name           : {}", string(span, 5)));
        self.line(format_args!("    Kind           : {}", kind(varint(span, 6))));
        self.line(format_args!("    Start time     : {}", time(fixed64(span, 7))));
        self.line(format_args!("    End time       : {}", time(fixed64(span, 8))));
        self.line(format_args!("    Status code    : {}", status_code(varint(status, 3))));
        self.line(format_args!("    Status message : {}", string(status, 2)));
        self.optional("TraceState", string(span, 3));
        for (name, number) in [("DroppedAttributesCount", 10), ("DroppedEventsCount", 12), ("DroppedLinksCount", 14)] {
            self.count(name, varint(span, number));
        }
        self.attributes("Attributes:", "     -> ", span, 9);
        for (index, event) in messages(span, 11).enumerate() {
            self.line(format_args!("SpanEvent #{index}"));
            self.line(format_args!("     -> Name: {}", string(event, 2)));
            self.line(format_args!("     -> Timestamp: {}", time(fixed64(event, 1))));
            self.line(format_args!("     -> DroppedAttributesCount: {}", varint(event, 4)));
            self.attributes("     -> Attributes:", "          -> ", event, 3);
        }
        for (index, link) in messages(span, 13).enumerate() {
            self.line(format_args!("SpanLink #{index}"));
            self.line(format_args!("     -> Trace ID: {}", hex_of(link, 1)));
            self.line(format_args!("     -> ID: {}", hex_of(link, 2)));
            self.line(format_args!("     -> TraceState: {}", string(link, 3)));
            self.line(format_args!("     -> DroppedAttributesCount: {}", varint(link, 5)));
            self.attributes("     -> Attributes:", "          -> ", link, 4);
        }
    }

    fn optional(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            self.line(format_args!("    {name:<15}: {value}"));
        }
    }

    fn count(&mut self, name: &str, count: u64) {
        if count > 0 {
            self.line(format_args!("    {name}: {count}"));
        }
    }

    fn finish(mut self) -> String {
        if self.0.len() >= TEXT_BYTES_MAX {
            self.0.push_str("... (cut off)\n");
        }
        self.0.truncate(self.0.trim_end().len());
        self.0
    }
}

fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    Fields::new(message).map_while(Result::ok)
}

fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |field| field.bytes(number))
}

fn string(message: &[u8], number: u32) -> String {
    messages(message, number).last().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

fn hex_of(message: &[u8], number: u32) -> String {
    hex(messages(message, number).last().unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn varint(message: &[u8], number: u32) -> u64 {
    let value = |field: Field<'_>| match field.payload {
        Payload::Varint(value) if field.number == number => Some(value),
        _ => None,
    };
    fields(message).filter_map(value).last().unwrap_or(0)
}

fn fixed64(message: &[u8], number: u32) -> u64 {
    let value = |field: Field<'_>| match field.payload {
        Payload::Fixed64(value) if field.number == number => Some(value),
        _ => None,
    };
    fields(message).filter_map(value).last().unwrap_or(0)
}

fn time(unix_nanos: u64) -> String {
    let nanos = i128::from(unix_nanos);
    jiff::Timestamp::from_nanosecond(nanos).map_or_else(|_| unix_nanos.to_string(), |time| time.to_string())
}

fn kind(kind: u64) -> &'static str {
    const KINDS: [&str; 6] = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"];
    usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind)).copied().unwrap_or("Unspecified")
}

fn status_code(code: u64) -> &'static str {
    match code {
        1 => "Ok",
        2 => "Error",
        _ => "Unset",
    }
}

fn inline_attributes(message: &[u8], number: u32) -> String {
    messages(message, number).fold(String::new(), |mut out, attribute| {
        let value = messages(attribute, 2).last().unwrap_or_default();
        let _ = write!(out, " {}={}", string(attribute, 1), plain(value, 0));
        out
    })
}

/// `Str(x)`, `Int(1)`: an attribute's value with its type.
fn typed_value(attribute: &[u8]) -> String {
    let value = messages(attribute, 2).last().unwrap_or_default();
    let name = match fields(value).last().map(|field| field.number) {
        Some(1) => "Str",
        Some(2) => "Bool",
        Some(3) => "Int",
        Some(4) => "Double",
        Some(5) => "Slice",
        Some(6) => "Map",
        Some(7) => "Bytes",
        _ => "Empty",
    };
    format!("{name}({})", plain(value, 0))
}

/// An `AnyValue` as text: JSON for lists and maps.
fn plain(value: &[u8], depth: usize) -> String {
    let Some(field) = fields(value).last() else { return String::new() };
    if depth > VALUE_DEPTH_MAX {
        return "...".to_owned();
    }
    match (field.number, field.payload) {
        (1, Payload::Bytes(text)) if depth > 0 => format!("{:?}", String::from_utf8_lossy(text)),
        (1, Payload::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
        (2, Payload::Varint(flag)) => (flag != 0).to_string(),
        (3, Payload::Varint(number)) => (number as i64).to_string(),
        (4, Payload::Fixed64(bits)) => f64::from_bits(bits).to_string(),
        (5, Payload::Bytes(list)) => {
            let items: Vec<String> = messages(list, 1).map(|item| plain(item, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        (6, Payload::Bytes(map)) => {
            let entries: Vec<String> = messages(map, 1)
                .map(|entry| {
                    let value = messages(entry, 2).last().unwrap_or_default();
                    format!("{:?}:{}", string(entry, 1), plain(value, depth + 1))
                })
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        (7, Payload::Bytes(bytes)) => hex(bytes),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    use proptest::prelude::*;
    use prost::Message;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    }

    fn request() -> Vec<u8> {
        let list = ArrayValue { values: vec![AnyValue { value: Some(Value::StringValue("a".to_owned())) }] };
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "GET /".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_000_000_000,
            end_time_unix_nano: 1_500_000_000,
            attributes: vec![attribute("code", Value::IntValue(-1)), attribute("list", Value::ArrayValue(list))],
            events: vec![Event { name: "boom".to_owned(), ..Default::default() }],
            status: Some(Status { code: 2, message: "bad".to_owned() }),
            ..Default::default()
        };
        let scope = InstrumentationScope { name: "lib".to_owned(), version: "1".to_owned(), ..Default::default() };
        let resource = Resource {
            attributes: vec![attribute("service.name", Value::StringValue("shop".to_owned()))],
            ..Default::default()
        };
        let scope_spans = ScopeSpans { scope: Some(scope), spans: vec![span], ..Default::default() };
        let resource_spans =
            ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..Default::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    }

    #[test]
    fn normal_is_a_line_each() {
        let expected = "ResourceTraces #0 service.name=shop\nScopeTraces #0 lib@1\n\
            GET / 01010101010101010101010101010101 0202020202020202 code=-1 list=[\"a\"]";
        assert_eq!(normal(&request()), expected);
    }

    #[test]
    fn detailed_shows_every_field() {
        let text = detailed(&request());
        for line in [
            "     -> service.name: Str(shop)",
            "InstrumentationScope lib 1",
            "    Kind           : Server",
            "    Start time     : 1970-01-01T00:00:01Z",
            "    End time       : 1970-01-01T00:00:01.5Z",
            "    Status code    : Error",
            "    Status message : bad",
            "     -> code: Int(-1)",
            "     -> list: Slice([\"a\"])",
            "     -> Name: boom",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_printed_without_panic(bytes: Vec<u8>) {
            detailed(&bytes);
            normal(&bytes);
        }
    }
}
