//! JSON as jsonpb writes Tempo's messages.

use std::io::Write as _;

use super::value::{put_json, typed_text};
use super::{Metrics, Shown, Tags};
use crate::otlp::json::{put_double, put_string};
use crate::query::body::Body;
use crate::query::call::Origin;
use crate::query::tail::Arrived;
use crate::traceql::answer::{
    Exemplar, FoundSpan, FoundSpanset, FoundTrace, Inspected, MetricsAnswer, Series, ValuesAnswer,
};
use crate::traceql::value::Value;

/// One trace of a `tempopb.SearchResponse`.
pub fn found_trace(out: &mut Body, trace: &FoundTrace, origin: Origin) {
    put_trace(out, Shown { trace, origin });
}

/// What stands in a `tempopb.SearchResponse` behind its traces.
pub fn end_of_search(out: &mut Body, inspected: &Inspected) {
    out.push(b']');
    Object { out, empty: false }.metrics(inspected);
    out.push(b'}');
}

/// `/api/spanreel/tail`: spans as searches show them, each with the id of its trace.
pub fn arrived(out: &mut Body, answer: &Arrived) {
    object(out, |members| {
        members.list("spans", &answer.spans, |out, (trace, span)| {
            object(out, |members| {
                put_span_members(members, span);
                members.text("traceID", &trace.to_string());
            });
        });
        members.long("next", answer.next);
        members.long("missedBatches", answer.missed_batches);
        members.long("leftOut", answer.left_out);
    });
}

/// `tempopb.SearchTagsResponse`.
pub fn tag_names(out: &mut Body, tags: &Tags) {
    object(out, |members| {
        members.list("tagNames", &tags.distinct(), |out, name| put_string(out, name));
        members.inspected_bytes(tags.inspected_bytes);
    });
}

/// `tempopb.SearchTagsV2Response`.
pub fn tag_names_v2(out: &mut Body, tags: &Tags) {
    object(out, |members| {
        members.list("scopes", &tags.scopes, |out, (scope, names)| {
            object(out, |members| {
                members.text("name", scope);
                members.list("tags", names, |out, name| put_string(out, name));
            });
        });
        members.inspected_bytes(tags.inspected_bytes);
    });
}

/// `tempopb.SearchTagValuesResponse`.
pub fn tag_values(out: &mut Body, answer: &ValuesAnswer) {
    object(out, |members| {
        members.list("tagValues", &answer.values, |out, value| put_string(out, &typed_text(value).1));
        members.inspected_bytes(answer.inspected_bytes);
    });
}

/// `tempopb.SearchTagValuesV2Response`.
pub fn tag_values_v2(out: &mut Body, answer: &ValuesAnswer) {
    object(out, |members| {
        members.list("tagValues", &answer.values, |out, value| {
            let (kind, text) = typed_text(value);
            object(out, |members| {
                members.text("type", kind);
                members.text("value", &text);
            });
        });
        members.inspected_bytes(answer.inspected_bytes);
    });
}

/// `tempopb.QueryRangeResponse`.
pub fn range(out: &mut Body, answer: &MetricsAnswer) {
    metrics(out, answer, |out, series| {
        object(out, |members| {
            members.labels(&series.labels);
            members.list("samples", &series.samples, |out, sample| {
                object(out, |members| {
                    members.long("timestampMs", sample.at_ms);
                    members.double("value", sample.value);
                });
            });
            if !series.exemplars.is_empty() {
                members.list("exemplars", &series.exemplars, put_exemplar);
            }
        });
    })
}

/// `tempopb.QueryInstantResponse`. A series without a value is none.
pub fn instant(out: &mut Body, answer: &MetricsAnswer) {
    metrics(out, answer, |out, series| {
        object(out, |members| {
            members.labels(&series.labels);
            if let Some(sample) = series.samples.first() {
                members.double("value", sample.value);
            }
        });
    })
}

fn metrics(out: &mut Body, answer: &MetricsAnswer, put: impl Fn(&mut Body, &Series)) {
    object(out, |members| {
        members.list("series", &answer.series, put);
        members.metrics(&answer.inspected);
        if let Some(message) = &answer.partial {
            members.text("status", "PARTIAL");
            members.text("message", message);
        }
    });
}

fn put_exemplar(out: &mut Body, exemplar: &Exemplar) {
    object(out, |members| {
        members.labels(&exemplar.labels);
        members.double("value", exemplar.value);
        members.long("timestampMs", exemplar.at_ms);
    });
}

fn put_trace(out: &mut Body, shown: Shown<'_>) {
    let trace: &FoundTrace = shown.trace;
    object(out, |members| {
        members.text("traceID", &trace.id.to_string());
        members.text("rootServiceName", shown.service());
        members.text("rootTraceName", shown.name());
        members.long("startTimeUnixNano", trace.start);
        members.number("durationMs", shown.duration_ms());
        if let Some(first) = shown.spansets().first() {
            members.name("spanSet");
            put_spanset(members.out, first);
            members.list("spanSets", shown.spansets(), put_spanset);
        }
        if !trace.services.is_empty() {
            members.name("serviceStats");
            object(members.out, |members| {
                for (service, stats) in &trace.services {
                    members.name(service);
                    object(members.out, |members| {
                        members.number("spanCount", stats.spans);
                        members.number("errorCount", stats.errors);
                    });
                }
            });
        }
    });
}

fn put_spanset(out: &mut Body, spanset: &FoundSpanset) {
    object(out, |members| {
        members.list("spans", &spanset.spans, put_span);
        members.number("matched", spanset.matched);
        if !spanset.attributes.is_empty() {
            members
                .list("attributes", &spanset.attributes, |out, (key, value)| put_attribute(out, key, value.as_ref()));
        }
    });
}

fn put_span(out: &mut Body, span: &FoundSpan) {
    object(out, |members| put_span_members(members, span));
}

fn put_span_members(members: &mut Object<'_>, span: &FoundSpan) {
    members.text("spanID", &span.id.to_string());
    members.text("name", span.name.as_deref().unwrap_or_default());
    members.long("startTimeUnixNano", span.start);
    members.long("durationNanos", span.duration);
    if !span.attributes.is_empty() {
        members.list("attributes", &span.attributes, |out, (key, value)| put_attribute(out, key, Some(value)));
    }
}

fn put_attribute(out: &mut Body, key: &str, value: Option<&Value>) {
    object(out, |members| {
        members.text("key", key);
        members.name("value");
        put_json(members.out, value);
    });
}

fn object(out: &mut Body, members: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    members(&mut Object { out, empty: true });
    out.push(b'}');
}

/// An object under way.
struct Object<'o> {
    out: &'o mut Body,
    empty: bool,
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        put_string(self.out, name);
        self.out.push(b':');
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            put_string(self.out, text);
        }
    }

    /// At most 32 bits.
    fn number(&mut self, name: &str, number: u32) {
        if number != 0 {
            self.name(name);
            self.put(format_args!("{number}"));
        }
    }

    /// 64 bits, which JavaScript cannot hold as a number.
    fn long(&mut self, name: &str, number: impl Into<i128>) {
        let number = number.into();
        if number != 0 {
            self.name(name);
            self.put(format_args!("\"{number}\""));
        }
    }

    fn double(&mut self, name: &str, number: f64) {
        // Of the zeros only the positive one is the default.
        if number.to_bits() != 0 {
            self.name(name);
            put_double(self.out, number);
        }
    }

    /// Written even if it is empty.
    fn list<T>(&mut self, name: &str, items: &[T], put: impl Fn(&mut Body, &T)) {
        self.name(name);
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            put(self.out, item);
            if !self.out.goes_on() {
                // Nobody gets to see it.
                return;
            }
        }
        self.out.push(b']');
    }

    fn labels(&mut self, labels: &[(String, Option<Value>)]) {
        if !labels.is_empty() {
            self.list("labels", labels, |out, (key, value)| put_attribute(out, key, value.as_ref()));
        }
    }

    /// Present even if there is nothing to tell.
    fn metrics(&mut self, inspected: &Inspected) {
        let metrics = Metrics::from(inspected);
        self.name("metrics");
        object(self.out, |members| {
            members.number("inspectedTraces", metrics.traces);
            members.long("inspectedBytes", metrics.bytes);
            members.number("totalBlocks", metrics.blocks);
            members.number("completedJobs", metrics.done);
            members.number("totalJobs", metrics.blocks);
            members.long("inspectedSpans", metrics.spans);
        });
    }

    fn inspected_bytes(&mut self, bytes: u64) {
        self.name("metrics");
        object(self.out, |members| members.long("inspectedBytes", bytes));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _ = self.out.write_fmt(text);
    }
}
