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
use crate::traceql::wanted::Wanted;

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
    Ok(match Packed::of(bytes, rows)? {
        Packed::Rows(packed) => Codes::Rows(codes::decode(packed, rows)?),
        Packed::Resources(codes) => Codes::Resources(codes),
        Packed::Scopes(codes) => Codes::Scopes(codes),
        Packed::Some { count, gaps, packed } => {
            let mut all: Arc<[u16]> = std::iter::repeat_n(0, rows).collect();
            let slots = Arc::get_mut(&mut all).unwrap_or_default();
            for (row, code) in rows_with_values(gaps, count, rows)?.into_iter().zip(&*codes::decode(packed, count)?) {
                *slots.get_mut(usize::from(row)).ok_or(DAMAGED)? = *code;
            }
            Codes::Rows(all)
        }
    })
}

/// As [`decode`], but codes of rows are those of the wanted ones alone, one for each: nothing is done for all others.
///
/// # Errors
/// The bytes are no codes of so many rows.
pub fn decode_some(bytes: &[u8], rows: usize, wanted: &mut Wanted<'_>) -> Result<Codes, FormatError> {
    let mut gathered = Vec::new();
    match Packed::of(bytes, rows)? {
        Packed::Rows(packed) => codes::gather(packed, rows, wanted.rows(), &mut gathered)?,
        Packed::Resources(codes) => return Ok(Codes::Resources(codes)),
        Packed::Scopes(codes) => return Ok(Codes::Scopes(codes)),
        Packed::Some { count, gaps, packed } => {
            let wanted_rows = wanted.rows().len();
            let hits = wanted.hits(gaps, || rows_with_values(gaps, count, rows))?;
            codes::gather(packed, count, &hits.values, &mut gathered)?;
            if hits.places.len() < wanted_rows {
                let mut all = vec![0; wanted_rows];
                for (place, code) in hits.places.iter().zip(gathered) {
                    *all.get_mut(usize::from(*place)).ok_or(DAMAGED)? = code;
                }
                gathered = all;
            }
        }
    }
    Ok(Codes::Rows(gathered.into()))
}

const DAMAGED: FormatError = FormatError::Damaged("codes of a column");

/// A column's codes, as far as they are read whoever wants which.
enum Packed<'a> {
    Rows(&'a [u8]),
    Resources(Arc<[u16]>),
    Scopes(Arc<[u16]>),
    /// Of `count` rows, which `gaps` are between.
    Some {
        count: usize,
        gaps: &'a [u8],
        packed: &'a [u8],
    },
}

impl<'a> Packed<'a> {
    fn of(bytes: &'a [u8], rows: usize) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let place = reader.byte().ok_or(DAMAGED)?;
        if place == ROWS {
            return Ok(Self::Rows(reader.rest()));
        }
        // Neither resources nor scopes are more than rows.
        let count = reader.length().filter(|count| *count <= rows).ok_or(DAMAGED)?;
        Ok(match place {
            RESOURCES => Self::Resources(codes::decode(reader.rest(), count)?),
            SCOPES => Self::Scopes(codes::decode(reader.rest(), count)?),
            SOME => {
                let gaps = numbers::written(&mut reader, count)?;
                Self::Some { count, gaps, packed: reader.rest() }
            }
            _ => return Err(DAMAGED),
        })
    }
}

fn rows_with_values(gaps: &[u8], count: usize, rows: usize) -> Result<Vec<u16>, FormatError> {
    let mut numbers = vec![0; count];
    numbers::read(&mut Reader::new(gaps), &mut numbers)?;
    let mut next = 0u64;
    let row_behind = |gap: u64| {
        let row = next.checked_add(gap).filter(|row| *row < rows as u64)?;
        next = row + 1;
        u16::try_from(row).ok()
    };
    numbers.into_iter().map(row_behind).collect::<Option<_>>().ok_or(DAMAGED)
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
            prop_assert_eq!(encode(&placed), Codes::Rows(sparse.clone().into()));
            for placed in [placed, Placed::Rows(sparse.clone().into())] {
                let mut out = Vec::new();
                assert!(put(&mut out, &placed));
                let wanted: Vec<u16> = (0..sparse.len() as u16).filter(|row| row % 5 < 2).collect();
                let expected: Vec<u16> = wanted.iter().map(|row| sparse[usize::from(*row)]).collect();
                let mut wanted = Wanted::new(&wanted);
                for _ in 0..2 {
                    let some = decode_some(&out, sparse.len(), &mut wanted);
                    prop_assert_eq!(some, Ok(Codes::Rows(expected.clone().into())));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, rows in 0usize..500) {
            let _ = decode(&bytes, rows);
            let _ = decode_some(&bytes, rows, &mut Wanted::new(&[0, 7, 300]));
        }
    }
}
