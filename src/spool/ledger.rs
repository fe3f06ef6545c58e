//! The ledger: what became of every span, exactly, across restarts.
//!
//! Per pipeline `received = stored + sampled_out + dropped`; per destination `stored = sent + queued + lost`. Pipeline
//! accounts are written together with the batches they count, destination accounts together with the cursor.

use super::PipelineId;
use super::consumer::LossReason;
use crate::otlp::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why spans that were received for good were not stored. The label `reason` of `spanreel_spans_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The trace or span id is missing, zero or of the wrong length; the client was told by `partial_success`,
    /// unless a processor made it so.
    InvalidId,
    /// A processor's condition dropped it.
    Filtered,
}

impl DropReason {
    pub const ALL: [DropReason; 2] = [Self::InvalidId, Self::Filtered];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::Filtered => "filtered",
        }
    }
}

/// The account of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PipelineAccount {
    pub name: String,
    /// What is counted: spans, data points or log records.
    #[serde(default)]
    pub signal: Signal,
    /// Spans of requests that were answered for good. A refused request (retryable) is not received: it comes again.
    pub received: u64,
    pub stored: u64,
    #[serde(default)]
    pub sampled_out: u64,
    #[serde(default)]
    pub dropped: BTreeMap<DropReason, u64>,
}

impl PipelineAccount {
    /// The first equation.
    pub fn balances(&self) -> bool {
        self.received == self.stored + self.sampled_out + self.dropped.values().sum::<u64>()
    }
}

/// All pipelines that this data directory knows, in the order of their [`PipelineId`]. One that was forgotten leaves an
/// account without a name, until its number is given out again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    pub pipelines: Vec<PipelineAccount>,
    /// Spans that forgotten pipelines stored.
    #[serde(default)]
    pub forgotten: u64,
    /// Spans that were durable once and were gone at a start, because something damaged the log.
    #[serde(default)]
    pub lost_to_damage: u64,
}

impl Ledger {
    pub fn account(&self, id: PipelineId) -> Option<&PipelineAccount> {
        self.pipelines.get(usize::from(id.0))
    }

    /// Without those that were forgotten.
    pub fn known(&self) -> impl Iterator<Item = (PipelineId, &PipelineAccount)> {
        let numbered = (0u16..).zip(&self.pipelines);
        numbered.filter(|(_, account)| !account.name.is_empty()).map(|(id, account)| (PipelineId(id), account))
    }

    pub(super) fn stored_spans(&self) -> u64 {
        self.forgotten + self.pipelines.iter().map(|account| account.stored).sum::<u64>()
    }

    pub(super) fn account_mut(&mut self, id: PipelineId) -> Option<&mut PipelineAccount> {
        self.pipelines.get_mut(usize::from(id.0))
    }

    /// The id of a pipeline by name, and whether it is new; `is_free` says which forgotten ones' may be given out again.
    pub(super) fn register(
        &mut self,
        name: &str,
        signal: Signal,
        is_free: impl Fn(PipelineId) -> bool,
    ) -> Option<(PipelineId, bool)> {
        if let Some((id, _)) = self.known().find(|(_, account)| account.name == name) {
            return Some((id, false));
        }
        let new = PipelineAccount { name: name.to_owned(), signal, ..PipelineAccount::default() };
        let forgotten = (0u16..).zip(&mut self.pipelines).filter(|(_, account)| account.name.is_empty());
        for (id, account) in forgotten {
            if is_free(PipelineId(id)) {
                *account = new;
                return Some((PipelineId(id), true));
            }
        }
        let id = PipelineId(u16::try_from(self.pipelines.len()).ok()?);
        self.pipelines.push(new);
        Some((id, true))
    }

    pub(super) fn forget(&mut self, id: PipelineId) {
        if let Some(account) = self.account_mut(id) {
            let stored = std::mem::take(account).stored;
            self.forgotten += stored;
        }
    }
}

/// The account of one destination: its cursor and everything before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerAccount {
    pub destination: String,
    pub pipeline: PipelineId,
    /// The first batch that is not accounted for.
    pub position: u64,
    pub sent: u64,
    #[serde(default)]
    pub lost: BTreeMap<LossReason, u64>,
    /// Bytes of frames kept aside for inspection.
    #[serde(default)]
    pub parked_bytes: u64,
}

impl ConsumerAccount {
    /// Spans of the pipeline before the cursor, ever: what `Header::spans_before` says of the batch at the cursor.
    pub fn accounted(&self) -> u64 {
        self.sent + self.lost.values().sum::<u64>()
    }

    pub(super) fn lose(&mut self, reason: LossReason, spans: u64) {
        if spans > 0 {
            *self.lost.entry(reason).or_default() += spans;
        }
    }
}
