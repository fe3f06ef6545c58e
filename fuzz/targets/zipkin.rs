//! Any body in any of Zipkin's formats, which the first byte chooses: it is refused, or becomes a request that is fit to be
//! stored and within its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::otlp::scan::scan;
use spanreel_fuzz::receive::zipkin::convert::{Format, Rules, to_request};

const FORMATS: [Format; 4] = [Format::JsonV2, Format::ProtobufV2, Format::JsonV1, Format::ThriftV1];
const BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let format = FORMATS[usize::from(choice % 4)];
    let rules = Rules { parse_string_tags: choice & 4 != 0 };
    if let Ok(request) = to_request(format, body, rules, 1, BYTES_MAX) {
        assert!(request.len() <= BYTES_MAX);
        scan(&request).expect("what was converted is fit to be stored");
    }
});
