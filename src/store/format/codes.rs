//! Codes of a column: packed into 1, 2, 4, 8 or 16 bits, whichever is the least that holds them all, and then left to zstd.
//!
//! ```text
//! bits u8   packed, low bits first        16 bits: all low bytes, then all high bytes
//! ```
//!
//! Packing before compressing is faster both ways than zstd alone, and lets it spend less than a bit on a common code.

use std::sync::Arc;

use super::FormatError;

const DAMAGED: FormatError = FormatError::Damaged("codes");

pub fn encode(codes: &[u16]) -> Vec<u8> {
    let all = codes.iter().fold(0, |all, code| all | code);
    let bits = match u16::BITS - all.leading_zeros() {
        0 | 1 => 1,
        2 => 2,
        3..=4 => 4,
        5..=8 => 8,
        _ => 16u8,
    };
    let mut out = Vec::with_capacity(1 + codes.len() * usize::from(bits) / 8 + 1);
    out.push(bits);
    match bits {
        16 => {
            out.extend(codes.iter().map(|code| *code as u8));
            out.extend(codes.iter().map(|code| (*code >> 8) as u8));
        }
        8 => out.extend(codes.iter().map(|code| *code as u8)),
        _ => {
            let packed = codes
                .chunks(usize::from(8 / bits))
                .map(|group| group.iter().rev().fold(0, |byte: u8, code| byte << bits | *code as u8));
            out.extend(packed);
        }
    }
    out
}

/// # Errors
/// There are not `count` codes.
pub fn decode(bytes: &[u8], count: usize) -> Result<Arc<[u16]>, FormatError> {
    let (bits, packed) = bytes.split_first().ok_or(DAMAGED)?;
    if packed.len() != (count * usize::from(*bits)).div_ceil(8) {
        return Err(DAMAGED);
    }
    Ok(match bits {
        16 => {
            let (low, high) = packed.split_at(count);
            low.iter().zip(high).map(|(low, high)| u16::from(*low) | u16::from(*high) << 8).collect()
        }
        8 => unpack::<8, 1>(packed, count),
        4 => unpack::<4, 2>(packed, count),
        2 => unpack::<2, 4>(packed, count),
        1 => unpack::<1, 8>(packed, count),
        _ => return Err(DAMAGED),
    })
}

/// The codes at these places alone, one after the other.
///
/// # Errors
/// There are not `count` codes, or not so many that one is at each place.
pub fn gather(bytes: &[u8], count: usize, places: &[u16], out: &mut Vec<u16>) -> Result<(), FormatError> {
    let (bits, packed) = bytes.split_first().ok_or(DAMAGED)?;
    if packed.len() != (count * usize::from(*bits)).div_ceil(8)
        || places.iter().any(|place| usize::from(*place) >= count)
    {
        return Err(DAMAGED);
    }
    let byte = |at: usize| packed.get(at).copied().map_or(0, u16::from);
    let narrow = |place: &u16, bits: usize| {
        let bit = usize::from(*place) * bits;
        (byte(bit / 8) >> (bit % 8)) & ((1 << bits) - 1)
    };
    let places = places.iter();
    match bits {
        16 => out.extend(places.map(|place| byte(usize::from(*place)) | byte(count + usize::from(*place)) << 8)),
        8 => out.extend(places.map(|place| byte(usize::from(*place)))),
        4 => out.extend(places.map(|place| narrow(place, 4))),
        2 => out.extend(places.map(|place| narrow(place, 2))),
        1 => out.extend(places.map(|place| narrow(place, 1))),
        _ => return Err(DAMAGED),
    }
    Ok(())
}

/// `PER_BYTE` codes of `BITS` bits make a byte. Groups of a fixed size become wide instructions.
fn unpack<const BITS: usize, const PER_BYTE: usize>(packed: &[u8], count: usize) -> Arc<[u16]> {
    let mask = (1u16 << BITS) - 1;
    let unpacked = |byte: u8, index: usize| (u16::from(byte) >> (index * BITS)) & mask;
    let mut codes: Arc<[u16]> = std::iter::repeat_n(0, count).collect();
    // Nobody else has it yet.
    let (groups, rest) = Arc::get_mut(&mut codes).unwrap_or_default().as_chunks_mut::<PER_BYTE>();
    let (whole, last) = packed.split_at(groups.len().min(packed.len()));
    for (group, byte) in groups.iter_mut().zip(whole) {
        *group = std::array::from_fn(|index| unpacked(*byte, index));
    }
    if let Some(byte) = last.first() {
        rest.iter_mut().enumerate().for_each(|(index, code)| *code = unpacked(*byte, index));
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_codes_come_back(codes: Vec<u16>, narrow in 0u32..17) {
            let codes: Vec<u16> = codes.iter().map(|code| code.checked_shr(narrow).unwrap_or(0)).collect();
            let encoded = encode(&codes);
            prop_assert_eq!(&*decode(&encoded, codes.len()).unwrap(), &codes[..]);
            prop_assert_eq!(decode(&encoded, codes.len() + 16), Err(DAMAGED));
            let (mut gathered, places): (_, Vec<u16>) = (Vec::new(), (0..codes.len() as u16).step_by(3).collect());
            gather(&encoded, codes.len(), &places, &mut gathered).unwrap();
            prop_assert_eq!(gathered, codes.iter().copied().step_by(3).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, count in 0usize..1000) {
            if let Ok(codes) = decode(&bytes, count) {
                prop_assert_eq!(codes.len(), count);
            }
            let _ = gather(&bytes, count, &[0, 7, 300], &mut Vec::new());
        }
    }
}
