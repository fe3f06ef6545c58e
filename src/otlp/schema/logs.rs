//! The OTLP logs messages.

use super::{
    ANY_VALUE, Enum, INSTRUMENTATION_SCOPE, KEY_VALUE, Kind, Message, RESOURCE, SPAN_ID, TRACE_ID, always, field,
    repeated,
};

/// `opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest`; byte for byte also `LogsData`.
pub static EXPORT_LOGS_SERVICE_REQUEST: Message = Message {
    name: "ExportLogsServiceRequest",
    fields: &[repeated(1, "resourceLogs", "resource_logs", Kind::Message(&RESOURCE_LOGS))],
};

pub static RESOURCE_LOGS: Message = Message {
    name: "ResourceLogs",
    fields: &[
        always(1, "resource", "resource", &RESOURCE),
        repeated(2, "scopeLogs", "scope_logs", Kind::Message(&SCOPE_LOGS)),
        field(3, "schemaUrl", "schema_url", Kind::String),
    ],
};

pub static SCOPE_LOGS: Message = Message {
    name: "ScopeLogs",
    fields: &[
        always(1, "scope", "scope", &INSTRUMENTATION_SCOPE),
        repeated(2, "logRecords", "log_records", Kind::Message(&LOG_RECORD)),
        field(3, "schemaUrl", "schema_url", Kind::String),
    ],
};

pub static LOG_RECORD: Message = Message {
    name: "LogRecord",
    fields: &[
        field(1, "timeUnixNano", "time_unix_nano", Kind::Fixed64),
        field(11, "observedTimeUnixNano", "observed_time_unix_nano", Kind::Fixed64),
        field(2, "severityNumber", "severity_number", Kind::Enum(&SEVERITY_NUMBER)),
        field(3, "severityText", "severity_text", Kind::String),
        field(5, "body", "body", Kind::Message(&ANY_VALUE)),
        repeated(6, "attributes", "attributes", Kind::Message(&KEY_VALUE)),
        field(7, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint32),
        field(8, "flags", "flags", Kind::Fixed32),
        field(9, "traceId", "trace_id", TRACE_ID),
        field(10, "spanId", "span_id", SPAN_ID),
        field(12, "eventName", "event_name", Kind::String),
    ],
};

pub static SEVERITY_NUMBER: Enum = Enum {
    values: &[
        (0, "SEVERITY_NUMBER_UNSPECIFIED"),
        (1, "SEVERITY_NUMBER_TRACE"),
        (2, "SEVERITY_NUMBER_TRACE2"),
        (3, "SEVERITY_NUMBER_TRACE3"),
        (4, "SEVERITY_NUMBER_TRACE4"),
        (5, "SEVERITY_NUMBER_DEBUG"),
        (6, "SEVERITY_NUMBER_DEBUG2"),
        (7, "SEVERITY_NUMBER_DEBUG3"),
        (8, "SEVERITY_NUMBER_DEBUG4"),
        (9, "SEVERITY_NUMBER_INFO"),
        (10, "SEVERITY_NUMBER_INFO2"),
        (11, "SEVERITY_NUMBER_INFO3"),
        (12, "SEVERITY_NUMBER_INFO4"),
        (13, "SEVERITY_NUMBER_WARN"),
        (14, "SEVERITY_NUMBER_WARN2"),
        (15, "SEVERITY_NUMBER_WARN3"),
        (16, "SEVERITY_NUMBER_WARN4"),
        (17, "SEVERITY_NUMBER_ERROR"),
        (18, "SEVERITY_NUMBER_ERROR2"),
        (19, "SEVERITY_NUMBER_ERROR3"),
        (20, "SEVERITY_NUMBER_ERROR4"),
        (21, "SEVERITY_NUMBER_FATAL"),
        (22, "SEVERITY_NUMBER_FATAL2"),
        (23, "SEVERITY_NUMBER_FATAL3"),
        (24, "SEVERITY_NUMBER_FATAL4"),
    ],
};
