//! Names of attributes, and values of one: what a person may choose from.
//!
//! Of spans that start within the time range and pass the filter. Where a segment lies wholly within the range and there is
//! no filter, both are read from its names and dictionaries, without a look at any span.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::HashSet;

use super::answer::{TagsAnswer, ValuesAnswer};
use super::ast::{Attribute, Expression, Field, Intrinsic, Scope};
use super::coded::{self, Coded};
use super::column::{Cell, Code, Entry, NIL};
use super::control::{Control, Stopped};
use super::error::QueryError;
use super::filter::Filter;
use super::filter::row::scoped;
use super::keys::{compare, write_key};
use super::mask::Mask;
use super::reader::{Reader, Scan, has_column};
use super::request::TagsRequest;
use super::segment::{Column, Segment, SegmentError, Source};
use super::value::{Kind, Status, Value};

/// Rows of a segment whose values are looked at one by one where there is no dictionary of them; of more rows, one for each
/// different sketch.
const UNLISTED_ROWS_MAX: usize = 1024;

/// Values that are looked at one by one for a whole answer. After so many it is what it is: nobody chooses from thousands.
const LOOKUPS_MAX: usize = 8192;

/// What a collected value takes besides its text.
const VALUE_OVERHEAD_BYTES: usize = 96;

/// The names of attributes that spans have, of one scope or of each.
///
/// # Errors
/// The filter has a regular expression that cannot be used, or the query ended early.
pub fn names(
    source: &dyn Source,
    scope: Option<Scope>,
    filter: Option<&Expression>,
    request: &TagsRequest,
    control: &Control,
) -> Result<TagsAnswer, QueryError> {
    let filter = Filter::compile(filter)?;
    let scan = Scan::new(source, control);
    let mut answer = TagsAnswer::default();
    let mut found: Vec<(Scope, BTreeSet<Arc<str>>)> = Scope::ALL
        .into_iter()
        .filter(|one| scope.is_none_or(|scope| scope == *one))
        .map(|one| (one, BTreeSet::new()))
        .collect();
    let mut bytes_left = request.bytes_max;
    for segment in source.segments(request.start, request.end) {
        let added = each_scope(&scan, &segment, &filter, request, &mut found, &mut bytes_left, control);
        if is_done(added)? {
            answer.inspected_bytes += segment.stored_bytes();
        }
    }
    answer.scopes = found.into_iter().map(|(scope, names)| (scope.as_str(), names.into_iter().collect())).collect();
    Ok(answer)
}

/// The values that spans have for a field. Elements of arrays are values of their own.
///
/// Of status and kind all values that there are, seen or not; of ids, times and numbers of nested sets none: nobody
/// chooses from them.
///
/// # Errors
/// The filter has a regular expression that cannot be used, or the query ended early.
pub fn values(
    source: &dyn Source,
    field: &Field,
    filter: Option<&Expression>,
    request: &TagsRequest,
    control: &Control,
) -> Result<ValuesAnswer, QueryError> {
    let mut answer = ValuesAnswer::default();
    match field {
        Field::Intrinsic(Intrinsic::Status) => answer.values.extend(Status::ALL.map(Value::Status)),
        Field::Intrinsic(Intrinsic::Kind) => answer.values.extend(Kind::ALL.map(Value::Kind)),
        Field::Attribute(_) => {}
        Field::Intrinsic(intrinsic) if !is_chosen_from(*intrinsic) => return Ok(answer),
        Field::Intrinsic(_) => {}
    }
    if !answer.values.is_empty() {
        return Ok(answer);
    }
    let filter = Filter::compile(filter)?;
    let scan = Scan::new(source, control);
    let fields: Vec<Field> = match field {
        Field::Attribute(Attribute { scope: None, name, .. }) => scoped(name).collect(),
        field => vec![field.clone()],
    };
    let mut values = Values::new(request, control);
    for segment in source.segments(request.start, request.end) {
        if values.is_full {
            break;
        }
        let added = each_value(&scan, &segment, &filter, &fields, request, &mut values);
        if is_done(added)? {
            answer.inspected_bytes += segment.stored_bytes();
        }
    }
    answer.values = values.sorted();
    Ok(answer)
}

/// A segment that cannot be read, or is gone, has no part in the answer.
fn is_done(added: Result<(), SegmentError>) -> Result<bool, Stopped> {
    match added {
        Ok(()) => Ok(true),
        Err(SegmentError::Gone | SegmentError::Read(_)) => Ok(false),
        Err(SegmentError::Stopped(stopped)) => Err(stopped),
    }
}

/// Whether there is a set of values that people choose from.
fn is_chosen_from(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::Name
            | Intrinsic::StatusMessage
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::EventName
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion
    )
}

/// The rows that count, ascending; `None`: all.
fn rows(
    scan: &Scan<'_>,
    reader: &Rc<Reader>,
    filter: &Filter,
    request: &TagsRequest,
) -> Result<Option<Vec<u16>>, SegmentError> {
    let within = reader.within(request.start, request.end)?;
    let mask = match (within, filter.takes_all()) {
        (None, true) => return Ok(None),
        (Some(within), true) => within,
        (within, false) => filter.mask_of(scan, reader, &within.unwrap_or_else(|| Mask::all(reader.rows())))?,
    };
    // A segment has no more rows than fit.
    Ok(Some(mask.iter().map(|row| row as u16).collect()))
}

fn each_scope(
    scan: &Scan<'_>,
    segment: &Arc<dyn Segment>,
    filter: &Filter,
    request: &TagsRequest,
    found: &mut [(Scope, BTreeSet<Arc<str>>)],
    bytes_left: &mut usize,
    control: &Control,
) -> Result<(), SegmentError> {
    scan.check()?;
    let reader = scan.reader(segment);
    let rows = rows(scan, &reader, filter, request)?;
    if rows.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    for (scope, names) in found {
        for name in segment.names(*scope)?.iter() {
            let is_full = request.count_max > 0 && names.len() >= request.count_max;
            if is_full || names.contains(name) || name.len() > *bytes_left {
                continue;
            }
            if let Some(rows) = &rows
                && !is_met(*scope, name, &reader, rows)?
            {
                continue;
            }
            control.reserve(name.len() + VALUE_OVERHEAD_BYTES)?;
            *bytes_left -= name.len();
            names.insert(name.clone());
        }
    }
    Ok(())
}

/// Whether one of these rows has the attribute.
fn is_met(scope: Scope, name: &Arc<str>, reader: &Reader, rows: &[u16]) -> Result<bool, SegmentError> {
    let field = Field::Attribute(Attribute { scope: Some(scope), of_parent: false, name: name.to_string() });
    // Not by the reader: a column that is looked at once need not be kept.
    Ok(match reader.segment().column(&field)? {
        Column::Absent => false,
        Column::Listed(_) => {
            let codes = reader.segment().codes(&field)?;
            rows.iter().any(|row| codes.get(usize::from(*row)) != NIL)
        }
        Column::Unlisted { sketches } => {
            rows.iter().any(|row| sketches.get(usize::from(*row)).is_some_and(|sketch| *sketch != 0))
        }
    })
}

fn each_value(
    scan: &Scan<'_>,
    segment: &Arc<dyn Segment>,
    filter: &Filter,
    fields: &[Field],
    request: &TagsRequest,
    values: &mut Values<'_>,
) -> Result<(), SegmentError> {
    scan.check()?;
    let reader = scan.reader(segment);
    let rows = rows(scan, &reader, filter, request)?;
    if rows.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    for field in fields {
        if let Field::Intrinsic(intrinsic) = field
            && !has_column(*intrinsic)
        {
            let every = || (0..=u16::MAX).take(reader.rows()).collect();
            let rows = rows.clone().unwrap_or_else(every);
            if let Some(coded) = coded::read(field, scan, &reader, &rows)? {
                values.add_codes(&coded, &rows)?;
            }
            continue;
        }
        match (reader.column(field)?, &rows) {
            (Column::Absent, _) => {}
            (Column::Listed(dictionary), None) => {
                for (_, entry) in dictionary.iter() {
                    match entry {
                        Entry::String(text) => values.add_text(text)?,
                        Entry::Int(int) => values.add(&Value::Int(int))?,
                        Entry::Other(cell) => values.add_cell(cell)?,
                    }
                }
            }
            (Column::Listed(_), Some(rows)) => {
                if let Some(coded) = coded::read(field, scan, &reader, rows)? {
                    values.add_codes(&coded, rows)?;
                }
            }
            (Column::Unlisted { sketches }, rows) => {
                let wanted = |row: usize| rows.as_ref().is_none_or(|rows| rows.binary_search(&(row as u16)).is_ok());
                let present: Vec<(usize, u16)> =
                    sketches.iter().copied().enumerate().filter(|(row, sketch)| *sketch != 0 && wanted(*row)).collect();
                // Kept, so that they are not read for each row.
                let _traces = segment.traces()?;
                let one_by_one = present.len() <= UNLISTED_ROWS_MAX;
                let mut seen = HashSet::default();
                for (count, (row, sketch)) in present.into_iter().enumerate() {
                    if values.is_full || values.lookups == LOOKUPS_MAX {
                        break;
                    }
                    if count % UNLISTED_ROWS_MAX == 0 {
                        scan.check()?;
                    }
                    if one_by_one || seen.insert(sketch) {
                        values.lookups += 1;
                        if let Some(cell) = segment.cell(field, row)? {
                            values.add_cell(&cell)?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Distinct values, up to the limits of a request.
struct Values<'r> {
    request: &'r TagsRequest,
    control: &'r Control,
    seen: HashSet<Box<[u8]>>,
    values: Vec<Value>,
    bytes: usize,
    key: Vec<u8>,
    lookups: usize,
    is_full: bool,
}

impl<'r> Values<'r> {
    fn new(request: &'r TagsRequest, control: &'r Control) -> Self {
        Self {
            request,
            control,
            seen: HashSet::default(),
            values: Vec::new(),
            bytes: 0,
            key: Vec::new(),
            lookups: 0,
            is_full: false,
        }
    }

    fn add_codes(&mut self, coded: &Coded, rows: &[u16]) -> Result<(), Stopped> {
        let mut met = vec![false; coded.code_max() + 1];
        for row in rows {
            if let Some(met) = met.get_mut(usize::from(coded.codes().get(usize::from(*row)))) {
                *met = true;
            }
        }
        for (code, _) in met.iter().enumerate().filter(|(_, met)| **met) {
            let mut result = Ok(());
            coded.each_value(code as Code, |value| {
                if result.is_ok() {
                    result = self.add(&value);
                }
            });
            result?;
        }
        Ok(())
    }

    fn add_cell(&mut self, cell: &Cell) -> Result<(), Stopped> {
        match cell {
            Cell::One(value) => self.add(value),
            Cell::Many(values) => values.iter().try_for_each(|value| self.add(value)),
        }
    }

    fn add_text(&mut self, text: &str) -> Result<(), Stopped> {
        self.add(&Value::String(text.into()))
    }

    fn add(&mut self, value: &Value) -> Result<(), Stopped> {
        if let Value::Array(elements) = value {
            return elements.iter().try_for_each(|element| self.add(element));
        }
        self.key.clear();
        write_key(Some(value), &mut self.key);
        if self.is_full || self.seen.contains(&self.key[..]) {
            return Ok(());
        }
        let bytes = text_len(value);
        if self.bytes + bytes > self.request.bytes_max {
            self.is_full = true;
            return Ok(());
        }
        self.control.reserve(2 * self.key.len() + VALUE_OVERHEAD_BYTES)?;
        self.bytes += bytes;
        self.seen.insert(self.key.as_slice().into());
        self.values.push(value.clone());
        self.is_full = self.values.len() == self.request.count_max;
        Ok(())
    }

    fn sorted(mut self) -> Vec<Value> {
        self.values.sort_by(|left, right| compare(Some(left), Some(right)));
        self.values
    }
}

/// Bytes of a value as text, about.
fn text_len(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        _ => size_of::<u64>(),
    }
}

#[cfg(test)]
mod tests;
