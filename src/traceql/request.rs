//! What is asked besides the query itself. Limits are checked by whoever takes the request from outside.

/// A search. Times are Unix nanoseconds; `[start, end]` is compared with the start of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchRequest {
    pub start: u64,
    pub end: u64,
    /// Traces wanted.
    pub limit: usize,
    /// Spans shown per spanset.
    pub spans_per_spanset: usize,
    /// Traces that are over before this or begin after it are not wanted.
    pub overlapping: Option<Overlap>,
}

/// A time that a trace must not miss, Unix nanoseconds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    pub start: u64,
    pub end: u64,
}

impl Overlap {
    /// Whether something that lasted from `start` to `end` has a moment in it.
    #[must_use]
    pub fn meets(&self, start: u64, end: u64) -> bool {
        start <= self.end && end >= self.start
    }
}

/// Series over time. Interval `i` is `(start + (i - 1) * step, start + i * step]` for `i` from 0 and carries its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeRequest {
    /// Unix nanoseconds, a multiple of the step: the first sample's time.
    pub start: u64,
    /// Unix nanoseconds, a multiple of the step: the last sample's time.
    pub end: u64,
    /// Nanoseconds, not 0.
    pub step: u64,
    /// At most so many exemplars over all series; hints of the query may lower it.
    pub exemplars: usize,
    /// Series beyond this are left out and said so; 0: no limit.
    pub series_max: usize,
}

/// One value per series over the whole of `(start, end]`, Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstantRequest {
    pub start: u64,
    pub end: u64,
    pub series_max: usize,
}

/// Names or values of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagsRequest {
    pub start: u64,
    pub end: u64,
    /// Names per scope, or values; 0: no limit.
    pub count_max: usize,
    /// Their bytes together.
    pub bytes_max: usize,
}
