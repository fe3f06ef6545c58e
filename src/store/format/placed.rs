//! For which rows the codes of a column stand.
//!
//! ```text
//! 0: codes of all rows    1: count varint, codes of resources    2: the same of scopes
//! 3: count varint, numbers (gaps between rows that have a value), their codes
//! ```

use std::sync::Arc;

use super::{FormatError, Reader, codes, numbers};
use crate::otlp::wire::put_varint;
use crate::store::build::Placed;

const ROWS: u8 = 0;
const RESOURCES: u8 = 1;
const SCOPES: u8 = 2;
const SOME: u8 = 3;

/// Codes as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    Rows(Arc<[u16]>),
    Resources(Arc<[u16]>),
    Scopes(Arc<[u16]>),
}

/// `false`: the column has no codes.
pub fn put(out: &mut Vec<u8>, placed: &Placed) -> bool {
    match placed {
        Placed::Nowhere => return false,
        Placed::Rows(codes) => {
            out.push(ROWS);
            out.extend_from_slice(&codes::encode(codes));
        }
        Placed::Resources(codes) => put_groups(out, RESOURCES, codes),
        Placed::Scopes(codes) => put_groups(out, SCOPES, codes),
        Placed::Some { rows, codes } => {
            out.push(SOME);
            put_varint(out, rows.len() as u64);
            let mut next = 0;
            let gaps = rows.iter().map(|row| {
                let gap = u64::from(*row).saturating_sub(next);
                next = u64::from(*row) + 1;
                gap
            });
            numbers::put(out, &gaps.collect::<Vec<_>>());
            out.extend_from_slice(&codes::encode(codes));
        }
    }
    true
}

fn put_groups(out: &mut Vec<u8>, place: u8, codes: &[u16]) {
    out.push(place);
    put_varint(out, codes.len() as u64);
    out.extend_from_slice(&codes::encode(codes));
}

/// `rows`: of the segment.
///
/// # Errors
/// The bytes are no codes of so many rows.
pub fn decode(bytes: &[u8], rows: usize) -> Result<Codes, FormatError> {
    let damaged = FormatError::Damaged("codes of a column");
    let mut reader = Reader::new(bytes);
    let place = reader.byte().ok_or(damaged)?;
    if place == ROWS {
        return Ok(Codes::Rows(codes::decode(reader.rest(), rows)?));
    }
    // Neither resources nor scopes are more than rows.
    let count = reader.length().filter(|count| *count <= rows).ok_or(damaged)?;
    match place {
        RESOURCES => Ok(Codes::Resources(codes::decode(reader.rest(), count)?)),
        SCOPES => Ok(Codes::Scopes(codes::decode(reader.rest(), count)?)),
        SOME => {
            let mut gaps = vec![0; count];
            numbers::read(&mut reader, &mut gaps)?;
            let some = codes::decode(reader.rest(), count)?;
            let mut all: Arc<[u16]> = std::iter::repeat_n(0, rows).collect();
            let slots = Arc::get_mut(&mut all).unwrap_or_default();
            let mut row = 0u64;
            for (gap, code) in gaps.into_iter().zip(some.iter()) {
                row = row.checked_add(gap).ok_or(damaged)?;
                *usize::try_from(row).ok().and_then(|row| slots.get_mut(row)).ok_or(damaged)? = *code;
                row += 1;
            }
            Ok(Codes::Rows(all))
        }
        _ => Err(damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_codes_come_back(codes in proptest::collection::vec(0u16..400, 0..200), every in 1usize..9) {
            let all: Arc<[u16]> = codes.clone().into();
            let encode = |placed: &Placed| {
                let mut out = Vec::new();
                assert!(put(&mut out, placed));
                decode(&out, codes.len()).unwrap()
            };
            prop_assert_eq!(encode(&Placed::Rows(Arc::clone(&all))), Codes::Rows(Arc::clone(&all)));
            prop_assert_eq!(encode(&Placed::Resources(Arc::clone(&all))), Codes::Resources(Arc::clone(&all)));
            prop_assert_eq!(encode(&Placed::Scopes(Arc::clone(&all))), Codes::Scopes(Arc::clone(&all)));
            let sparse: Vec<u16> = codes.iter().enumerate().map(|(row, code)| if row % every == 0 { *code } else { 0 }).collect();
            let rows: Vec<u16> = (0..sparse.len() as u16).filter(|row| sparse[usize::from(*row)] != 0).collect();
            let some = rows.iter().map(|row| sparse[usize::from(*row)]).collect();
            let placed = Placed::Some { rows: rows.into(), codes: some };
            prop_assert_eq!(encode(&placed), Codes::Rows(sparse.into()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, rows in 0usize..500) {
            let _ = decode(&bytes, rows);
        }
    }
}
