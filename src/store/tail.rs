//! The tail: what no run has yet, searchable the moment it is acknowledged.
//!
//! ```text
//! spool   head ── sealed ──┬────────┬────────┬──┬──┬─── end
//! groups                   │ closed │ closed │ …│op│        batches of a few MiB; the open one is made anew as it grows
//!                          segment   segment     segment
//! ```
//!
//! Groups are planned by the headers of batches and built when a query comes; between queries they stay in memory up to
//! a budget, as columns without the bytes of spans. What was evicted, or is too much to be built beforehand (a long
//! backlog), is built when a query reads it.
//!
//! Invariants: a query sees every batch that was acknowledged before it began, and no batch twice; a damaged batch is
//! passed over; building twice gives the same rows, or [`SegmentError::Gone`].

mod group;
mod plan;
mod prints;
mod segment;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::build::Builder;
use crate::otlp::TraceId;
use crate::spool::{Batch, ReadError, Seq, Spool};
use crate::traceql::segment::{Piece, Segment, SegmentError};
use group::Group;
use plan::Plan;
use prints::Prints;
use segment::{RawBatches, TailSegment};

/// What a tail may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailSettings {
    /// Bytes of columns kept from one query to the next; the segments in use may exceed it by one each.
    pub resident_bytes_max: usize,
    /// A tail of up to so many raw bytes is built as a whole when a query comes, so that everything is known of it; of a
    /// longer one only what the query reads.
    pub whole_raw_bytes_max: u64,
}

impl Default for TailSettings {
    fn default() -> Self {
        // A sealer that keeps up leaves up to 20 MiB raw, which are 4 MiB of columns.
        Self { resident_bytes_max: 4 << 20, whole_raw_bytes_max: 30 << 20 }
    }
}

/// Reads the spool. Clones share what is built.
#[derive(Clone)]
pub struct Tail {
    shared: Arc<Shared>,
}

struct Shared {
    spool: Spool,
    settings: TailSettings,
    state: Mutex<State>,
    builder: Mutex<Builder>,
    /// Counts uses of groups.
    clock: AtomicU64,
    /// The clock when [`Tail::release_idle`] last looked.
    idle_since: AtomicU64,
}

#[derive(Default)]
struct State {
    plan: Plan,
    /// Of all groups in the plan, once they are known.
    prints: Option<Arc<Prints>>,
}

/// The tail as it stood at one moment.
pub(super) struct TailView {
    shared: Arc<Shared>,
    groups: Vec<Arc<Group>>,
    prints: Option<Arc<Prints>>,
    raw: Arc<RawBatches>,
}

impl Tail {
    #[must_use]
    pub fn new(spool: Spool, settings: TailSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                spool,
                settings,
                state: Mutex::default(),
                builder: Mutex::new(Builder::of_any_width()),
                clock: AtomicU64::new(0),
                idle_since: AtomicU64::new(0),
            }),
        }
    }

    /// Gives back the memory of segments that no query read since the last call, and of those before `first`, which are
    /// sealed or gone.
    pub(super) fn release_idle(&self, first: Seq) {
        let shared = &self.shared;
        let idle_since = shared.idle_since.swap(shared.now(), Ordering::Relaxed);
        let groups = lock(&shared.state).plan.groups();
        let is_idle = |group: &&Arc<Group>| group.last_used() < idle_since || group.cut.batches.end <= first.0;
        let idle: Vec<_> = groups.iter().filter(is_idle).filter(|group| group.resident_bytes() > 0).collect();
        if idle.is_empty() {
            return;
        }
        idle.iter().for_each(|group| group.evict());
    }

    /// The batches `range` of the spool. Blocking.
    ///
    /// # Errors
    /// The disk could not be read.
    pub(super) fn view(&self, range: Range<Seq>) -> Result<TailView, ReadError> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        let followed = state.plan.follow(range, |seq| shared.spool.trace_header(seq));
        if !matches!(followed, Ok(false)) {
            state.prints = None;
        }
        followed?;
        let whole = state.plan.raw_bytes() <= shared.settings.whole_raw_bytes_max;
        let groups = state.plan.groups();
        if whole {
            for group in groups.iter().filter(|group| group.facts().is_none()) {
                // What could not be read says so when the query reads it.
                let _ = group.resident(shared);
                shared.trim(&groups);
            }
        }
        if state.prints.is_none() {
            state.prints = Prints::of(&groups).map(Arc::new);
        }
        let prints = state.prints.clone();
        drop(state);
        shared.trim(&groups);
        Ok(TailView { shared: Arc::clone(shared), groups, prints, raw: Arc::default() })
    }
}

impl TailView {
    /// The segments that may hold spans starting within `[start, end]`.
    pub fn segments(&self, start: u64, end: u64) -> impl Iterator<Item = Arc<dyn Segment>> {
        let in_range = move |group: &&Arc<Group>| {
            let times = group.times();
            times.min_start <= end && times.max_start >= start
        };
        self.groups.iter().filter(in_range).map(|group| self.segment(group))
    }

    fn segment(&self, group: &Arc<Group>) -> Arc<dyn Segment> {
        Arc::new(TailSegment::new(Arc::clone(&self.shared), Arc::clone(group), Arc::clone(&self.raw)))
    }

    /// All pieces of a trace in the tail, oldest first.
    pub fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let print = trace.fingerprint();
        let unknown = self.groups.iter().any(|group| group.facts().is_none());
        let batches = if unknown {
            self.shared.spool.find(print).map_err(|error| SegmentError::Read(error.to_string()))?
        } else {
            Vec::new()
        };
        let mut pieces = Vec::new();
        for group in &self.groups {
            let candidate = match group.facts() {
                Some(facts) => facts.may_hold(print),
                None => batches.iter().any(|seq| group.cut.batches.contains(&seq.0)),
            };
            if !candidate {
                continue;
            }
            let segment = self.segment(group);
            match segment.traces() {
                Ok(traces) => pieces.extend(traces.position(trace).map(|trace| Piece { segment, trace })),
                Err(SegmentError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pieces)
    }

    /// Whether the tail has no spans at all.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether the tail may hold spans of a trace; never falsely `false`.
    pub fn may_hold(&self, trace: TraceId) -> bool {
        !self.is_empty() && self.prints.as_ref().is_none_or(|prints| prints.may_hold(trace.fingerprint()))
    }

    /// Whether several segments of the tail may hold spans of a trace; never falsely `false`.
    pub fn may_be_split(&self, trace: TraceId) -> bool {
        self.groups.len() > 1 && self.prints.as_ref().is_none_or(|prints| prints.may_be_split(trace.fingerprint()))
    }
}

impl Shared {
    /// Evicts what was not used for longest of these, until what is left fits the budget.
    fn trim(&self, groups: &[Arc<Group>]) {
        let mut resident: Vec<(u64, usize, &Arc<Group>)> = groups
            .iter()
            .map(|group| (group.last_used(), group.resident_bytes(), group))
            .filter(|(_, bytes, _)| *bytes > 0)
            .collect();
        let mut bytes: usize = resident.iter().map(|(_, bytes, _)| bytes).sum();
        resident.sort_unstable_by_key(|(used, ..)| *used);
        // The last one used stays, however large: somebody is reading it.
        resident.pop();
        for (_, group_bytes, group) in resident {
            if bytes <= self.settings.resident_bytes_max {
                return;
            }
            group.evict();
            bytes -= group_bytes;
        }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The bytes of a batch; `None` if it is gone or damaged.
    fn inflated(&self, seq: Seq) -> Result<Option<Bytes>, ReadError> {
        Ok(self.spool.trace_batch(seq)?.as_ref().and_then(inflate))
    }
}

/// One damaged batch must not hide the others: it is reported and passed over.
pub(super) fn inflate(batch: &Batch) -> Option<Bytes> {
    match zstd::bulk::decompress(&batch.frame, batch.header.raw_bytes as usize) {
        Ok(request) => Some(request.into()),
        Err(error) => {
            tracing::error!(batch = batch.seq.0, %error, "a stored batch cannot be inflated; its spans are not shown");
            None
        }
    }
}

/// What is guarded here is whole between any two steps, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
