//! Where spans come from, as evaluation sees it. The store implements it: sealed runs and the unsealed tail alike.
//!
//! ```text
//! source = segments (newest first); segment = rows (spans), sorted by trace id, then start time, then span id
//!
//! row      0     1     2     3     4
//! trace    ├── trace 0 ──┤├ trace 1 ┤      rows of a trace stand together
//! parent   root  0     1     away  3       row of the parent, where it is in this segment
//! ```
//!
//! A trace may have pieces in several segments: late spans, and all that is in the tail. [`Source::pieces`] knows all of
//! them. No span id and kind stands twice in one piece, but it may stand in two.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use super::ast::{Field, Scope};
use super::column::{Cell, Codes, Dictionary, NIL};
use super::control::Stopped;
use super::mask::Mask;
use super::wanted::Wanted;
use crate::otlp::{SpanId, TraceId};

/// Everything that can be searched, as it stood at one moment. What is acknowledged later is not in it.
pub trait Source: Send + Sync {
    /// The segments that may hold spans starting within `[start, end]` (Unix nanoseconds), by [`Segment::times`]
    /// `max_start`, latest first.
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>>;

    /// All pieces of a trace, oldest first, whatever their times.
    ///
    /// # Errors
    /// The disk could not be read.
    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError>;

    /// Whether a trace of this segment may have pieces in others. Quick, and never falsely `false`.
    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool;

    /// Fingerprints ([`TraceId::fingerprint`]) of the only traces that searches are to find; `None`: all.
    fn only(&self) -> Option<&Fingerprints> {
        None
    }

    /// Whether [`Source::segments`] are some of those in which traces have pieces: a trace is then to be found by any piece
    /// there, whatever it yields by the spans of that piece alone.
    fn is_part(&self) -> bool {
        false
    }

    /// Whether answers are to show this span of a trace. The others count for what the query says of the trace alone.
    fn shows(&self, _trace: TraceId, _span: SpanId) -> bool {
        true
    }

    /// [`Source::may_be_split`] of all traces of a segment, as a set of their indices; `None`: they are to be asked for one by
    /// one, because to find out is dear. Asked for traces one by one, a query spends most of its time here.
    fn split_traces(&self, _segment: &dyn Segment) -> Option<Mask> {
        None
    }

    /// Since when everything is here: what started before may have been dropped, or come before there was anything. Unix
    /// nanoseconds; `u64::MAX` while nothing is here.
    fn whole_since(&self) -> u64;
}

/// A set of [`TraceId::fingerprint`]s.
pub type Fingerprints = HashSet<u32, foldhash::fast::RandomState>;

/// The spans of one trace in one segment.
#[derive(Clone)]
pub struct Piece {
    pub segment: Arc<dyn Segment>,
    /// Index in [`Traces`].
    pub trace: usize,
}

/// Rows of a slice of a column on disk. Part of the format: it must not change.
pub const SLICE_ROWS: usize = 8192;

/// Up to [`super::column::ROWS_MAX`] spans. Methods may read the disk; what they return is cached by nobody but the caller.
pub trait Segment: Send + Sync {
    /// Unique in its source.
    fn id(&self) -> SegmentId;

    fn rows(&self) -> usize;

    fn times(&self) -> Times;

    /// Bytes that a full read of the segment would read, for the metrics block of answers.
    fn stored_bytes(&self) -> u64;

    fn traces(&self) -> Result<Arc<Traces>, SegmentError>;

    /// `Span.start_time_unix_nano` of every row.
    fn starts(&self) -> Result<Arc<[u64]>, SegmentError>;

    /// `end - start` of every row in nanoseconds, 0 where the end is before the start.
    fn durations(&self) -> Result<Arc<[u64]>, SegmentError>;

    /// The parent of every row.
    fn parents(&self) -> Result<Arc<[Parent]>, SegmentError>;

    /// A slice of [`Segment::starts`], for who asks for few rows; `None`: the whole costs no more.
    ///
    /// # Errors
    /// The disk could not be read.
    fn starts_slice(&self, _slice: usize) -> Result<Option<Vec<u64>>, SegmentError> {
        Ok(None)
    }

    /// As [`Segment::starts_slice`], of [`Segment::durations`].
    ///
    /// # Errors
    /// The disk could not be read.
    fn durations_slice(&self, _slice: usize) -> Result<Option<Vec<u64>>, SegmentError> {
        Ok(None)
    }

    /// As [`Segment::starts_slice`], of [`Segment::parents`].
    ///
    /// # Errors
    /// The disk could not be read.
    fn parents_slice(&self, _slice: usize) -> Result<Option<Vec<Parent>>, SegmentError> {
        Ok(None)
    }

    /// The column of a field; [`Column::Absent`] where no span has it.
    ///
    /// Attributes with a scope, and these intrinsics: name, status, statusMessage, kind, event:name,
    /// event:timeSinceStart, link:traceID, link:spanID, instrumentation:name, instrumentation:version. Status and kind are
    /// [`super::value::Value`]s of their own type among the dictionary's others. Other intrinsics are derived by
    /// evaluation and absent here.
    fn column(&self, field: &Field) -> Result<Column, SegmentError>;

    /// For each row the code of its value in the column's dictionary.
    fn codes(&self, field: &Field) -> Result<Codes, SegmentError>;

    /// As [`Segment::codes`], but codes of rows are those of the wanted ones alone, one for each: for who asks for few of a segment.
    /// Codes of resources and scopes are all of them.
    ///
    /// # Errors
    /// The segment could not be read.
    fn codes_at(&self, field: &Field, wanted: &mut Wanted<'_>) -> Result<Codes, SegmentError> {
        Ok(match self.codes(field)? {
            Codes::Rows(codes) if codes.is_empty() => Codes::Rows(codes),
            Codes::Rows(codes) => {
                let code = |row: &u16| codes.get(usize::from(*row)).copied().unwrap_or(NIL);
                Codes::Rows(wanted.rows().iter().map(code).collect())
            }
            groups => groups,
        })
    }

    /// The value of one row, for columns that hold none ([`Column::Unlisted`]), and for no others.
    fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError>;

    /// Ids of these rows; dear where the segment is on disk.
    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError>;

    /// [`Segment::span_ids`] for those who have all [`Segment::parents`] already.
    ///
    /// # Errors
    /// The disk could not be read.
    fn span_ids_with(&self, rows: Range<usize>, _parents: &[Parent]) -> Result<Vec<Ids>, SegmentError> {
        self.span_ids(rows)
    }

    /// Every attribute name of a scope that any span of the segment has.
    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError>;
}

/// Sealed runs and parts of the tail count from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64, pub u16);

/// Bounds over all rows, both included. Unix nanoseconds, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub min_start: u64,
    pub max_start: u64,
    pub max_end: u64,
    pub min_duration: u64,
    pub max_duration: u64,
}

/// The traces of a segment, in the order of their rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// Ascending.
    pub ids: Vec<TraceId>,
    /// Where the rows of each trace begin; one more than traces, the last is the number of rows.
    pub first_rows: Vec<u32>,
}

impl Traces {
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    #[must_use]
    pub fn rows(&self, trace: usize) -> Range<usize> {
        match (self.first_rows.get(trace), self.first_rows.get(trace + 1)) {
            (Some(first), Some(end)) => *first as usize..*end as usize,
            _ => 0..0,
        }
    }

    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ids.len() * size_of::<TraceId>() + self.first_rows.len() * size_of::<u32>()
    }

    #[must_use]
    pub fn position(&self, id: TraceId) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    /// The trace that a row belongs to.
    #[must_use]
    pub fn of_row(&self, row: usize) -> usize {
        self.first_rows.partition_point(|first| *first as usize <= row).saturating_sub(1)
    }
}

/// Where the parent of a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// It has none.
    Root,
    /// In this row of the same segment.
    Row(u32),
    /// Not in this segment.
    Away,
}

/// `parent` is `None` for roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    pub span: SpanId,
    pub parent: Option<SpanId>,
}

#[derive(Debug, Clone)]
pub enum Column {
    /// No span of the segment has the field.
    Absent,
    /// All values, and codes by [`Segment::codes`].
    Listed(Arc<Dictionary>),
    /// Too many or too long values for a dictionary. `sketches` hold [`sketch`] of each row's value, 0 where there is
    /// none, [`SKETCH_ANY`] where it is not one string; candidates are looked at with [`Segment::cell`].
    Unlisted { sketches: Arc<[u16]> },
}

impl Column {
    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Listed(dictionary) => dictionary.bytes(),
            Self::Unlisted { sketches } => sketches.len() * size_of::<u16>(),
        }
    }
}

/// In place of the sketch of a value that is not one string: it rules nothing out.
pub const SKETCH_ANY: u16 = u16::MAX;

/// 16 bits of a string that rule out most others. Never 0. Part of the format on disk: it must not change.
#[must_use]
pub fn sketch(string: &str) -> u16 {
    // FNV-1a folded: short, the same everywhere, and good enough to rule out nearly all others.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in string.as_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let folded = hash ^ (hash >> 32);
    ((folded ^ (folded >> 16)) as u16).max(1)
}

/// A segment could not be read.
#[derive(Debug, Clone, Error)]
pub enum SegmentError {
    /// The text says what the disk said.
    #[error("stored spans cannot be read: {0}")]
    Read(String),
    /// Retention removed it since the query began: it has no spans any more.
    #[error("the segment is gone")]
    Gone,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
