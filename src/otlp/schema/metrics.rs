//! The OTLP metrics messages.

use super::{
    Enum, Field, INSTRUMENTATION_SCOPE, KEY_VALUE, Kind, Message, RESOURCE, SPAN_ID, TRACE_ID, always, field, one_of,
    optional, repeated,
};

/// `opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest`; byte for byte also `MetricsData`.
pub static EXPORT_METRICS_SERVICE_REQUEST: Message = Message {
    name: "ExportMetricsServiceRequest",
    fields: &[repeated(1, "resourceMetrics", "resource_metrics", Kind::Message(&RESOURCE_METRICS))],
};

pub static RESOURCE_METRICS: Message = Message {
    name: "ResourceMetrics",
    fields: &[
        always(1, "resource", "resource", &RESOURCE),
        repeated(2, "scopeMetrics", "scope_metrics", Kind::Message(&SCOPE_METRICS)),
        field(3, "schemaUrl", "schema_url", Kind::String),
    ],
};

pub static SCOPE_METRICS: Message = Message {
    name: "ScopeMetrics",
    fields: &[
        always(1, "scope", "scope", &INSTRUMENTATION_SCOPE),
        repeated(2, "metrics", "metrics", Kind::Message(&METRIC)),
        field(3, "schemaUrl", "schema_url", Kind::String),
    ],
};

pub static METRIC: Message = Message {
    name: "Metric",
    fields: &[
        field(1, "name", "name", Kind::String),
        field(2, "description", "description", Kind::String),
        field(3, "unit", "unit", Kind::String),
        one_of(5, "gauge", "gauge", Kind::Message(&GAUGE)),
        one_of(7, "sum", "sum", Kind::Message(&SUM)),
        one_of(9, "histogram", "histogram", Kind::Message(&HISTOGRAM)),
        one_of(10, "exponentialHistogram", "exponential_histogram", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        one_of(11, "summary", "summary", Kind::Message(&SUMMARY)),
        repeated(12, "metadata", "metadata", Kind::Message(&KEY_VALUE)),
    ],
};

const fn points(message: &'static Message) -> Field {
    repeated(1, "dataPoints", "data_points", Kind::Message(message))
}

const TEMPORALITY: Field =
    field(2, "aggregationTemporality", "aggregation_temporality", Kind::Enum(&AGGREGATION_TEMPORALITY));
const START: Field = field(2, "startTimeUnixNano", "start_time_unix_nano", Kind::Fixed64);
const TIME: Field = field(3, "timeUnixNano", "time_unix_nano", Kind::Fixed64);
const COUNT: Field = field(4, "count", "count", Kind::Fixed64);

const fn attributes(number: u32) -> Field {
    repeated(number, "attributes", "attributes", Kind::Message(&KEY_VALUE))
}

const fn exemplars(number: u32) -> Field {
    repeated(number, "exemplars", "exemplars", Kind::Message(&EXEMPLAR))
}

const fn flags(number: u32) -> Field {
    field(number, "flags", "flags", Kind::Uint32)
}

pub static GAUGE: Message = Message { name: "Gauge", fields: &[points(&NUMBER_DATA_POINT)] };

pub static SUM: Message = Message {
    name: "Sum",
    fields: &[points(&NUMBER_DATA_POINT), TEMPORALITY, field(3, "isMonotonic", "is_monotonic", Kind::Bool)],
};

pub static HISTOGRAM: Message = Message { name: "Histogram", fields: &[points(&HISTOGRAM_DATA_POINT), TEMPORALITY] };

pub static EXPONENTIAL_HISTOGRAM: Message =
    Message { name: "ExponentialHistogram", fields: &[points(&EXPONENTIAL_HISTOGRAM_DATA_POINT), TEMPORALITY] };

pub static SUMMARY: Message = Message { name: "Summary", fields: &[points(&SUMMARY_DATA_POINT)] };

pub static NUMBER_DATA_POINT: Message = Message {
    name: "NumberDataPoint",
    fields: &[
        attributes(7),
        START,
        TIME,
        one_of(4, "asDouble", "as_double", Kind::Double),
        one_of(6, "asInt", "as_int", Kind::Sfixed64),
        exemplars(5),
        flags(8),
    ],
};

pub static HISTOGRAM_DATA_POINT: Message = Message {
    name: "HistogramDataPoint",
    fields: &[
        attributes(9),
        START,
        TIME,
        COUNT,
        optional(5, "sum", "sum", Kind::Double),
        repeated(6, "bucketCounts", "bucket_counts", Kind::Fixed64),
        repeated(7, "explicitBounds", "explicit_bounds", Kind::Double),
        exemplars(8),
        flags(10),
        optional(11, "min", "min", Kind::Double),
        optional(12, "max", "max", Kind::Double),
    ],
};

pub static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message {
    name: "ExponentialHistogramDataPoint",
    fields: &[
        attributes(1),
        START,
        TIME,
        COUNT,
        optional(5, "sum", "sum", Kind::Double),
        field(6, "scale", "scale", Kind::Sint32),
        field(7, "zeroCount", "zero_count", Kind::Fixed64),
        field(8, "positive", "positive", Kind::Message(&BUCKETS)),
        field(9, "negative", "negative", Kind::Message(&BUCKETS)),
        flags(10),
        exemplars(11),
        optional(12, "min", "min", Kind::Double),
        optional(13, "max", "max", Kind::Double),
        field(14, "zeroThreshold", "zero_threshold", Kind::Double),
    ],
};

pub static BUCKETS: Message = Message {
    name: "Buckets",
    fields: &[field(1, "offset", "offset", Kind::Sint32), repeated(2, "bucketCounts", "bucket_counts", Kind::Uint64)],
};

pub static SUMMARY_DATA_POINT: Message = Message {
    name: "SummaryDataPoint",
    fields: &[
        attributes(7),
        START,
        TIME,
        COUNT,
        field(5, "sum", "sum", Kind::Double),
        repeated(6, "quantileValues", "quantile_values", Kind::Message(&VALUE_AT_QUANTILE)),
        flags(8),
    ],
};

pub static VALUE_AT_QUANTILE: Message = Message {
    name: "ValueAtQuantile",
    fields: &[field(1, "quantile", "quantile", Kind::Double), field(2, "value", "value", Kind::Double)],
};

pub static EXEMPLAR: Message = Message {
    name: "Exemplar",
    fields: &[
        repeated(7, "filteredAttributes", "filtered_attributes", Kind::Message(&KEY_VALUE)),
        field(2, "timeUnixNano", "time_unix_nano", Kind::Fixed64),
        one_of(3, "asDouble", "as_double", Kind::Double),
        one_of(6, "asInt", "as_int", Kind::Sfixed64),
        field(4, "spanId", "span_id", SPAN_ID),
        field(5, "traceId", "trace_id", TRACE_ID),
    ],
};

pub static AGGREGATION_TEMPORALITY: Enum = Enum {
    values: &[
        (0, "AGGREGATION_TEMPORALITY_UNSPECIFIED"),
        (1, "AGGREGATION_TEMPORALITY_DELTA"),
        (2, "AGGREGATION_TEMPORALITY_CUMULATIVE"),
    ],
};
