//! Columns that every segment has, and how rows are cut into slices.
//!
//! ```text
//! ids          8 bytes a row, count varint, parents that are not the id of the parent's row: gap varint, 8 bytes (0: none)
//! starts       unit u8, count varint, numbers (starts of traces), numbers (1 + distance to the row before; 0: next of those)
//! durations    unit u8, numbers
//! parents      0: codes, 1: numbers; a row has 0: none, 1: elsewhere, 2 + zigzag(row - parent's row)
//! traces       count varint, numbers (spans of each), 16 bytes each
//! ```
//! The first four are of one slice, the last is of the whole segment.

use std::ops::Range;

use super::numbers::{self, Unit, common_unit};
use super::{FormatError, Reader, codes, zigzag};
use crate::otlp::wire::put_varint;
use crate::otlp::{SpanId, TraceId};
use crate::traceql::column::ROWS_MAX;
use crate::traceql::segment::{Ids, Parent, Traces};

/// What is read, at the least, to show one trace.
pub use crate::traceql::segment::SLICE_ROWS;

/// The slices that hold these rows.
pub fn slices_of(rows: Range<usize>) -> Range<usize> {
    if rows.is_empty() { 0..0 } else { rows.start / SLICE_ROWS..(rows.end - 1) / SLICE_ROWS + 1 }
}

/// The rows of a slice, of a segment of `rows` rows.
pub fn rows_of(slice: usize, rows: usize) -> Range<usize> {
    (slice * SLICE_ROWS).min(rows)..((slice + 1) * SLICE_ROWS).min(rows)
}

/// `near` is the id of the row that [`Parent::Row`] means, for a row by its index in `ids`.
pub fn put_ids(out: &mut Vec<u8>, ids: &[Ids], near: impl Fn(usize) -> Option<SpanId>) {
    ids.iter().for_each(|ids| out.extend_from_slice(&ids.span.0));
    let others = ids.iter().enumerate().filter(|(row, ids)| ids.parent != near(*row));
    put_varint(out, others.clone().count() as u64);
    let mut next = 0;
    for (row, ids) in others {
        put_varint(out, (row - next) as u64);
        out.extend_from_slice(&ids.parent.map_or([0; 8], |id| id.0));
        next = row + 1;
    }
}

/// Ids of one slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceIds {
    pub spans: Vec<SpanId>,
    /// Rows whose parent is not the id of the row that is their parent.
    others: Vec<(usize, Option<SpanId>)>,
}

impl SliceIds {
    /// The rows from this one on whose parent is not the id of the row that is their parent, and that parent.
    pub fn others(&self, from: usize) -> impl Iterator<Item = (usize, Option<SpanId>)> {
        let first = self.others.partition_point(|(row, _)| *row < from);
        self.others.iter().skip(first).copied()
    }

    /// The parent of a row, by its index in the slice; `near` as when it was written.
    pub fn parent(&self, row: usize, near: Option<SpanId>) -> Option<SpanId> {
        match self.others.binary_search_by_key(&row, |(row, _)| *row) {
            Ok(index) => self.others.get(index).and_then(|(_, parent)| *parent),
            Err(_) => near,
        }
    }
}

/// # Errors
/// There are not as many ids as rows.
pub fn read_ids(bytes: &[u8], rows: usize) -> Result<SliceIds, FormatError> {
    let read = || {
        let mut reader = Reader::new(bytes);
        let (spans, _) = reader.take(rows * 8)?.as_chunks::<8>();
        let count = reader.length().filter(|count| *count <= rows)?;
        let mut others = Vec::with_capacity(count);
        let mut next = 0usize;
        for _ in 0..count {
            let row = next.checked_add(reader.length()?).filter(|row| *row < rows)?;
            others.push((row, SpanId::from_wire(reader.take(8)?)));
            next = row + 1;
        }
        reader.is_empty().then(|| SliceIds { spans: spans.iter().map(|id| SpanId(*id)).collect(), others })
    };
    read().ok_or(FormatError::Damaged("span ids"))
}

/// `begins` says of a row (by its index in `starts`) whether a trace begins there.
pub fn put_starts(out: &mut Vec<u8>, starts: &[u64], begins: impl Fn(usize) -> bool) {
    let unit = common_unit(starts.iter().copied());
    let mut firsts = Vec::new();
    let mut distances = Vec::with_capacity(starts.len());
    let mut before = None;
    for (row, start) in starts.iter().enumerate() {
        let start = start / unit.nanos();
        // Within a trace rows are sorted by start; what is not is encoded all the same.
        let distance = before.filter(|_| !begins(row)).and_then(|before| start.checked_sub(before)?.checked_add(1));
        if distance.is_none() {
            firsts.push(start);
        }
        distances.push(distance.unwrap_or(0));
        before = Some(start);
    }
    out.push(unit.code());
    put_varint(out, firsts.len() as u64);
    numbers::put(out, &firsts);
    numbers::put(out, &distances);
}

/// # Errors
/// There are not as many starts as rows.
pub fn read_starts(bytes: &[u8], starts: &mut [u64]) -> Result<(), FormatError> {
    let damaged = FormatError::Damaged("start times");
    let mut reader = Reader::new(bytes);
    let unit = reader.byte().and_then(Unit::from_code).ok_or(damaged)?.nanos();
    let count = reader.length().filter(|count| *count <= starts.len()).ok_or(damaged)?;
    let mut firsts = vec![0; count];
    numbers::read(&mut reader, &mut firsts)?;
    numbers::read(&mut reader, starts)?;
    let mut firsts = firsts.iter();
    let mut before = 0u64;
    for start in starts.iter_mut() {
        before = match start.checked_sub(1) {
            Some(distance) => before.wrapping_add(distance.wrapping_mul(unit)),
            None => firsts.next().ok_or(damaged)?.wrapping_mul(unit),
        };
        *start = before;
    }
    Ok(())
}

pub fn put_durations(out: &mut Vec<u8>, durations: &[u64]) {
    let unit = common_unit(durations.iter().copied());
    out.push(unit.code());
    if unit == Unit::Nano {
        numbers::put(out, durations);
    } else {
        let counted: Vec<u64> = durations.iter().map(|duration| duration / unit.nanos()).collect();
        numbers::put(out, &counted);
    }
}

/// # Errors
/// There are not as many durations as rows.
pub fn read_durations(bytes: &[u8], durations: &mut [u64]) -> Result<(), FormatError> {
    let mut reader = Reader::new(bytes);
    let unit = reader.byte().and_then(Unit::from_code).ok_or(FormatError::Damaged("durations"))?;
    numbers::read(&mut reader, durations)?;
    if unit != Unit::Nano {
        durations.iter_mut().for_each(|duration| *duration = duration.wrapping_mul(unit.nanos()));
    }
    Ok(())
}

const ROOT: u64 = 0;
const AWAY: u64 = 1;
const NEAR: u64 = 2;

const CODES: u8 = 0;
const NUMBERS: u8 = 1;

/// `first_row`: the segment's row of the first of them.
pub fn put_parents(out: &mut Vec<u8>, parents: &[Parent], first_row: usize) {
    let relative: Vec<u64> = parents
        .iter()
        .zip(first_row as i64..)
        .map(|(parent, row)| match parent {
            Parent::Root => ROOT,
            Parent::Away => AWAY,
            Parent::Row(parent) => NEAR + zigzag(row - i64::from(*parent)),
        })
        .collect();
    let short: Option<Vec<u16>> = relative.iter().map(|parent| u16::try_from(*parent).ok()).collect();
    match short {
        Some(short) => {
            out.push(CODES);
            out.extend_from_slice(&codes::encode(&short));
        }
        None => {
            out.push(NUMBERS);
            numbers::put(out, &relative);
        }
    }
}

/// Appends the parents of `rows`, of a segment of `rows_max` rows.
///
/// # Errors
/// There are not so many, or one is no row of the segment.
pub fn read_parents(
    bytes: &[u8],
    rows: Range<usize>,
    rows_max: usize,
    parents: &mut Vec<Parent>,
) -> Result<(), FormatError> {
    let damaged = FormatError::Damaged("parents");
    let (method, bytes) = bytes.split_first().ok_or(damaged)?;
    match *method {
        CODES => {
            let codes = codes::decode(bytes, rows.len())?;
            push_parents(codes.iter().map(|code| u32::from(*code)), rows, rows_max, parents)
        }
        NUMBERS => {
            let mut relative = vec![0; rows.len()];
            numbers::read(&mut Reader::new(bytes), &mut relative)?;
            let relative: Vec<u32> =
                relative.into_iter().map(u32::try_from).collect::<Result<_, _>>().map_err(|_| damaged)?;
            push_parents(relative.iter().copied(), rows, rows_max, parents)
        }
        _ => Err(damaged),
    }
}

/// Without branches that nobody could foretell, as which rows have parents is as good as random; and first what all are, then
/// whether they are rows of the segment: each by itself becomes wide instructions.
fn push_parents(
    relative: impl ExactSizeIterator<Item = u32> + Clone,
    rows: Range<usize>,
    rows_max: usize,
    parents: &mut Vec<Parent>,
) -> Result<(), FormatError> {
    const NEAR: u32 = self::NEAR as u32;
    let row_of = |row: u32, relative: u32| {
        let zigzag = relative.wrapping_sub(NEAR);
        row.wrapping_sub((zigzag >> 1) ^ (zigzag & 1).wrapping_neg())
    };
    let relative = (rows.start as u32..).zip(relative);
    parents.extend(relative.clone().map(|(row, relative)| {
        if relative >= NEAR {
            Parent::Row(row_of(row, relative))
        } else if u64::from(relative) == ROOT {
            Parent::Root
        } else {
            Parent::Away
        }
    }));
    let valid = relative
        .fold(true, |valid, (row, relative)| valid & ((relative < NEAR) | (row_of(row, relative) < rows_max as u32)));
    if valid { Ok(()) } else { Err(FormatError::Damaged("parents")) }
}

pub fn put_traces(out: &mut Vec<u8>, traces: &Traces) {
    put_varint(out, traces.len() as u64);
    let spans: Vec<u64> = (0..traces.len()).map(|trace| traces.rows(trace).len() as u64).collect();
    numbers::put(out, &spans);
    traces.ids.iter().for_each(|id| out.extend_from_slice(&id.0));
}

/// # Errors
/// They are not the traces of `rows` rows.
pub fn read_traces(bytes: &[u8], rows: usize) -> Result<Traces, FormatError> {
    let damaged = FormatError::Damaged("traces");
    let mut reader = Reader::new(bytes);
    let count = reader.length().filter(|count| *count <= rows.min(ROWS_MAX)).ok_or(damaged)?;
    let mut spans = vec![0; count];
    numbers::read(&mut reader, &mut spans)?;
    let mut first_rows = Vec::with_capacity(count + 1);
    let mut row = 0u64;
    first_rows.push(0);
    for spans in spans {
        row = row.checked_add(spans).filter(|row| *row <= rows as u64).ok_or(damaged)?;
        first_rows.push(row as u32);
    }
    let (ids, rest) = reader.rest().as_chunks::<16>();
    if ids.len() != count || !rest.is_empty() || row != rows as u64 {
        return Err(damaged);
    }
    Ok(Traces { ids: ids.iter().map(|id| TraceId(*id)).collect(), first_rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_times_come_back(times in proptest::collection::vec((any::<u64>(), 0u32..64, any::<bool>()), 0..200), unit in 0u8..3) {
            let unit = Unit::from_code(unit).unwrap().nanos();
            let starts: Vec<u64> = times.iter().map(|(time, shift, _)| (time >> shift).saturating_mul(unit)).collect();
            let mut out = Vec::new();
            put_starts(&mut out, &starts, |row| times[row].2);
            let mut back = vec![0; starts.len()];
            read_starts(&out, &mut back).unwrap();
            prop_assert_eq!(&back, &starts);
            let mut out = Vec::new();
            put_durations(&mut out, &starts);
            read_durations(&out, &mut back).unwrap();
            prop_assert_eq!(&back, &starts);
        }

        #[test]
        fn any_parents_come_back(parents in proptest::collection::vec(0u32..70_000, 0..200), first_row in 0usize..65_000) {
            let parents: Vec<Parent> = parents.into_iter().map(|parent| match parent {
                0..9_000 => Parent::Root,
                9_000..15_000 => Parent::Away,
                _ => Parent::Row(parent - 15_000),
            }).collect();
            let mut out = Vec::new();
            put_parents(&mut out, &parents, first_row);
            let mut back = Vec::new();
            read_parents(&out, first_row..first_row + parents.len(), 65_535, &mut back).unwrap();
            prop_assert_eq!(back, parents);
        }

        #[test]
        fn any_traces_come_back(traces in proptest::collection::btree_map(any::<[u8; 16]>(), 1u32..50, 0..50)) {
            let mut first_rows = vec![0];
            traces.values().for_each(|spans| first_rows.push(first_rows[first_rows.len() - 1] + spans));
            let rows = first_rows[first_rows.len() - 1] as usize;
            let traces = Traces { ids: traces.into_keys().map(TraceId).collect(), first_rows };
            let mut out = Vec::new();
            put_traces(&mut out, &traces);
            prop_assert_eq!(read_traces(&out, rows).unwrap(), traces);
            prop_assert!(read_traces(&out, rows + 1).is_err());
        }

        #[test]
        fn any_ids_come_back(ids in proptest::collection::vec((any::<[u8; 8]>(), 0u8..3, 0u8..3), 0..99)) {
            let id = |number: u8| (number > 0).then_some(SpanId([number; 8]));
            let near = |row: usize| id(ids[row].2);
            let rows: Vec<Ids> = ids.iter().map(|(span, parent, _)| Ids { span: SpanId(*span), parent: id(*parent) }).collect();
            let mut out = Vec::new();
            put_ids(&mut out, &rows, near);
            let back = read_ids(&out, rows.len()).unwrap();
            for (row, ids) in rows.iter().enumerate() {
                prop_assert_eq!((back.spans[row], back.parent(row, near(row))), (ids.span, ids.parent));
            }
            prop_assert!(read_ids(&out, rows.len() + 1).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, rows in 0usize..300) {
            let mut numbers = vec![0; rows];
            let _ = read_starts(&bytes, &mut numbers);
            let _ = read_durations(&bytes, &mut numbers);
            let mut parents = Vec::new();
            let _ = read_parents(&bytes, 0..rows, rows, &mut parents);
            let _ = read_traces(&bytes, rows);
            let _ = read_ids(&bytes, rows);
        }

        #[test]
        fn slices_hold_every_row_once(rows in 0usize..40_000) {
            let mut next = 0;
            for slice in slices_of(0..rows) {
                let held = rows_of(slice, rows);
                prop_assert_eq!(held.start, next);
                prop_assert!(!held.is_empty());
                next = held.end;
            }
            prop_assert_eq!(next, rows);
        }
    }
}
