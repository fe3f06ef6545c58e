//! The ledger: what became of every span, exactly, across restarts.
//!
//! Per pipeline `received = stored + sampled_out + dropped`; per destination `stored = sent + queued + lost`. Pipeline
//! accounts are written together with the batches they count, destination accounts together with the cursor. The store has one
//! cursor over all pipelines, and an account of the same kind.

use super::consumer::LossReason;
use super::{Header, PipelineId};
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
    /// What was sent out of turn, while older batches wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Ahead>,
}

/// A stretch beyond a cursor that is accounted for already, `[from, to)`. The cursor jumps over it when it comes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    pub from: u64,
    pub to: u64,
    /// Spans of the pipeline before `from`, ever.
    pub spans_before: u64,
    /// Spans in the stretch, part of the account's.
    pub spans: u64,
}

impl ConsumerAccount {
    /// Spans of the pipeline that something became of, ever.
    pub fn accounted(&self) -> u64 {
        self.sent + self.lost.values().sum::<u64>()
    }

    /// Those before the cursor: what `Header::spans_before` says of the batch at the cursor.
    pub fn accounted_in_order(&self) -> u64 {
        self.accounted() - self.ahead.map_or(0, |ahead| ahead.spans)
    }

    /// Beyond everything that something became of.
    pub fn end(&self) -> u64 {
        self.ahead.map_or(self.position, |ahead| ahead.to.max(self.position))
    }

    /// Moves the cursor, over the stretch ahead of it as well if it has come there.
    pub(super) fn move_to(&mut self, position: u64) {
        self.position = position;
        if let Some(ahead) = self.ahead.take_if(|ahead| ahead.from <= position) {
            self.position = position.max(ahead.to);
        }
    }

    /// Everything before `end` is gone, where the pipeline had `spans_at_end`: what was still to be sent of it is lost.
    /// Returns how many spans.
    pub(super) fn expire(&mut self, end: u64, spans_at_end: u64, reason: LossReason) -> u64 {
        let spans_gone = match self.ahead {
            // The end lies in what is accounted for: only what was before that is lost.
            Some(ahead) if ahead.from < end && end <= ahead.to => ahead.spans_before,
            Some(ahead) if ahead.to < end => spans_at_end.saturating_sub(ahead.spans),
            _ => spans_at_end,
        };
        let lost = spans_gone.saturating_sub(self.accounted_in_order());
        self.move_to(end);
        self.lose(reason, lost);
        lost
    }

    pub(super) fn lose(&mut self, reason: LossReason, spans: u64) {
        if spans > 0 {
            *self.lost.entry(reason).or_default() += spans;
        }
    }
}

/// The account of the store: the sealed cursor, and what became of every span before it, by pipeline: `stored before it = sealed + lost + before`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedAccount {
    /// The first batch that is in no run; 0 in a directory that never had runs.
    pub position: u64,
    /// In runs, once.
    pub sealed: BTreeMap<u16, u64>,
    /// Dropped by the spool's budget, or damaged, before they were sealed.
    pub lost: BTreeMap<u16, u64>,
    /// Dropped by the spool before there were runs.
    pub before: BTreeMap<u16, u64>,
}

impl SealedAccount {
    /// Spans of a pipeline before the cursor, ever.
    pub fn accounted(&self, pipeline: u16) -> u64 {
        let of = |map: &BTreeMap<u16, u64>| map.get(&pipeline).copied().unwrap_or(0);
        of(&self.sealed) + of(&self.lost) + of(&self.before)
    }

    /// Books what is missing before a batch; returns how many spans.
    pub fn book_gap(&mut self, header: &Header) -> u64 {
        let number = header.pipeline.0;
        if header.spans_before == 0 {
            // The first batch of a pipeline. If the number was another's, that one is forgotten (`Spool::forget`).
            for account in [&mut self.sealed, &mut self.lost, &mut self.before] {
                account.remove(&number);
            }
        }
        let gap = header.spans_before.saturating_sub(self.accounted(number));
        if gap > 0 {
            *self.lost.entry(number).or_default() += gap;
        }
        gap
    }

    pub fn book_sealed(&mut self, header: &Header) {
        *self.sealed.entry(header.pipeline.0).or_default() += u64::from(header.spans);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::TimeRange;
    use proptest::prelude::*;

    #[test]
    fn a_number_that_is_given_out_again_begins_a_new_account() {
        let header = |spans_before, spans| {
            let (pipeline, time) = (PipelineId(3), TimeRange::EMPTY);
            Header { signal: Signal::Traces, raw_bytes: 1, spans, pipeline, spans_before, received: 1, time }
        };
        let mut sealed = SealedAccount::default();
        for (header, gap) in [(header(0, 5), 0), (header(7, 1), 2), (header(0, 4), 0), (header(6, 1), 2)] {
            assert_eq!(sealed.book_gap(&header), gap, "{header:?}");
            sealed.book_sealed(&header);
        }
        assert_eq!((sealed.sealed[&3], sealed.lost[&3]), (5, 2));
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Batches from the cursor on.
        InOrder(u64),
        /// Batches ahead; a stretch that is not there begins so far beyond the cursor.
        Ahead(u64, u64),
        /// Everything before is gone.
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u64..6).prop_map(Step::InOrder),
            (1u64..8, 1u64..6).prop_map(|(beyond, batches)| Step::Ahead(beyond, batches)),
            (0u64..40).prop_map(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn every_span_is_counted_once_whatever_is_sent_ahead_or_expires(
            sizes in proptest::collection::vec(0u64..9, 40),
            steps in proptest::collection::vec(step(), 0..30),
        ) {
            let before = |seq: u64| sizes.iter().take(seq as usize).sum::<u64>();
            let end = sizes.len() as u64;
            let mut account = ConsumerAccount {
                destination: "a".to_owned(),
                pipeline: PipelineId(0),
                position: 0,
                sent: 0,
                lost: BTreeMap::new(),
                parked_bytes: 0,
                ahead: None,
            };
            for step in steps {
                let position = account.position;
                match step {
                    Step::InOrder(batches) => {
                        let to = (position + batches).min(account.ahead.map_or(end, |ahead| ahead.from));
                        account.sent += before(to) - before(position);
                        account.move_to(to);
                    }
                    Step::Ahead(beyond, batches) => {
                        let begun = (position + beyond).min(end);
                        let begun = Ahead { from: begun, to: begun, spans_before: before(begun), spans: 0 };
                        let ahead = account.ahead.unwrap_or(begun);
                        let to = (ahead.to + batches).min(end);
                        let spans = before(to) - before(ahead.to);
                        if ahead.from > position {
                            account.ahead = Some(Ahead { to, spans: ahead.spans + spans, ..ahead });
                            account.sent += spans;
                        }
                    }
                    Step::Expire(to) if to > position => {
                        let ahead: u64 = account.ahead.map_or(0, |ahead| before(ahead.to.min(to)).saturating_sub(before(ahead.from)));
                        let lost = account.expire(to, before(to), LossReason::Age);
                        prop_assert_eq!(lost, before(to) - before(position) - ahead, "what was neither sent nor lost before");
                    }
                    Step::Expire(_) => {}
                }
                prop_assert_eq!(account.accounted_in_order(), before(account.position));
                prop_assert!(account.ahead.is_none_or(|ahead| account.position < ahead.from));
                let ahead = account.ahead.map_or(0, |ahead| before(ahead.to) - before(ahead.from));
                prop_assert_eq!(account.accounted(), before(account.position) + ahead);
            }
        }
    }
}
