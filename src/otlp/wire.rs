//! The protobuf wire format, read in place.
//!
//! [`Fields`] walks one message and yields each field with its payload borrowed from the input. It allocates nothing,
//! never reads past the end, and reports where a malformed message stops making sense.

use thiserror::Error;

/// Where and why bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{problem} at byte {offset} of the message")]
pub struct WireError {
    /// Offset in the message handed to [`Fields::new`].
    pub offset: usize,
    pub problem: WireProblem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireProblem {
    #[error("a varint is cut off or longer than 64 bits")]
    Varint,
    #[error("a field is longer than the bytes that are left")]
    Truncated,
    #[error("a field number of 0 or beyond 29 bits")]
    FieldNumber,
    #[error("wire type {0} (groups and unknown types are not accepted)")]
    WireType(u8),
    #[error("messages are nested deeper than anything that is accepted")]
    Nesting,
}

/// What a field carries, by wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u32,
    pub payload: Payload<'a>,
    /// Tag, length and payload exactly as they stood: what to copy when a field is passed on verbatim.
    pub raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// The payload of a length-delimited field with this number.
    pub fn bytes(&self, number: u32) -> Option<&'a [u8]> {
        match self.payload {
            Payload::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }
}

/// An iterator over the fields of one message. After an error it ends.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, position: 0 }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, WireProblem> {
        // One byte is the common case by far: field tags and short lengths.
        if let Some(&first) = self.message.get(self.position)
            && first < 0x80
        {
            self.position += 1;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, WireProblem> {
        let rest = &self.message[self.position..];
        let mut value = 0u64;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                return Err(WireProblem::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.position += index + 1;
                return Ok(value);
            }
        }
        Err(WireProblem::Varint)
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<&'a [u8], WireProblem> {
        let rest = &self.message[self.position..];
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len()).ok_or(WireProblem::Truncated)?;
        self.position += len;
        Ok(&rest[..len])
    }

    // Inlined into every walk, so that payloads a caller does not match on are never built.
    #[inline(always)]
    fn field(&mut self) -> Result<Field<'a>, WireProblem> {
        let start = self.position;
        let tag = self.varint()?;
        // A tag has 32 bits: 29 of field number, 3 of wire type.
        let number = u32::try_from(tag).map_or(0, |tag| tag >> 3);
        if number == 0 {
            return Err(WireProblem::FieldNumber);
        }
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let len = self.varint()?;
                Payload::Bytes(self.take(len)?)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(self.fixed()?)),
            other => return Err(WireProblem::WireType(other as u8)),
        };
        Ok(Field { number, payload, raw: &self.message[start..self.position] })
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireProblem> {
        self.take(N as u64)?.try_into().map_err(|_| WireProblem::Truncated)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.message.len() {
            return None;
        }
        let offset = self.position;
        let result = self.field();
        if result.is_err() {
            self.position = self.message.len();
        }
        Some(result.map_err(|problem| WireError { offset, problem }))
    }
}

/// The fields of a message up to the first that is malformed: for messages that were scanned before. Inlined into every
/// walk, unlike `Fields` behind an adapter, which hands each field over through memory.
#[derive(Debug, Clone)]
pub struct SoundFields<'a>(Fields<'a>);

impl<'a> SoundFields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self(Fields::new(message))
    }
}

impl<'a> Iterator for SoundFields<'a> {
    type Item = Field<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Field<'a>> {
        self.0.next()?.ok()
    }
}

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] would append.
pub fn varint_len(value: u64) -> usize {
    // 7 bits a byte; zero takes one byte.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_header(out, number, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the tag and length of a length-delimited field whose `len` payload bytes the caller appends next.
pub fn put_header(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, len as u64);
}

/// Appends a varint field.
pub fn put_uint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a 64-bit fixed field.
pub fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of type double.
pub fn put_double_field(out: &mut Vec<u8>, number: u32, value: f64) {
    put_fixed64(out, number, value.to_bits());
}

/// Appends a 32-bit fixed field.
pub fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// How many bytes a length-delimited field of `payload_len` bytes takes with its tag and length.
pub fn field_len(number: u32, payload_len: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(payload_len as u64) + payload_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varint_length_is_what_is_written(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
        }

        #[test]
        fn raw_fields_put_end_to_end_are_the_message(values in proptest::collection::vec((1u32..1000, any::<u64>(), any::<Vec<u8>>()), 0..8)) {
            let mut message = Vec::new();
            for (number, value, payload) in &values {
                put_uint(&mut message, *number, *value);
                put_bytes(&mut message, *number, payload);
                put_fixed64(&mut message, *number, *value);
            }
            let joined: Vec<u8> = Fields::new(&message).flat_map(|field| field.unwrap().raw.to_vec()).collect();
            prop_assert_eq!(joined, message);
        }

        #[test]
        fn any_bytes_are_walked_without_panic_and_end(bytes: Vec<u8>) {
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn errors_say_where() {
        let error = Fields::new(&[0x0a, 0x01, b'x', 0x12, 0x7f]).find_map(Result::err).unwrap();
        assert_eq!(error, WireError { offset: 3, problem: WireProblem::Truncated });
        let error = Fields::new(&[0x0b]).find_map(Result::err).unwrap();
        assert_eq!(error.problem, WireProblem::WireType(3));
        let mut tag = Vec::new();
        put_varint(&mut tag, 1 << 32 | 0x0a);
        assert_eq!(Fields::new(&tag).find_map(Result::err).unwrap().problem, WireProblem::FieldNumber);
    }
}
