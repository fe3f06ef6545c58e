//! Any bytes as a compressed body, in the encoding that the first byte chooses: inflated within the limit and what is
//! reserved for it, bombs included, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::receive::admission::Admission;
use spanreel_fuzz::receive::inflate::{Encoding, InflateError, inflate};

const ENCODINGS: [Encoding; 6] =
    [Encoding::Gzip, Encoding::Zstd, Encoding::Deflate, Encoding::Snappy, Encoding::Identity, Encoding::Lz4];
const BODY_BYTES_MAX: usize = 256 * 1024;
/// What is left beside the others is less than the largest body takes.
const ROOM_BYTES: usize = 512 * 1024;
const OTHERS_BYTES: usize = 312 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let encoding = ENCODINGS[usize::from(choice % 6)];
    let admission = Admission::new(ROOM_BYTES);
    let _others = admission.try_reserve(OTHERS_BYTES).expect("all is free");
    let mut room = admission.try_reserve(body.len()).expect("enough is free");
    match inflate(encoding, body.to_vec().into(), BODY_BYTES_MAX, &mut room) {
        Ok(inflated) => {
            assert!(inflated.len() <= BODY_BYTES_MAX);
            let paid = admission.bytes_in_flight() - OTHERS_BYTES;
            assert!(inflated.len() <= paid, "{} bytes, and {paid} paid for", inflated.len());
        }
        Err(InflateError::TooLarge { max }) => assert_eq!(max, BODY_BYTES_MAX),
        Err(InflateError::NoRoom | InflateError::Corrupt { .. }) => {}
    }
});
