//! Writing nested messages whose length is known only once they are written, and copying what stays as it is.

use crate::otlp::wire::{Field, put_varint, varint_len};

/// Fields of a message that are passed on verbatim: those that stand together are copied at once.
pub(super) struct Verbatim<'a> {
    message: &'a [u8],
    /// What waits to be copied.
    from: usize,
    to: usize,
}

impl<'a> Verbatim<'a> {
    /// To be told of every field of the message, in order.
    pub fn of(message: &'a [u8]) -> Self {
        Self { message, from: 0, to: 0 }
    }

    pub fn keep(&mut self, field: &Field<'a>) {
        self.to += field.raw.len();
    }

    /// What waits must have been put.
    pub fn leave_out(&mut self, field: &Field<'a>) {
        self.to += field.raw.len();
        self.from = self.to;
    }

    pub fn put(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.message.get(self.from..self.to).unwrap_or_default());
        self.from = self.to;
    }
}

/// Appends a length-delimited field that `write` fills. With about `expected_len` bytes nothing is moved afterwards.
pub(super) fn put_message(out: &mut Vec<u8>, number: u32, expected_len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(number) << 3 | 2);
    let (place, reserved) = (out.len(), varint_len(expected_len as u64));
    out.resize(place + reserved, 0);
    write(out);
    let len = out.len() - place - reserved;
    let mut header = [0; 10];
    let header = varint(len as u64, &mut header);
    match out.get_mut(place..place + reserved) {
        Some(length) if length.len() == header.len() => length.copy_from_slice(header),
        // Only a length of another order of magnitude than expected takes another number of bytes.
        _ => drop(out.splice(place..place + reserved, header.iter().copied())),
    }
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
