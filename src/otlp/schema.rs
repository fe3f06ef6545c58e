//! The OTLP messages as tables: numbers, names and types.
//!
//! One table drives JSON in both directions ([`super::json`]) and the checks of metrics and logs ([`super::items`]), so
//! that a name or a number stands in one place. Fields are listed in the order of the `.proto` files, which is the order
//! JSON members are written in. Metrics and logs have files of their own.

pub mod logs;
pub mod metrics;

/// A message type.
#[derive(Debug)]
pub struct Message {
    pub name: &'static str,
    /// In declaration order; at most 32, so that presence fits a bit mask.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    pub number: u32,
    /// The JSON name, lowerCamelCase.
    pub json: &'static str,
    /// The name in the `.proto` file, which a Collector accepts in JSON as well.
    pub snake: &'static str,
    pub kind: Kind,
    pub presence: Presence,
}

/// What a field holds, and with it its wire type and its JSON form.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    String,
    /// Base64 in JSON.
    Bytes,
    /// A trace or span id of this many bytes: hex in OTLP/JSON, base64 in Tempo's.
    Id(usize),
    Bool,
    Int32,
    Sint32,
    Uint32,
    Int64,
    Uint64,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Enum(&'static Enum),
    Message(&'static Message),
}

/// When a field is written, and what its absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Absent means the type's zero value; a scalar's zero is not written.
    Implicit,
    /// A scalar that may be absent: written whatever its value where it is there.
    Optional,
    /// A message that OTLP/JSON writes even when it is absent, as a Collector does.
    Always,
    /// One of several alternatives: written whatever its value, the last on the wire counts.
    OneOf,
    Repeated,
}

/// An enum type: numbers with their names.
#[derive(Debug)]
pub struct Enum {
    pub values: &'static [(i32, &'static str)],
}

impl Field {
    /// Whether its elements stand in one field without tags of their own, as protobuf writes repeated numbers.
    pub fn is_packed(&self) -> bool {
        self.presence == Presence::Repeated
            && !matches!(self.kind, Kind::String | Kind::Bytes | Kind::Id(_) | Kind::Message(_))
    }
}

impl Message {
    /// The field with this JSON or `.proto` name. Case matters.
    pub fn by_name(&self, name: &[u8]) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.json.as_bytes() == name || field.snake.as_bytes() == name)
    }
}

impl Enum {
    pub fn number(&self, name: &[u8]) -> Option<i32> {
        self.values.iter().find(|(_, candidate)| candidate.as_bytes() == name).map(|(number, _)| *number)
    }

    pub fn name(&self, number: i32) -> Option<&'static str> {
        self.values.iter().find(|(candidate, _)| *candidate == number).map(|(_, name)| *name)
    }
}

const TRACE_ID: Kind = Kind::Id(16);
const SPAN_ID: Kind = Kind::Id(8);

const fn field(number: u32, json: &'static str, snake: &'static str, kind: Kind) -> Field {
    Field { number, json, snake, kind, presence: Presence::Implicit }
}

const fn always(number: u32, json: &'static str, snake: &'static str, message: &'static Message) -> Field {
    Field { number, json, snake, kind: Kind::Message(message), presence: Presence::Always }
}

const fn one_of(number: u32, json: &'static str, snake: &'static str, kind: Kind) -> Field {
    Field { number, json, snake, kind, presence: Presence::OneOf }
}

const fn optional(number: u32, json: &'static str, snake: &'static str, kind: Kind) -> Field {
    Field { number, json, snake, kind, presence: Presence::Optional }
}

const fn repeated(number: u32, json: &'static str, snake: &'static str, kind: Kind) -> Field {
    Field { number, json, snake, kind, presence: Presence::Repeated }
}

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`; byte for byte also `TracesData` and `tempopb.Trace`.
pub static EXPORT_TRACE_SERVICE_REQUEST: Message = Message {
    name: "ExportTraceServiceRequest",
    fields: &[repeated(1, "resourceSpans", "resource_spans", Kind::Message(&RESOURCE_SPANS))],
};

/// The same message under the name that Tempo's `/api/traces` has kept for its one field: `batches`.
pub static TEMPO_BATCHES: Message =
    Message { name: "Trace", fields: &[repeated(1, "batches", "batches", Kind::Message(&RESOURCE_SPANS))] };

pub static EXPORT_TRACE_SERVICE_RESPONSE: Message = Message {
    name: "ExportTraceServiceResponse",
    fields: &[field(1, "partialSuccess", "partial_success", Kind::Message(&EXPORT_TRACE_PARTIAL_SUCCESS))],
};

pub static EXPORT_TRACE_PARTIAL_SUCCESS: Message = Message {
    name: "ExportTracePartialSuccess",
    fields: &[
        field(1, "rejectedSpans", "rejected_spans", Kind::Int64),
        field(2, "errorMessage", "error_message", Kind::String),
    ],
};

/// `google.rpc.Status` without `details`: in JSON each detail needs its own type's table, and no client reads them there.
pub static RPC_STATUS: Message = Message {
    name: "Status",
    fields: &[field(1, "code", "code", Kind::Int32), field(2, "message", "message", Kind::String)],
};

pub static RESOURCE_SPANS: Message = Message {
    name: "ResourceSpans",
    fields: &[
        always(1, "resource", "resource", &RESOURCE),
        repeated(2, "scopeSpans", "scope_spans", Kind::Message(&SCOPE_SPANS)),
        field(3, "schemaUrl", "schema_url", Kind::String),
    ],
};

pub static RESOURCE: Message = Message {
    name: "Resource",
    fields: &[
        repeated(1, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
        field(2, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
        repeated(3, "entityRefs", "entity_refs", Kind::Message(&ENTITY_REF)),
    ],
};

pub static ENTITY_REF: Message = Message {
    name: "EntityRef",
    fields: &[
        field(1, "schemaUrl", "schema_url", Kind::String),
        field(2, "type", "type", Kind::String),
        repeated(3, "idKeys", "id_keys", Kind::String),
        repeated(4, "descriptionKeys", "description_keys", Kind::String),
    ],
};

pub static SCOPE_SPANS: Message = Message {
    name: "ScopeSpans",
    fields: &[
        always(1, "scope", "scope", &INSTRUMENTATION_SCOPE),
        repeated(2, "spans", "spans", Kind::Message(&SPAN)),
        field(3, "schemaUrl", "schema_url", Kind::String),
    ],
};

pub static INSTRUMENTATION_SCOPE: Message = Message {
    name: "InstrumentationScope",
    fields: &[
        field(1, "name", "name", Kind::String),
        field(2, "version", "version", Kind::String),
        repeated(3, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
        field(4, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
    ],
};

pub static SPAN: Message = Message {
    name: "Span",
    fields: &[
        field(1, "traceId", "trace_id", TRACE_ID),
        field(2, "spanId", "span_id", SPAN_ID),
        field(3, "traceState", "trace_state", Kind::String),
        field(4, "parentSpanId", "parent_span_id", SPAN_ID),
        field(16, "flags", "flags", Kind::Fixed32),
        field(5, "name", "name", Kind::String),
        field(6, "kind", "kind", Kind::Enum(&SPAN_KIND)),
        field(7, "startTimeUnixNano", "start_time_unix_nano", Kind::Fixed64),
        field(8, "endTimeUnixNano", "end_time_unix_nano", Kind::Fixed64),
        repeated(9, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
        field(10, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
        repeated(11, "events", "events", Kind::Message(&EVENT)),
        field(12, "droppedEventsCount", "dropped_events_count", Kind::Uint32),
        repeated(13, "links", "links", Kind::Message(&LINK)),
        field(14, "droppedLinksCount", "dropped_links_count", Kind::Uint32),
        always(15, "status", "status", &STATUS),
    ],
};

pub static EVENT: Message = Message {
    name: "Event",
    fields: &[
        field(1, "timeUnixNano", "time_unix_nano", Kind::Fixed64),
        field(2, "name", "name", Kind::String),
        repeated(3, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
        field(4, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
    ],
};

pub static LINK: Message = Message {
    name: "Link",
    fields: &[
        field(1, "traceId", "trace_id", TRACE_ID),
        field(2, "spanId", "span_id", SPAN_ID),
        field(3, "traceState", "trace_state", Kind::String),
        repeated(4, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
        field(5, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
        field(6, "flags", "flags", Kind::Fixed32),
    ],
};

pub static STATUS: Message = Message {
    name: "Status",
    fields: &[field(2, "message", "message", Kind::String), field(3, "code", "code", Kind::Enum(&STATUS_CODE))],
};

pub static KEY_VALUE: Message = Message {
    name: "KeyValue",
    fields: &[field(1, "key", "key", Kind::String), field(2, "value", "value", Kind::Message(&ANY_VALUE))],
};

/// The only type that contains itself. Indexes into a string table (profiles only) are left out.
pub static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        one_of(1, "stringValue", "string_value", Kind::String),
        one_of(2, "boolValue", "bool_value", Kind::Bool),
        one_of(3, "intValue", "int_value", Kind::Int64),
        one_of(4, "doubleValue", "double_value", Kind::Double),
        one_of(5, "arrayValue", "array_value", Kind::Message(&ARRAY_VALUE)),
        one_of(6, "kvlistValue", "kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
        one_of(7, "bytesValue", "bytes_value", Kind::Bytes),
    ],
};

pub static ARRAY_VALUE: Message =
    Message { name: "ArrayValue", fields: &[repeated(1, "values", "values", Kind::Message(&ANY_VALUE))] };

pub static KEY_VALUE_LIST: Message =
    Message { name: "KeyValueList", fields: &[repeated(1, "values", "values", Kind::Message(&KEY_VALUE))] };

pub static SPAN_KIND: Enum = Enum {
    values: &[
        (0, "SPAN_KIND_UNSPECIFIED"),
        (1, "SPAN_KIND_INTERNAL"),
        (2, "SPAN_KIND_SERVER"),
        (3, "SPAN_KIND_CLIENT"),
        (4, "SPAN_KIND_PRODUCER"),
        (5, "SPAN_KIND_CONSUMER"),
    ],
};

pub static STATUS_CODE: Enum =
    Enum { values: &[(0, "STATUS_CODE_UNSET"), (1, "STATUS_CODE_OK"), (2, "STATUS_CODE_ERROR")] };

#[cfg(test)]
mod tests {
    use super::*;

    fn camel(snake: &str) -> String {
        let mut upper = false;
        let mut out = String::new();
        for c in snake.chars() {
            match (c, upper) {
                ('_', _) => upper = true,
                (c, true) => {
                    out.push(c.to_ascii_uppercase());
                    upper = false;
                }
                (c, false) => out.push(c),
            }
        }
        out
    }

    fn visit(message: &'static Message, seen: &mut Vec<*const Message>) {
        if seen.contains(&std::ptr::from_ref(message)) {
            return;
        }
        seen.push(message);
        assert!(message.fields.len() <= 32, "{}", message.name);
        for field in message.fields {
            assert_eq!(camel(field.snake), field.json, "{}", message.name);
            let same_number = message.fields.iter().filter(|other| other.number == field.number).count();
            assert_eq!(same_number, 1, "{}.{}", message.name, field.json);
            if let Kind::Message(inner) = field.kind {
                visit(inner, seen);
            }
        }
    }

    #[test]
    fn names_match_one_another_and_numbers_are_unique() {
        let mut seen = Vec::new();
        visit(&EXPORT_TRACE_SERVICE_REQUEST, &mut seen);
        visit(&EXPORT_TRACE_SERVICE_RESPONSE, &mut seen);
        visit(&RPC_STATUS, &mut seen);
        assert_eq!(seen.len(), 17);
        visit(&metrics::EXPORT_METRICS_SERVICE_REQUEST, &mut seen);
        assert_eq!(seen.len(), 17 + 16);
        visit(&logs::EXPORT_LOGS_SERVICE_REQUEST, &mut seen);
        assert_eq!(seen.len(), 17 + 16 + 4);
    }
}
