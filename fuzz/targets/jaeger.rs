//! Any body in any of Jaeger's formats, which the first byte chooses: it is refused, or becomes a request that is fit to be
//! stored and within its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::otlp::scan::scan;
use spanreel_fuzz::receive::jaeger::convert::{Format, to_request};
use spanreel_fuzz::receive::thrift::Encoding;

const FORMATS: [Format; 4] =
    [Format::Protobuf, Format::Thrift, Format::AgentCall(Encoding::Binary), Format::AgentCall(Encoding::Compact)];
const BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    if let Ok(request) = to_request(FORMATS[usize::from(choice % 4)], body, BYTES_MAX) {
        assert!(request.len() <= BYTES_MAX);
        scan(&request).expect("what was converted is fit to be stored");
    }
});
