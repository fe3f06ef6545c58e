//! Any bytes as the body of a unary gRPC call: one whole message within its limit, or an error that says what is wrong.
//! The first byte is the limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::receive::framing::{FrameError, PREFIX_LEN, unframe};

fuzz_target!(|data: &[u8]| {
    let Some((max, body)) = data.split_first() else { return };
    let max = usize::from(*max);
    match unframe(body.to_vec().into(), max) {
        Ok(framed) => {
            assert!(framed.message.len() <= max);
            let mut again = vec![u8::from(framed.is_compressed)];
            again.extend((framed.message.len() as u32).to_be_bytes());
            again.extend_from_slice(&framed.message);
            assert_eq!(again, body, "nothing else is in it");
        }
        Err(FrameError::Prefix(len)) => assert!(len == body.len() && len < PREFIX_LEN),
        Err(FrameError::TooLarge { announced, .. }) => assert!(announced > max),
        Err(FrameError::Length { announced, came }) => assert!(announced != came && announced <= max),
        Err(FrameError::Flag(flag)) => assert!(flag > 1),
    }
});
