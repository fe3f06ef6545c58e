//! A built segment as keys and values of the two families.

use rocksdb::SstFileWriter;

use super::SealError;
use super::pace::{Pace, Stopped};
use crate::store::build::Built;
use crate::store::format::chunk::Packer;
use crate::store::format::columns::{self, rows_of, slices_of};
use crate::store::format::key::{Kind, SegmentKey, scope_code};
use crate::store::format::piece::{self, Group, PieceSpan};
use crate::store::format::{Counter, Known, Writer, codes, dictionary, envelopes, placed};
use crate::store::runs::SegmentRecord;
use crate::traceql::ast::Scope;
use crate::traceql::segment::{Column, Parent};

/// Traces written, or rows counted, between two pauses.
const TRACES_PER_TURN: usize = 256;
const ROWS_PER_TURN: usize = 4096;

/// Where a run's keys go.
pub(super) struct Files<'f, 'o> {
    pub trace: &'f mut SstFileWriter<'o>,
    pub column: &'f mut SstFileWriter<'o>,
}

/// Writes one segment. Segments of a run must come in order.
pub(super) fn write_segment(
    mut built: Built,
    key: SegmentKey,
    files: &mut Files<'_, '_>,
    packer: &mut Packer,
    pace: &mut Pace,
) -> Result<SegmentRecord, SealError> {
    let (pages, piece_bytes) = write_pieces(&built, key, files.trace, pace)?;
    // Columns are their own.
    (built.spans.batches, built.spans.places) = (Vec::new(), Vec::new());
    let mut chunks = Chunks { key, packer, pace, list: Vec::new() };
    for (number, page) in (0u16..).zip(&pages) {
        chunks.packed(Kind::Words, number, page)?;
    }
    chunks.rows(&built)?;
    chunks.fields(&built)?;
    let mut list = chunks.list;
    list.sort_unstable();
    let mut column_bytes = 0;
    for (key, chunk) in &list {
        column_bytes += (key.len() + chunk.len()) as u64;
        files.column.put(key, chunk)?;
    }
    let times = built.index.times;
    Ok(SegmentRecord {
        rows: built.index.rows() as u32,
        traces: built.index.traces.len() as u32,
        word_pages: pages.len() as u16,
        min_start: times.min_start,
        max_start: times.max_start,
        max_end: times.max_end,
        min_duration: times.min_duration,
        max_duration: times.max_duration,
        piece_bytes,
        column_bytes,
    })
}

/// What columns know of a row.
fn known(built: &Built, trace: [u8; 16], row: usize) -> Option<Known> {
    let ids = built.index.ids.get(row)?;
    let start = *built.index.starts.get(row)?;
    let duration = *built.index.durations.get(row)?;
    Some(Known { trace, span: ids.span.0, parent: ids.parent.map(|id| id.0), start, end: start.wrapping_add(duration) })
}

fn write_pieces(
    built: &Built,
    key: SegmentKey,
    file: &mut SstFileWriter<'_>,
    pace: &mut Pace,
) -> Result<(Vec<Vec<u8>>, u64), SealError> {
    let traces = &built.index.traces;
    let mut counter = Counter::default();
    for (trace, id) in traces.ids.iter().enumerate() {
        for row in traces.rows(trace) {
            if row.is_multiple_of(ROWS_PER_TURN) {
                pace.rest()?;
            }
            if let Some(known) = known(built, id.0, row) {
                counter.count(built.spans.bytes(row), trace as u32, &known);
            }
        }
    }
    let mut writer: Writer<'_> = counter.finish();
    let mut piece_bytes = 0;
    let mut value = Vec::new();
    for (trace, id) in traces.ids.iter().enumerate() {
        if trace.is_multiple_of(TRACES_PER_TURN) {
            pace.rest()?;
        }
        let rows = traces.rows(trace);
        let first_row = rows.start as u32;
        let spans = rows.filter_map(|row| {
            let group = |groups: &[u16]| groups.get(row).copied().unwrap_or_default();
            let groups = &built.index.groups;
            let group = Group { resource: group(&groups.resources), scope: group(&groups.scopes) };
            Some(PieceSpan { group, bytes: built.spans.bytes(row), known: known(built, id.0, row)? })
        });
        value.clear();
        piece::put(&mut value, &mut writer, trace as u32, first_row, spans);
        piece_bytes += value.len() as u64;
        file.put(key.trace(id.0), &value)?;
    }
    Ok((writer.pages().to_vec(), piece_bytes))
}

/// The chunks of a segment, in no order yet.
struct Chunks<'c> {
    key: SegmentKey,
    packer: &'c mut Packer,
    pace: &'c mut Pace,
    list: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Chunks<'_> {
    fn packed(&mut self, kind: Kind, number: u16, raw: &[u8]) -> Result<(), Stopped> {
        self.pace.rest()?;
        let chunk = self.packer.pack(raw);
        self.list.push((self.key.chunk(kind, number), chunk));
        Ok(())
    }

    /// What no compressor makes smaller.
    fn plain(&mut self, kind: Kind, number: u16, raw: &[u8]) {
        self.list.push((self.key.chunk(kind, number), Packer::plain(raw)));
    }

    fn rows(&mut self, built: &Built) -> Result<(), Stopped> {
        let index = &built.index;
        let mut raw = Vec::new();
        columns::put_traces(&mut raw, &index.traces);
        self.plain(Kind::Traces, 0, &raw);
        if !index.repeats.is_empty() {
            let repeats: Vec<u8> = index.repeats.iter().flat_map(|repeats| repeats.to_le_bytes()).collect();
            self.packed(Kind::Repeats, 0, &repeats)?;
        }
        self.packed(Kind::ResourceOfRow, 0, &codes::encode(&index.groups.resources))?;
        self.packed(Kind::ScopeOfRow, 0, &codes::encode(&index.groups.scopes))?;
        for (number, page) in (0u16..).zip(envelopes::encode(&built.spans.resources)) {
            self.packed(Kind::Resources, number, &page)?;
        }
        for (number, page) in (0u16..).zip(envelopes::encode(&built.spans.scopes)) {
            self.packed(Kind::Scopes, number, &page)?;
        }
        for slice in slices_of(0..index.rows()) {
            self.slice(built, slice)?;
        }
        Ok(())
    }

    fn slice(&mut self, built: &Built, slice: usize) -> Result<(), Stopped> {
        let index = &built.index;
        let rows = rows_of(slice, index.rows());
        let number = slice as u16;
        let first = rows.start;
        let near = |row: usize| match index.parents.get(first + row) {
            Some(Parent::Row(parent)) => index.ids.get(*parent as usize).map(|ids| ids.span),
            _ => None,
        };
        let mut raw = Vec::new();
        columns::put_ids(&mut raw, index.ids.get(rows.clone()).unwrap_or_default(), near);
        self.plain(Kind::Ids, number, &raw);
        raw.clear();
        let begins = |row: usize| index.traces.first_rows.binary_search(&((first + row) as u32)).is_ok();
        columns::put_starts(&mut raw, index.starts.get(rows.clone()).unwrap_or_default(), begins);
        self.packed(Kind::Starts, number, &raw)?;
        raw.clear();
        columns::put_durations(&mut raw, index.durations.get(rows.clone()).unwrap_or_default());
        self.packed(Kind::Durations, number, &raw)?;
        raw.clear();
        columns::put_parents(&mut raw, index.parents.get(rows).unwrap_or_default(), first);
        self.packed(Kind::Parents, number, &raw)
    }

    fn fields(&mut self, built: &Built) -> Result<(), Stopped> {
        for scope in Scope::ALL {
            let names = built.index.names.of(scope);
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            let mut raw = Vec::new();
            dictionary::put_names(&mut raw, &names);
            self.packed(Kind::Names, u16::from(scope_code(scope)), &raw)?;
        }
        for (field, column) in &built.index.columns {
            let mut raw = Vec::new();
            let kind = match &column.values {
                Column::Absent => continue,
                Column::Listed(values) => {
                    dictionary::put(&mut raw, values);
                    Kind::Dictionary
                }
                Column::Unlisted { sketches } => {
                    raw = codes::encode(sketches);
                    Kind::Sketches
                }
            };
            self.field(kind, field, &raw)?;
            raw.clear();
            if placed::put(&mut raw, &column.codes) {
                self.field(Kind::Codes, field, &raw)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, kind: Kind, field: &crate::traceql::ast::Field, raw: &[u8]) -> Result<(), Stopped> {
        let Some(key) = self.key.field(kind, field) else { return Ok(()) };
        self.pace.rest()?;
        let chunk = self.packer.pack(raw);
        self.list.push((key, chunk));
        Ok(())
    }
}
