//! The order of rows, which of them repeat another, and where parents are.

use super::column::DROPPED;
use crate::otlp::{SpanId, TraceId};
use crate::traceql::segment::{Parent, Traces};
use crate::traceql::value::Kind;

/// What decides where a row goes. In the order of arrival.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowKey {
    /// Index in the list of traces; `None`: a span without ids, which the scan would have refused.
    pub trace: Option<u32>,
    pub start: u64,
    pub span: SpanId,
    pub parent: Option<SpanId>,
    /// As on the wire: kinds that nobody knows yet are not each other's repetition.
    pub kind: u64,
}

impl AsRef<Self> for RowKey {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl RowKey {
    pub fn known_kind(&self) -> Kind {
        Kind::from_otlp(self.kind)
    }
}

/// Sorted rows.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub traces: Traces,
    /// Arrival numbers in the order of the segment.
    pub arrivals: Vec<u32>,
    /// For each arrival its place in the segment, or [`DROPPED`].
    pub ranks: Vec<u32>,
    pub parents: Vec<Parent>,
    /// Of each trace the rows that repeated others, up to the last that had some.
    pub repeats: Vec<u32>,
}

/// Sorts by trace id, start, span id and kind. Of rows with the same trace, span id and kind the first to arrive counts.
pub(super) fn sort(rows: &[impl AsRef<RowKey>], trace_ids: &[TraceId]) -> Sorted {
    let mut order: Vec<(TraceId, u32)> = trace_ids.iter().copied().zip(0u32..).collect();
    order.sort_unstable();
    let mut by_trace = ByTrace::of(rows, trace_ids.len());

    let mut sorted = Sorted {
        traces: Traces { ids: Vec::with_capacity(order.len()), first_rows: Vec::with_capacity(order.len() + 1) },
        arrivals: Vec::with_capacity(rows.len()),
        ranks: vec![DROPPED; rows.len()],
        parents: Vec::with_capacity(rows.len()),
        repeats: Vec::new(),
    };
    let mut by_id = Vec::new();
    for (id, trace) in order {
        let members = by_trace.rows_mut(trace);
        if members.is_empty() {
            continue;
        }
        sorted.traces.ids.push(id);
        sorted.traces.first_rows.push(sorted.arrivals.len() as u32);
        sorted.add_trace(rows, members, &mut by_id);
    }
    sorted.traces.first_rows.push(sorted.arrivals.len() as u32);
    sorted
}

/// Arrival numbers grouped by trace, in one allocation.
struct ByTrace {
    rows: Vec<u32>,
    ends: Vec<u32>,
}

impl ByTrace {
    fn of(rows: &[impl AsRef<RowKey>], traces: usize) -> Self {
        let mut ends = vec![0u32; traces];
        for trace in rows.iter().filter_map(|row| row.as_ref().trace) {
            ends[trace as usize] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum - *end;
        }
        // `ends` are beginnings so far; placing the rows moves them to the ends.
        let mut grouped = vec![0; sum as usize];
        for (arrival, row) in (0u32..).zip(rows) {
            let Some(trace) = row.as_ref().trace else { continue };
            let end = &mut ends[trace as usize];
            grouped[*end as usize] = arrival;
            *end += 1;
        }
        Self { rows: grouped, ends }
    }

    fn rows_mut(&mut self, trace: u32) -> &mut [u32] {
        let trace = trace as usize;
        let first = trace.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &mut self.rows[first..self.ends[trace] as usize]
    }
}

impl Sorted {
    /// `by_id` is lent for its memory.
    fn add_trace(&mut self, rows: &[impl AsRef<RowKey>], members: &mut [u32], by_id: &mut Vec<(SpanId, u64, u32)>) {
        by_id.clear();
        by_id.extend(members.iter().map(|arrival| {
            let row = rows[*arrival as usize].as_ref();
            (row.span, row.kind, *arrival)
        }));
        by_id.sort_unstable();
        by_id.dedup_by(|later, first| (later.0, later.1) == (first.0, first.1));
        if by_id.len() < members.len() {
            self.repeats.resize(self.traces.ids.len(), 0);
            if let Some(repeats) = self.repeats.last_mut() {
                *repeats = (members.len() - by_id.len()) as u32;
            }
        }

        let first_rank = self.arrivals.len();
        self.arrivals.extend(by_id.iter().map(|(_, _, arrival)| *arrival));
        self.arrivals[first_rank..].sort_unstable_by_key(|arrival| {
            let row = rows[*arrival as usize].as_ref();
            (row.start, row.span, row.known_kind(), row.kind)
        });
        for (rank, arrival) in (first_rank as u32..).zip(&self.arrivals[first_rank..]) {
            self.ranks[*arrival as usize] = rank;
        }
        for arrival in &self.arrivals[first_rank..] {
            let parent = match find_parent(rows[*arrival as usize].as_ref(), by_id) {
                Found::Root => Parent::Root,
                Found::Away => Parent::Away,
                Found::Arrival(arrival) => Parent::Row(self.ranks[arrival as usize]),
            };
            self.parents.push(parent);
        }
    }
}

enum Found {
    Root,
    Away,
    Arrival(u32),
}

/// By id. Zipkin lets the two halves of a call share one: of two spans with the parent's id a server is the child of the
/// client, and everything else of the server. Of three nobody can tell. Data may go in circles.
fn find_parent(row: &RowKey, by_id: &[(SpanId, u64, u32)]) -> Found {
    let Some(parent) = row.parent else { return Found::Root };
    let first = by_id.partition_point(|(id, ..)| *id < parent);
    let mut candidates = by_id[first..].iter().take_while(|(id, ..)| *id == parent);
    let wanted = if row.known_kind() == Kind::Server { Kind::Client } else { Kind::Server };
    let found = match (candidates.next(), candidates.next(), candidates.next()) {
        (Some(only), None, _) => Some(only),
        (Some(one), Some(other), None) => {
            [one, other].into_iter().find(|(_, kind, _)| Kind::from_otlp(*kind) == wanted)
        }
        _ => None,
    };
    found.map_or(Found::Away, |(.., arrival)| Found::Arrival(*arrival))
}
