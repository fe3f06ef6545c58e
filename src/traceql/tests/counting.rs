//! What evaluation reads of its segments, counted: no more than a query needs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::memory::Memory;
use super::spans::{Trace, span, trace};
use crate::otlp::TraceId;
use crate::traceql::ast::{Field, Scope};
use crate::traceql::column::{Cell, Codes};
use crate::traceql::control::Control;
use crate::traceql::filter::LOOKS;
use crate::traceql::request::{InstantRequest, SearchRequest};
use crate::traceql::search::Nobody;
use crate::traceql::segment::{Column, Ids, Parent, Piece, Segment, SegmentError, SegmentId, Source, Times, Traces};

/// Something that is read of a segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    Traces,
    Starts,
    Durations,
    Parents,
    SpanIds,
    Names,
    Column(String),
    Codes(String),
    Cell(String),
}

type Reads = Arc<Mutex<Vec<(SegmentId, Read)>>>;

struct Counted {
    memory: Memory,
    reads: Reads,
}

struct CountedSegment {
    inner: Arc<dyn Segment>,
    reads: Reads,
}

impl Counted {
    fn new(memory: Memory) -> Self {
        Self { memory, reads: Reads::default() }
    }

    fn counted(&self, inner: Arc<dyn Segment>) -> Arc<dyn Segment> {
        Arc::new(CountedSegment { inner, reads: Arc::clone(&self.reads) })
    }

    /// What was read since this was asked last.
    fn reads(&self) -> Vec<(SegmentId, Read)> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    /// What a search reads, however often, and how many traces it finds.
    fn search(&self, query: &str) -> (BTreeSet<Read>, usize) {
        let request = SearchRequest { start: 0, end: u64::MAX, limit: 20, spans_per_spanset: 3, overlapping: None };
        let query = crate::traceql::read(query).unwrap();
        let found = crate::traceql::search::run(&query, &request, self, &control(), &mut Nobody).unwrap();
        (self.reads().into_iter().map(|(_, read)| read).collect(), found.traces.len())
    }
}

impl Source for Counted {
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        self.memory.segments(start, end).into_iter().map(|segment| self.counted(segment)).collect()
    }

    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let pieces = self.memory.pieces(trace)?.into_iter();
        Ok(pieces.map(|piece| Piece { segment: self.counted(piece.segment), trace: piece.trace }).collect())
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        self.memory.may_be_split(segment, trace)
    }

    fn whole_since(&self) -> u64 {
        self.memory.whole_since()
    }
}

impl CountedSegment {
    fn note(&self, read: Read) -> &dyn Segment {
        self.reads.lock().unwrap().push((self.inner.id(), read));
        &*self.inner
    }
}

impl Segment for CountedSegment {
    fn id(&self) -> SegmentId {
        self.inner.id()
    }

    fn rows(&self) -> usize {
        self.inner.rows()
    }

    fn times(&self) -> Times {
        self.inner.times()
    }

    fn stored_bytes(&self) -> u64 {
        self.inner.stored_bytes()
    }

    fn traces(&self) -> Result<Arc<Traces>, SegmentError> {
        self.note(Read::Traces).traces()
    }

    fn starts(&self) -> Result<Arc<[u64]>, SegmentError> {
        self.note(Read::Starts).starts()
    }

    fn durations(&self) -> Result<Arc<[u64]>, SegmentError> {
        self.note(Read::Durations).durations()
    }

    fn parents(&self) -> Result<Arc<[Parent]>, SegmentError> {
        self.note(Read::Parents).parents()
    }

    fn column(&self, field: &Field) -> Result<Column, SegmentError> {
        self.note(Read::Column(field.to_string())).column(field)
    }

    fn codes(&self, field: &Field) -> Result<Codes, SegmentError> {
        self.note(Read::Codes(field.to_string())).codes(field)
    }

    fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        self.note(Read::Cell(field.to_string())).cell(field, row)
    }

    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        self.note(Read::SpanIds).span_ids(rows)
    }

    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError> {
        self.note(Read::Names).names(scope)
    }
}

fn control() -> Control {
    Control::new(Duration::from_secs(3600), usize::MAX)
}

/// Spans of three routes and two users, each with a body that nobody asks for.
fn requests() -> Vec<Trace> {
    let routes = ["/a", "/b", "/c"];
    let one = |id: u64| {
        span(id)
            .named("GET")
            .service("shop")
            .lasting(id, 5)
            .attribute("route", routes[id as usize % 3])
            .attribute("user", (id % 2) as i64)
            .attribute("body", "x")
            .resource("pod", "p")
    };
    (1..=300).map(|id| trace(u128::from(id), [one(id)])).collect()
}

fn columns(reads: &BTreeSet<Read>) -> Vec<&str> {
    reads
        .iter()
        .filter_map(|read| match read {
            Read::Column(field) | Read::Codes(field) | Read::Cell(field) => Some(field.as_str()),
            _ => None,
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[test]
fn only_the_columns_that_a_query_needs_are_read() {
    let source = Counted::new(Memory::whole(&requests()));
    let (reads, found) = source.search(r#"{ span.route = "/a" && span.user = 1 }"#);
    assert_eq!(found, 20);
    // What it asks for, and what an answer shows of every trace.
    assert_eq!(columns(&reads), ["name", "resource.service.name", "span.route", "span.user", "status"]);

    let query = crate::traceql::read(r#"{ span.route = "/a" } | rate() by (span.user)"#).unwrap();
    let request = InstantRequest { start: 0, end: 1_000_000_000, series_max: 0 };
    let answer = crate::traceql::metrics::instant(&query, &request, &source, &control(), &mut |_| {}).unwrap();
    assert_eq!(answer.series.len(), 2);
    let reads: BTreeSet<Read> = source.reads().into_iter().map(|(_, read)| read).collect();
    assert_eq!(columns(&reads), ["span.route", "span.user"]);
    for dear in [Read::Durations, Read::Parents, Read::SpanIds, Read::Names] {
        assert!(!reads.contains(&dear), "{dear:?}");
    }
}

#[test]
fn where_no_value_passes_no_row_is_read() {
    let source = Counted::new(Memory::whole(&requests()));
    for query in [r#"{ span.route = "/nowhere" }"#, "{ span.route =~ `/x.*` }", "{ span.user > 9 }"] {
        let (reads, found) = source.search(query);
        let field = if query.contains("user") { "span.user" } else { "span.route" };
        assert_eq!((found, reads), (0, BTreeSet::from([Read::Column(field.to_owned())])), "{query}");
    }
}

#[test]
fn segments_that_hold_nothing_of_it_are_not_read() {
    let at = |id: u128, start: u64, duration: u64| vec![trace(id, [span(1).lasting(start, duration)])];
    let source = Counted::new(Memory::parts(vec![at(1, 100, 5), at(2, 200, 900), at(3, 300, 5)]));
    // By their bounds of durations.
    let (_, found) = source.search("{ duration > 50ns }");
    assert_eq!(found, 1);
    let request = SearchRequest { start: 150, end: 250, limit: 20, spans_per_spanset: 3, overlapping: None };
    let query = crate::traceql::read("{ duration > 50ns }").unwrap();
    // And by their times.
    for request in [SearchRequest { start: 0, end: 1000, ..request }, request] {
        crate::traceql::search::run(&query, &request, &source, &control(), &mut Nobody).unwrap();
        let read: BTreeSet<SegmentId> = source.reads().into_iter().map(|(segment, _)| segment).collect();
        assert_eq!(read, BTreeSet::from([SegmentId(1, 0)]));
    }
}

#[test]
fn a_predicate_is_decided_once_for_each_distinct_value() {
    let source = Counted::new(Memory::whole(&requests()));
    for (query, decided) in [
        ("{ span.route =~ `/[ab]` }", 3),
        ("{ span.route !~ `/[ab]` }", 3),
        ("{ span.route =~ `/a` || span.route =~ `/b` }", 6),
    ] {
        let before = LOOKS.get();
        assert_eq!(source.search(query).1, 20, "{query}");
        assert_eq!(LOOKS.get() - before, decided, "{query}");
    }
}
