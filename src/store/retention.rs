//! Retention: the oldest runs go when they are too old, too many, or the disk too full.
//!
//! Runs and spool share one budget of bytes: what a destination has still to get is worth more than history, so a backlog
//! makes runs go, but never more than half of the budget's worth: a destination that is gone must not take all history along.
//! A run goes as a whole, its record first, then its files; pinned traces are copied before. What was sampled out of
//! forwarding may go sooner: which run it is time for is said here, and done by the sealer, who makes it anew.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::format::key::RunKey;
use super::runs::{RunRecord, Runs, RunsError, Unsaved};
use crate::spool::{Spool, unix_nanos};

/// Runs dropped by one call of [`Retention::keep`]: sealing waits meanwhile.
const DROPS_MAX: usize = 16;
/// Runs go while this share of the space that must stay free is still free, so that intake is never refused for them.
const FREE_SPACE_HEADROOM_PERCENT: u64 = 150;

/// After a drop that freed nothing.
const FUTILE_PAUSE: Duration = Duration::from_secs(60);

/// A run whose pinned traces cannot be read now is passed over so long, then looked at again,
const PASS_OVER: Duration = Duration::from_secs(60);
/// and dropped without them after so long: retention must not wait for a disk for ever.
const PASS_OVER_MAX: Duration = Duration::from_secs(60 * 60);

/// How long and how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Since the newest span of a run became durable.
    pub age_max: Option<Duration>,
    /// The same for spans that tail sampling left out of forwarding; `None`: they are kept as all others.
    pub sampled_out_age_max: Option<Duration>,
    /// Of runs, and of what waits in the spool for destinations, together. The newest run may exceed it.
    pub bytes_max: u64,
    /// Free bytes of the disk below which intake is refused.
    pub free_bytes_min: u64,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { age_max: None, sampled_out_age_max: None, bytes_max: u64::MAX, free_bytes_min: 0 }
    }
}

/// Why a run was dropped, or spans of it. The label `reason` of `spanreel_store_dropped_spans_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    Age,
    Size,
    FreeSpace,
    /// Of forwarding, and kept as long as that is.
    SampledOut,
}

impl DropReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
            Self::FreeSpace => "free_space",
            Self::SampledOut => "sampled_out",
        }
    }
}

/// Drops runs. To be called by the thread that seals, and by no other.
pub(super) struct Retention {
    pub settings: RetentionSettings,
    /// Until then nothing is dropped for free space: it would free none.
    futile_until: Cell<Option<Instant>>,
    /// Runs that should have gone and could not; as many as can be read from at all.
    passed_over: BTreeMap<RunKey, PassedOver>,
    /// Runs that cannot be read to be thinned, and until when that is not tried again.
    not_thinned: BTreeMap<RunKey, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct PassedOver {
    since: Instant,
    until: Instant,
}

impl Retention {
    pub fn new(settings: RetentionSettings) -> Self {
        Self { settings, futile_until: Cell::default(), passed_over: BTreeMap::new(), not_thinned: BTreeMap::new() }
    }

    /// Drops what must go now; returns how many runs.
    pub fn keep(&mut self, runs: &Runs, spool: &Spool) -> Result<usize, RunsError> {
        let mut dropped = 0;
        for _ in 0..DROPS_MAX {
            let Some((key, reason)) = self.next(runs, spool) else { return Ok(dropped) };
            let free_before = runs.database().free_bytes().unwrap_or(u64::MAX);
            let waited = self.passed_over.get(&key).map_or(Duration::ZERO, |passed| passed.since.elapsed());
            let unsaved = if waited < PASS_OVER_MAX { Unsaved::Keep } else { Unsaved::GiveUp };
            match runs.drop_run(key, reason, unsaved) {
                Ok(true) => {
                    self.passed_over.remove(&key);
                    dropped += 1;
                }
                Ok(false) => return Ok(dropped),
                Err(RunsError::Read(error)) => {
                    self.pass_over(key, &error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if reason == DropReason::FreeSpace && runs.database().free_bytes().unwrap_or(0) <= free_before {
                // Somebody else holds the files (a snapshot, a query), or fills the disk faster.
                tracing::warn!(
                    "the disk is short of space, and dropping old runs frees none: the others are kept for now; look for \
                     snapshots of the data directory, and for what else fills the disk"
                );
                self.futile_until.set(Some(Instant::now() + FUTILE_PAUSE));
                return Ok(dropped);
            }
        }
        Ok(dropped)
    }

    /// The oldest run that holds what was sampled out longer than it may, and about all of which is decided.
    pub fn next_to_thin(&self, runs: &Runs, spool: &Spool) -> Option<RunKey> {
        let age_max = self.settings.sampled_out_age_max?;
        let view = runs.view();
        let now = Instant::now();
        let is_tried = |run: &&RunRecord| self.not_thinned.get(&run.key()).is_none_or(|until| *until <= now);
        let run = view.unthinned().find(is_tried)?;
        let age = unix_nanos().saturating_sub(run.newest_received);
        let is_due = u128::from(age) > age_max.as_nanos();
        let is_decided = || spool.decided_to().is_none_or(|decided_to| decided_to.0 >= run.end);
        (is_due && is_decided()).then(|| run.key())
    }

    /// The run could not be read: newer ones do not wait for it.
    pub fn pass_over_thinning(&mut self, key: RunKey) {
        let now = Instant::now();
        self.not_thinned.retain(|_, until| *until > now);
        self.not_thinned.insert(key, now + PASS_OVER);
    }

    fn pass_over(&mut self, key: RunKey, error: &dyn std::fmt::Display) {
        let now = Instant::now();
        let passed = self.passed_over.entry(key).or_insert_with(|| {
            tracing::warn!(
                run = key.first,
                %error,
                "an old run holds pinned traces and cannot be read now: it is passed over for up to an hour"
            );
            PassedOver { since: now, until: now }
        });
        passed.until = now + PASS_OVER;
    }

    /// The run to be dropped next, if any must: the oldest that is not passed over.
    fn next(&self, runs: &Runs, spool: &Spool) -> Option<(RunKey, DropReason)> {
        let view = runs.view();
        let is_passed_over =
            |key: RunKey| self.passed_over.get(&key).is_some_and(|passed| Instant::now() < passed.until);
        let oldest = view.records().find(|run| !is_passed_over(run.key()))?;
        let reason = self.reason(runs, spool, oldest)?;
        Some((oldest.key(), reason))
    }

    fn reason(&self, runs: &Runs, spool: &Spool, oldest: &RunRecord) -> Option<DropReason> {
        let view = runs.view();
        let age = unix_nanos().saturating_sub(oldest.newest_received);
        if self.settings.age_max.is_some_and(|age_max| u128::from(age) > age_max.as_nanos()) {
            return Some(DropReason::Age);
        }
        let bytes: u64 = view.records().map(|run| run.file_bytes).sum();
        let backlog = spool.waiting_bytes().min(self.settings.bytes_max / 2);
        // The newest run stays, also in a budget that is too small for it: what came just now can be searched.
        let is_newest = view.records().next_back().is_some_and(|newest| newest.key() == oldest.key());
        if bytes.saturating_add(backlog) > self.settings.bytes_max && !is_newest {
            return Some(DropReason::Size);
        }
        if self.futile_until.get().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let free_min = self.settings.free_bytes_min.saturating_mul(FREE_SPACE_HEADROOM_PERCENT) / 100;
        // A file system that cannot say is not taken for full.
        let free = runs.database().free_bytes().unwrap_or(u64::MAX);
        (free < free_min).then_some(DropReason::FreeSpace)
    }
}
