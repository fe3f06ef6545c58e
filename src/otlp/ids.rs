//! Trace and span ids as fixed-size values.

use std::fmt;

/// A trace id: 16 bytes, never all zero when it comes out of [`TraceId::from_wire`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// A span id: 8 bytes, never all zero when it comes out of [`SpanId::from_wire`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// The id in a protobuf field, or `None` if it is not 16 bytes or is all zero (both invalid by the OTLP spec).
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let id: [u8; 16] = bytes.try_into().ok()?;
        (id != [0; 16]).then_some(Self(id))
    }

    /// 32 bits that spread evenly for ids of any making (random, time-prefixed, 64-bit with zeros in front). Part of the
    /// format on disk: it must not change.
    pub fn fingerprint(self) -> u32 {
        (self.long_fingerprint() >> 32) as u32
    }

    /// As [`Self::fingerprint`], which is its upper half, of 64 bits.
    pub fn long_fingerprint(self) -> u64 {
        let id = u128::from_be_bytes(self.0);
        // Two odd factors, so that equal halves do not cancel; then the finish of splitmix64.
        let mut mixed =
            (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((id >> 64) as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }
}

impl SpanId {
    /// The id in a protobuf field, or `None` if it is not 8 bytes or is all zero (both invalid by the OTLP spec).
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let id: [u8; 8] = bytes.try_into().ok()?;
        (id != [0; 8]).then_some(Self(id))
    }
}

/// Bytes written as exactly their hexadecimal digits, in any case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    (text.len() == 2 * N).then(|| from_hex_padded(text))?
}

/// As [`from_hex`], where leading zeros may be missing; at least one digit.
pub fn from_hex_padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.is_empty() || text.len() > 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().rev().zip(text.as_bytes().rchunks(2)) {
        for digit in digits {
            *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
        }
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_with_its_leading_zeros_or_without() {
        assert_eq!(from_hex("00Ff0a"), Some([0, 255, 10]));
        assert_eq!(from_hex::<3>("ff0a"), None);
        assert_eq!(from_hex_padded("f0a"), Some([0, 15, 10]));
        assert_eq!(from_hex_padded::<2>(""), None);
        assert_eq!(from_hex_padded::<2>("12345"), None);
        assert_eq!(from_hex_padded::<2>("-1"), None);
        assert_eq!(from_hex_padded::<2>("é"), None);
    }
}
