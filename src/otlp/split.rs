//! Cutting a request in two between items: spans, data points or log records.
//!
//! The items' bytes are copied verbatim. What surrounds a cut (resource, scope, schema URLs, the metric, unknown fields)
//! is repeated on both sides, so each side means for its items what the whole meant. Nothing else is repeated: where the
//! cut falls between two resources, scopes or metrics, each goes to one side.

use super::signal::Signal;
use super::wire::{Fields, WireError, field_len, put_header};

/// The fields that lead towards the items, from the request down: resources, scopes, spans or log records.
const PATH: &[&[u32]] = &[&[1], &[2], &[2]];
/// Data points lie one message deeper, in one of a metric's five alternatives.
const METRICS_PATH: &[&[u32]] = &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]];

fn path_of(signal: Signal) -> &'static [&'static [u32]] {
    match signal {
        Signal::Traces | Signal::Logs => PATH,
        Signal::Metrics => METRICS_PATH,
    }
}

/// The first `at_items` items of `request`, and the others. Fields of the request itself that are not known are on
/// both sides. With `at_items` of zero, or of all items and more, one side holds none.
///
/// # Errors
/// If `request` is not well-formed protobuf down to its items.
pub fn split(signal: Signal, request: &[u8], at_items: usize) -> Result<(Vec<u8>, Vec<u8>), WireError> {
    let mut left_items = at_items;
    cut(request, path_of(signal), &mut left_items)
}

/// How many items a request holds.
///
/// # Errors
/// If `request` is not well-formed protobuf down to its items.
pub fn count_items(signal: Signal, request: &[u8]) -> Result<usize, WireError> {
    count(request, path_of(signal))
}

fn count(message: &[u8], path: &[&[u32]]) -> Result<usize, WireError> {
    let [numbers, deeper @ ..] = path else { return Ok(1) };
    let mut items = 0;
    for field in Fields::new(message) {
        let field = field?;
        if let Some(payload) = field.bytes(field.number).filter(|_| numbers.contains(&field.number)) {
            items += count(payload, deeper)?;
        }
    }
    Ok(items)
}

/// Cuts one message of the path after the next `left_items` items, which it counts down.
fn cut(message: &[u8], path: &[&[u32]], left_items: &mut usize) -> Result<(Vec<u8>, Vec<u8>), WireError> {
    let [numbers, deeper @ ..] = path else { return Ok((message.to_vec(), Vec::new())) };
    let (mut left, mut right) = (Vec::with_capacity(message.len()), Vec::new());
    for field in Fields::new(message) {
        let field = field?;
        let Some(payload) = field.bytes(field.number).filter(|_| numbers.contains(&field.number)) else {
            left.extend_from_slice(field.raw);
            right.extend_from_slice(field.raw);
            continue;
        };
        if *left_items == 0 {
            right.extend_from_slice(field.raw);
            continue;
        }
        let items = count(payload, deeper)?;
        if items <= *left_items {
            *left_items -= items;
            left.extend_from_slice(field.raw);
        } else {
            let (inner_left, inner_right) = cut(payload, deeper, left_items)?;
            for (side, inner) in [(&mut left, inner_left), (&mut right, inner_right)] {
                side.reserve(field_len(field.number, inner.len()));
                put_header(side, field.number, inner.len());
                side.extend_from_slice(&inner);
            }
        }
    }
    Ok((left, right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::{put_bytes, put_uint};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;

    /// Resources with scopes with span names, as protobuf with an unknown field at every level.
    fn encode(resources: &[Vec<Vec<u32>>]) -> Vec<u8> {
        let mut request = Vec::new();
        put_uint(&mut request, 99, 1);
        for (resource, scopes) in resources.iter().enumerate() {
            let mut resource_spans = Vec::new();
            put_bytes(&mut resource_spans, 1, &[0x10, resource as u8 & 0x7f]);
            for (scope, spans) in scopes.iter().enumerate() {
                let mut scope_spans = Vec::new();
                let (mut name, mut scope_message) = (Vec::new(), Vec::new());
                name.extend_from_slice(format!("scope {resource} {scope}").as_bytes());
                put_bytes(&mut scope_message, 1, &name);
                put_bytes(&mut scope_spans, 1, &scope_message);
                for span in spans {
                    let mut message = Vec::new();
                    put_bytes(&mut message, 5, span.to_string().as_bytes());
                    put_uint(&mut message, 77, u64::from(*span));
                    put_bytes(&mut scope_spans, 2, &message);
                }
                put_bytes(&mut scope_spans, 3, b"scope url");
                put_bytes(&mut resource_spans, 2, &scope_spans);
            }
            put_bytes(&mut resource_spans, 3, b"resource url");
            put_uint(&mut resource_spans, 88, 7);
            put_bytes(&mut request, 1, &resource_spans);
        }
        request
    }

    /// Every span's bytes, each after the bytes of what surrounds it.
    fn flatten(request: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fields = |message| Fields::new(message).map(Result::unwrap);
        let mut out = Vec::new();
        for resource in fields(request).filter_map(|field| field.bytes(1)) {
            let around: Vec<u8> =
                fields(resource).filter(|field| field.number != 2).flat_map(|field| field.raw.to_vec()).collect();
            for scope in fields(resource).filter_map(|field| field.bytes(2)) {
                let mut around = around.clone();
                around.extend(fields(scope).filter(|field| field.number != 2).flat_map(|field| field.raw.to_vec()));
                for span in fields(scope).filter_map(|field| field.bytes(2)) {
                    out.push((around.clone(), span.to_vec()));
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn both_sides_hold_every_span_once_and_in_order(
            resources in vec(vec(vec(any::<u32>(), 0..6), 0..4), 0..4),
            at in 0usize..40,
        ) {
            let request = encode(&resources);
            let whole = flatten(&request);
            prop_assert_eq!(count_items(Signal::Traces, &request).unwrap(), whole.len());
            let (left, right) = split(Signal::Traces, &request, at).unwrap();
            let (mut spans, rest) = (flatten(&left), flatten(&right));
            prop_assert_eq!(spans.len(), at.min(whole.len()));
            spans.extend(rest);
            prop_assert_eq!(spans, whole);
            // The unknown field of the request is on both sides, and both sides are real requests.
            for side in [&left, &right] {
                prop_assert!(side.starts_with(&[0x98, 0x06, 0x01]));
                prop_assert!(ExportTraceServiceRequest::decode(side.as_slice()).is_ok());
            }
        }

        #[test]
        fn any_bytes_are_refused_or_cut_without_panic(bytes: Vec<u8>, at in 0usize..10) {
            let _ = Signal::ALL.map(|signal| split(signal, &bytes, at));
        }
    }

    #[test]
    fn a_cut_between_resources_repeats_nothing() {
        let request = encode(&[vec![vec![1, 2]], vec![vec![3]]]);
        let (left, right) = split(Signal::Traces, &request, 2).unwrap();
        // The two sides together are the request plus the repeated unknown field.
        assert_eq!(left.len() + right.len(), request.len() + 3);
    }
}
