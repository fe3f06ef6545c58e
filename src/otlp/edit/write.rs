//! Writing nested messages whose length is known only once they are written.

use crate::otlp::wire::{put_varint, varint_len};

/// Appends a length-delimited field that `write` fills. With about `expected_len` bytes nothing is moved afterwards.
pub(super) fn put_message(out: &mut Vec<u8>, number: u32, expected_len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(number) << 3 | 2);
    let (place, reserved) = (out.len(), varint_len(expected_len as u64));
    out.resize(place + reserved, 0);
    write(out);
    let len = out.len() - place - reserved;
    let mut header = [0; 10];
    let header = varint(len as u64, &mut header);
    // Only a length of another order of magnitude than expected takes another number of bytes.
    out.splice(place..place + reserved, header.iter().copied());
}

fn varint(mut value: u64, buffer: &mut [u8; 10]) -> &[u8] {
    let mut len = 0;
    for byte in buffer.iter_mut() {
        len += 1;
        if value < 0x80 {
            *byte = value as u8;
            break;
        }
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    &buffer[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::put_bytes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_is_the_same_whatever_length_was_expected(len in 0usize..40_000, expected in 0usize..40_000) {
            let payload = vec![7u8; len];
            let (mut written, mut plain) = (vec![1], vec![1]);
            put_message(&mut written, 5, expected, |out| out.extend_from_slice(&payload));
            put_bytes(&mut plain, 5, &payload);
            prop_assert_eq!(written, plain);
        }
    }
}
