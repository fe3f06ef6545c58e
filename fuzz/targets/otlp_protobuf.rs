//! Any bytes as an OTLP request in protobuf: refused by the scan, or counted, cut in two, thinned out and edited, with no
//! span lost or made. The first byte says where to cut and what to change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::otlp::edit::{self, Traces, Value};
use spanreel_fuzz::otlp::items::{count, request_of};
use spanreel_fuzz::otlp::scan::{is_valid, scan, trace_keys};
use spanreel_fuzz::otlp::split::{count_items, split};
use spanreel_fuzz::otlp::view::{promote_legacy_scopes, retain_spans};
use spanreel_fuzz::otlp::{Signal, json};

fuzz_target!(|data: &[u8]| {
    let Some((choice, request)) = data.split_first() else { return };
    for signal in [Signal::Metrics, Signal::Logs] {
        if let Ok(items) = count(signal, request) {
            cut(signal, request, items as usize, *choice);
        }
        let _ = json::message_to_json(request_of(signal), request);
    }
    let Ok(scanned) = scan(request) else { return };
    let request = if scanned.legacy_scopes { promote_legacy_scopes(request) } else { request.to_vec() };
    let valid = if scanned.invalid > 0 { retain_spans(&request, is_valid) } else { request };
    let again = scan(&valid).expect("what is left is fit to be stored");
    assert_eq!((again.spans, again.invalid, again.legacy_scopes), (scanned.spans, 0, false));
    let mut keys = Vec::new();
    trace_keys(&valid, &mut keys);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys, again.keys);
    cut(Signal::Traces, &valid, scanned.spans as usize, *choice);

    let whole = edit::whole(&valid).unwrap_or_else(|| valid.clone());
    let mut traces = Traces::parse(&whole);
    assert_eq!(traces.encode(), whole, "what nobody changed comes out as it came in");
    let spans = traces.span_count();
    let mut at = 0_u8;
    let removed = traces.retain_spans(|_, _, _| {
        at = at.wrapping_add(1);
        at & *choice == 0
    });
    for resource in traces.resources.iter_mut() {
        resource.resource.attributes_mut().upsert("put", Value::from("in"));
        for scope in resource.scopes.iter_mut() {
            for span in scope.spans.iter_mut() {
                span.attributes_mut().delete("a");
                span.set_name("changed".into());
            }
        }
    }
    let edited = scan(&traces.encode()).expect("what was edited is fit to be stored");
    assert_eq!(u64::from(edited.spans + edited.invalid) + removed, spans);
});

/// The two parts have what the whole has, and the first as much as was asked for.
fn cut(signal: Signal, request: &[u8], items: usize, choice: u8) {
    let at = items * usize::from(choice) / 255;
    let (left, right) = split(signal, request, at).expect("what was counted can be cut");
    let of = |part: &[u8]| count_items(signal, part).expect("a part can be counted");
    assert_eq!((of(&left), of(&right)), (at, items - at));
}
