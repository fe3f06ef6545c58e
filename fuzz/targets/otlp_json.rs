//! Any text as an OTLP request in JSON: it is refused, or becomes bytes that the scan can judge; what the scan takes is
//! written as JSON again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::otlp::json::{JsonLimits, json_to_protobuf, protobuf_to_otlp_json};
use spanreel_fuzz::otlp::scan::scan;

fuzz_target!(|body: &[u8]| {
    let limits = JsonLimits::for_body(body.len());
    if let Ok(request) = json_to_protobuf(body, &limits) {
        assert!(request.len() <= limits.held_bytes_max);
        if scan(&request).is_ok() {
            protobuf_to_otlp_json(&request).expect("what was taken can be written");
        }
    }
});
