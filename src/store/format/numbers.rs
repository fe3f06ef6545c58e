//! Arrays of `u64`: the least is taken off, what is left is packed into as many bits as its block needs.
//!
//! ```text
//! base varint   block of 64: width u8 (0..=64), 64 x width bits (little endian)   ...   the last block may be shorter
//! ```

use super::{FormatError, Reader};
use crate::otlp::wire::put_varint;

/// Short, so that one long span does not widen many others.
const BLOCK: usize = 64;
const DAMAGED: FormatError = FormatError::Damaged("numbers");

pub fn put(out: &mut Vec<u8>, values: &[u64]) {
    let base = values.iter().copied().min().unwrap_or(0);
    put_varint(out, base);
    for block in values.chunks(BLOCK) {
        let all = block.iter().fold(0, |all, value| all | (value - base));
        let width = u64::BITS - all.leading_zeros();
        out.push(width as u8);
        put_bits(out, block, base, width);
    }
}

fn put_bits(out: &mut Vec<u8>, block: &[u64], base: u64, width: u32) {
    // At most 7 bits wait, so 128 bits always have room.
    let (mut waiting, mut count) = (0u128, 0);
    for value in block {
        waiting |= u128::from(value - base) << count;
        count += width;
        while count >= 8 {
            out.push(waiting as u8);
            waiting >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        out.push(waiting as u8);
    }
}

/// Fills `values` from the front of the reader.
///
/// # Errors
/// There are not so many numbers.
pub(crate) fn read(reader: &mut Reader<'_>, values: &mut [u64]) -> Result<(), FormatError> {
    let base = reader.varint().ok_or(DAMAGED)?;
    // A word may be read up to 8 bytes past the block's last one.
    let mut padded = [0; BLOCK * 8 + 8];
    for block in values.chunks_mut(BLOCK) {
        let width = u32::from(reader.byte().ok_or(DAMAGED)?);
        if width > u64::BITS {
            return Err(DAMAGED);
        }
        let bytes = reader.take((block.len() * width as usize).div_ceil(8)).ok_or(DAMAGED)?;
        let (used, rest) = padded.split_at_mut(bytes.len());
        used.copy_from_slice(bytes);
        rest[..8].fill(0);
        unpack(&padded, block, base, width);
    }
    Ok(())
}

/// The bytes of so many numbers, as they were written.
///
/// # Errors
/// There are not so many.
pub(crate) fn written<'a>(reader: &mut Reader<'a>, count: usize) -> Result<&'a [u8], FormatError> {
    let begin = reader.rest();
    reader.varint().ok_or(DAMAGED)?;
    for block in (0..count).step_by(BLOCK) {
        let width = usize::from(reader.byte().ok_or(DAMAGED)?);
        reader.take((BLOCK.min(count - block) * width).div_ceil(8)).ok_or(DAMAGED)?;
    }
    begin.get(..begin.len() - reader.left()).ok_or(DAMAGED)
}

fn unpack(padded: &[u8; BLOCK * 8 + 8], block: &mut [u64], base: u64, width: u32) {
    let width = width as usize;
    let word = |at: usize| {
        let bytes = padded[at..at + 8].first_chunk::<8>();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    // Up to 57 bits and 7 of the byte before fit in one word.
    if width <= 57 {
        let mask = (1u64 << width) - 1;
        for (index, value) in block.iter_mut().enumerate() {
            let bit = index * width;
            *value = base.wrapping_add((word(bit / 8) >> (bit % 8)) & mask);
        }
    } else {
        let mask = u64::MAX >> (64 - width);
        for (index, value) in block.iter_mut().enumerate() {
            let bit = index * width;
            let wide = u128::from(word(bit / 8)) | u128::from(padded[(bit / 8 + 8).min(padded.len() - 1)]) << 64;
            *value = base.wrapping_add((wide >> (bit % 8)) as u64 & mask);
        }
    }
}

/// The greatest of a second's usual fractions that divides all: clocks of many SDKs count micro- or milliseconds.
pub fn common_unit(values: impl Iterator<Item = u64> + Clone) -> Unit {
    let divides = |unit: &Unit| values.clone().all(|value| value.is_multiple_of(unit.nanos()));
    [Unit::Milli, Unit::Micro].into_iter().find(divides).unwrap_or(Unit::Nano)
}

/// What times are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Nano,
    Micro,
    Milli,
}

impl Unit {
    pub fn nanos(self) -> u64 {
        match self {
            Self::Nano => 1,
            Self::Micro => 1_000,
            Self::Milli => 1_000_000,
        }
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Nano, Self::Micro, Self::Milli].get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let value = (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift);
        proptest::collection::vec(value, 0..300)
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(values in numbers(), narrow in 0u32..64) {
            for values in [values.clone(), values.iter().map(|value| 7 + (value >> narrow) / 2).collect()] {
                let mut out = Vec::new();
                put(&mut out, &values);
                let mut back = vec![0; values.len()];
                let mut reader = Reader::new(&out);
                read(&mut reader, &mut back).unwrap();
                prop_assert_eq!(back, &values[..]);
                prop_assert!(reader.is_empty());
                out.push(7);
                let written = written(&mut Reader::new(&out), values.len()).unwrap();
                prop_assert_eq!(written, &out[..out.len() - 1]);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, count in 0usize..1000) {
            let mut values = vec![0; count];
            let is_read = read(&mut Reader::new(&bytes), &mut values).is_ok();
            prop_assert!(!is_read || written(&mut Reader::new(&bytes), count).is_ok());
        }

        #[test]
        fn the_unit_divides_all(values in proptest::collection::vec(0u64..1 << 40, 0..9), scale in 0u8..3) {
            let scale = Unit::from_code(scale).unwrap();
            let values: Vec<u64> = values.iter().map(|value| value * scale.nanos()).collect();
            let unit = common_unit(values.iter().copied());
            prop_assert!(unit.nanos() >= scale.nanos());
            prop_assert!(values.iter().all(|value| value % unit.nanos() == 0));
        }
    }
}
