//! A consumer of the spool: one durable cursor and the account of what became of the spans behind it.

use super::{Batch, PipelineId, Seq};
use bytes::Bytes;

/// Bounds of one [`Consumer::read`]; the first batch is returned even if it alone exceeds them.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub raw_bytes_max: usize,
    pub spans_max: u64,
    pub batches_max: usize,
}

/// Consecutive batches of the consumer's pipeline.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub batches: Vec<Batch>,
    /// The first number that was read.
    pub from: Seq,
    /// The first number not looked at: where to read on, and what to [`Consumer::advance`] to once the chunk is done.
    pub next: Seq,
}

/// Why spans behind a cursor were not delivered. The label `reason` of `spanreel_spans_expired_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossReason {
    /// The spool's byte budget or the disk's free space demanded it.
    Budget,
    /// Older than the configured age.
    Age,
    /// The destination will never take it; kept aside, see [`Parked`].
    Poison,
    /// The destination took the request and reported these spans as rejected (`partial_success`).
    RejectedByDestination,
    /// The batch could not be read back from disk.
    Damaged,
}

impl LossReason {
    pub const ALL: [LossReason; 5] =
        [Self::Budget, Self::Age, Self::Poison, Self::RejectedByDestination, Self::Damaged];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Age => "age",
            Self::Poison => "poison",
            Self::RejectedByDestination => "rejected_by_destination",
            Self::Damaged => "damaged",
        }
    }
}

/// A request that the destination refuses for good, kept for inspection.
#[derive(Debug, Clone)]
pub struct Parked {
    /// The batch it was part of.
    pub seq: Seq,
    pub spans: u64,
    /// The destination's own words.
    pub answer: String,
    /// One zstd frame of an `ExportTraceServiceRequest`.
    pub frame: Bytes,
}

/// What became of the spans of a chunk: `sent + lost` must be all of them.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub sent: u64,
    pub lost: Vec<(LossReason, u64)>,
    pub parked: Vec<Parked>,
}

/// What a consumer has still before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    pub spans: u64,
    /// When the oldest waiting batch became durable, Unix nanoseconds; `None` when nothing waits.
    pub oldest_received: Option<u64>,
}

/// A named cursor. Cloning gives another handle to the same cursor.
#[derive(Debug, Clone)]
pub struct Consumer {
    _pipeline: PipelineId,
}

impl Consumer {
    /// The first number that is not accounted for yet.
    pub fn position(&self) -> Seq {
        todo!()
    }

    /// Reads on from `from`. An empty chunk means that nothing (of this pipeline) is there yet.
    /// Blocking (disk): call it off the async workers.
    pub fn read(&self, _from: Seq, _limits: ReadLimits) -> Result<Chunk, super::ReadError> {
        todo!()
    }

    /// Returns once a batch numbered `from` or later is durable.
    pub async fn wait(&self, _from: Seq) {
        todo!()
    }

    /// Moves the cursor over `[from, to)` and books the outcome in the same write.
    /// `Ok(false)`: the cursor no longer stood at `from` (the budget expired those batches meanwhile and booked them);
    /// nothing was booked, read on from [`Consumer::position`].
    pub fn advance(&self, _from: Seq, _to: Seq, _outcome: Outcome) -> Result<bool, super::ReadError> {
        todo!()
    }

    pub fn backlog(&self) -> Backlog {
        todo!()
    }
}
