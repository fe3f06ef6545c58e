//! The decider of one pipeline: takes batches whose time has come, and judges the traces in them by all that is there.

use super::verdict::{Verdict, seq_of_key, verdict_key};
use super::{DecisionLabels, PipelineLabels, Sampling, SamplingMetrics};
use crate::forward::body;
use crate::otlp::TraceId;
use crate::process::tail_sampling::{Decision, Facts, Sampler};
use crate::spool::{Batch, Consumer, LossReason, Note, Outcome, ReadError, ReadLimits, SampledOut, Seq, Spool};
use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Of one step: batches whose traces are judged together.
const STEP: ReadLimits = ReadLimits { raw_bytes_max: 8 * 1024 * 1024, spans_max: u64::MAX, batches_max: 512 };
/// Facts of batches that are kept, so that a batch is inflated once where there is room. A trace takes about 80 bytes.
const FACTS_MAX: usize = 64 * 1024;
/// Batches of other pipelines are passed over in one write of at least so many.
const FOREIGN_BATCHES_MIN: u64 = 256;

/// What the decider does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// More has waited long enough already.
    Now,
    Later,
}

/// A decision that spans may still come for.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    is_kept: bool,
    /// The last batch that held spans of the trace when it was decided.
    last: Seq,
}

type TraceFacts = Arc<[(TraceId, Facts)]>;

/// What a step is about to write.
pub(super) struct Judged {
    from: Seq,
    to: Seq,
    /// Every batch that was due was looked at, and none was not due.
    is_all: bool,
    batches: Vec<(Batch, TraceFacts)>,
    /// Traces that were not decided before.
    decided: Vec<(TraceId, Decision)>,
}

pub(super) struct Decider {
    pipeline: String,
    /// By policy, and one for traces that none settled: kept and not.
    counters: Vec<[Counter; 2]>,
    wait: Duration,
    /// Of one step; tests take smaller ones.
    pub(super) limits: ReadLimits,
    spool: Spool,
    consumer: Consumer,
    sampler: Sampler,
    /// Traces that are sampled out are marked for the store.
    marks: bool,
    metrics: SamplingMetrics,
    facts: FactsCache,
    remembered: HashMap<TraceId, Remembered, RandomState>,
    /// In the order in which they were decided.
    order: VecDeque<TraceId>,
    remembered_max: usize,
    /// Written decisions about traces that go on behind the cursor: the note's key, and the last batch that needs it.
    open: VecDeque<(Vec<u8>, Seq)>,
    /// Verdicts on batches before it were taken away.
    forgotten_to: Seq,
}

impl Decider {
    /// Takes up what an earlier one noted. Blocking.
    pub(super) fn open(sampling: &Sampling) -> Result<Self, ReadError> {
        let Sampling { pipeline, settings, spool, consumer, marks, metrics, .. } = sampling;
        let mut decider = Self {
            pipeline: pipeline.clone(),
            counters: counters(sampling),
            wait: settings.decision_wait,
            limits: STEP,
            sampler: Sampler::new(settings),
            marks: *marks,
            metrics: metrics.clone(),
            facts: FactsCache::default(),
            remembered: HashMap::default(),
            order: VecDeque::new(),
            remembered_max: usize::try_from(settings.num_traces).unwrap_or(usize::MAX),
            open: VecDeque::new(),
            forgotten_to: Seq::FIRST,
            spool: spool.clone(),
            consumer: consumer.clone(),
        };
        for (key, value) in decider.consumer.notes(OPEN_PREFIX, OPEN_END)? {
            let mut last = Seq::FIRST;
            for (id, remembered) in decode_open(&value) {
                last = last.max(remembered.last);
                decider.remember(id, remembered);
            }
            decider.open.push_back((key, last));
        }
        Ok(decider)
    }

    /// Judges the next traces whose time has come at `now` (Unix nanoseconds), if any. Blocking.
    pub(super) fn step(&mut self, now: u64) -> Result<Next, ReadError> {
        match self.judge(now)? {
            Some(judged) => self.settle(&judged),
            None => Ok(Next::Later),
        }
    }

    /// Decides, without writing anything yet; `None`: nothing's time has come.
    pub(super) fn judge(&mut self, now: u64) -> Result<Option<Judged>, ReadError> {
        let from = self.consumer.position();
        let mut chunk = self.consumer.read(from, self.limits)?;
        let wait = u64::try_from(self.wait.as_nanos()).unwrap_or(u64::MAX);
        // A clock that was set back must not make traces wait longer than that.
        let is_due = |batch: &Batch| batch.header.received.saturating_add(wait) <= now || batch.header.received > now;
        let due = chunk.batches.iter().take_while(|batch| is_due(batch)).count();
        let is_all = due == chunk.batches.len();
        let to = chunk.batches.get(due).map_or(chunk.next, |batch| batch.seq);
        if due == 0 && to.0.saturating_sub(from.0) < FOREIGN_BATCHES_MIN {
            return Ok(None);
        }
        chunk.batches.truncate(due);
        let mut batches = Vec::with_capacity(due);
        for batch in chunk.batches {
            let facts = self.facts_of(&batch);
            batches.push((batch, facts));
        }
        let decided = self.decide(&batches, to)?;
        Ok(Some(Judged { from, to, is_all, batches, decided }))
    }

    /// Writes what was decided. Where that is not possible nothing was: what is not written must not be remembered.
    pub(super) fn settle(&mut self, judged: &Judged) -> Result<Next, ReadError> {
        let booked = self.book(judged);
        if matches!(booked, Ok(true)) {
            judged.decided.iter().for_each(|(_, decision)| self.count(*decision));
        } else {
            self.forget(&judged.decided);
        }
        booked?;
        Ok(if judged.is_all && judged.to < self.spool.range().end { Next::Now } else { Next::Later })
    }

    /// Decides about every trace of `batches`, which end before `to`, that is not decided yet, by all that is there of it.
    fn decide(&mut self, batches: &[(Batch, TraceFacts)], to: Seq) -> Result<Vec<(TraceId, Decision)>, ReadError> {
        /// What is known of an undecided trace.
        struct Undecided {
            facts: Facts,
            arrived: u64,
            last: Seq,
        }
        let mut undecided: HashMap<TraceId, Undecided, RandomState> = HashMap::default();
        let mut order = Vec::new();
        for (batch, traces) in batches {
            for (id, facts) in traces.iter().filter(|(id, _)| !self.remembered.contains_key(id)) {
                let known = undecided.entry(*id).or_insert_with(|| {
                    order.push(*id);
                    Undecided { facts: Facts::NONE, arrived: batch.header.received, last: batch.seq }
                });
                known.facts.join(facts);
                known.last = batch.seq;
            }
        }
        if order.is_empty() {
            return Ok(Vec::new());
        }
        let keys = order.iter().map(|id| id.fingerprint()).collect();
        for seq in self.spool.find_any(&keys, to..self.spool.range().end)? {
            let Some(traces) = self.facts_at(seq)? else { continue };
            for (id, facts) in traces.iter() {
                if let Some(known) = undecided.get_mut(id) {
                    known.facts.join(facts);
                    known.last = seq;
                }
            }
        }
        let mut decided = Vec::with_capacity(order.len());
        for id in order {
            let Some(known) = undecided.get(&id) else { continue };
            let decision = self.sampler.decide(id, &known.facts, known.arrived);
            self.remember(id, Remembered { is_kept: decision.is_kept, last: known.last });
            decided.push((id, decision));
        }
        Ok(decided)
    }

    /// Writes the verdicts and moves the cursor. False: the budget moved the cursor meanwhile, and the next step begins
    /// there.
    fn book(&mut self, judged: &Judged) -> Result<bool, ReadError> {
        let Judged { from, to, batches, decided, .. } = judged;
        let (from, to) = (*from, *to);
        let (mut outcome, mut notes) = (Outcome::default(), Vec::new());
        for (batch, traces) in batches {
            // One that could not be read is no trace's and goes out whole, or is booked as damaged by who sends it.
            let is_kept = |id: &TraceId| self.remembered.get(id).is_none_or(|remembered| remembered.is_kept);
            let verdict = Verdict::of(traces.iter().map(|(id, facts)| (is_kept(id), facts.spans)));
            let sampled_out = u64::from(verdict.sampled_out);
            outcome.sent += u64::from(batch.header.spans).saturating_sub(sampled_out);
            if sampled_out > 0 {
                outcome.lost.push((LossReason::SampledOut, sampled_out));
                notes.push(Note { key: verdict_key(batch.seq), value: Some(verdict.encode()) });
                if self.marks {
                    let sampled_out = traces.iter().filter(|(id, _)| !is_kept(id));
                    let marks = sampled_out.map(|(id, facts)| (id.long_fingerprint(), facts.spans));
                    outcome.marks.push(SampledOut { batch: batch.seq, traces: marks.collect() });
                }
            }
        }
        let mut open = self.open.clone();
        while let Some((key, _)) = open.front().filter(|(_, last)| *last < to).cloned() {
            open.pop_front();
            notes.push(Note { key, value: None });
        }
        let going_on = decided.iter().filter_map(|(id, _)| Some((*id, *self.remembered.get(id)?)));
        let going_on: Vec<_> = going_on.filter(|(_, remembered)| remembered.last >= to).collect();
        if let Some(last) = going_on.iter().map(|(_, remembered)| remembered.last).max() {
            let key = [OPEN_PREFIX, from.key().as_slice()].concat();
            notes.push(Note { key: key.clone(), value: Some(encode_open(&going_on)) });
            open.push_back((key, last));
        }
        // Batches that every destination has are gone, and nobody asks for their verdicts any more.
        let head = self.spool.range().start;
        for (key, _) in self.consumer.notes(&verdict_key(self.forgotten_to), &verdict_key(head))? {
            notes.extend(seq_of_key(&key).map(|_| Note { key, value: None }));
        }
        let booked = self.consumer.advance_noting(from, to, outcome, &notes)?;
        if booked {
            self.open = open;
            self.forgotten_to = head;
            self.facts.forget_before(to);
            self.shed(to);
        }
        Ok(booked)
    }

    fn remember(&mut self, id: TraceId, remembered: Remembered) {
        if self.remembered.insert(id, remembered).is_none() {
            self.order.push_back(id);
        }
    }

    /// Takes back what was remembered last.
    fn forget(&mut self, decided: &[(TraceId, Decision)]) {
        for (id, _) in decided {
            self.remembered.remove(id);
        }
        self.order.truncate(self.order.len().saturating_sub(decided.len()));
    }

    /// Keeps to the bound: the oldest decisions go. One that is still needed is decided again by what is left of its trace.
    fn shed(&mut self, position: Seq) {
        while self.order.len() > self.remembered_max {
            let Some(id) = self.order.pop_front() else { return };
            if self.remembered.remove(&id).is_some_and(|remembered| remembered.last >= position) {
                self.metrics.again.get_or_create(&PipelineLabels { pipeline: self.pipeline.clone() }).inc();
            }
        }
    }

    fn count(&self, decision: Decision) {
        let none = self.counters.len().saturating_sub(1);
        let Some([kept, not_kept]) = self.counters.get(decision.policy.unwrap_or(none)) else { return };
        if decision.is_kept {
            kept.inc()
        } else {
            not_kept.inc()
        };
    }

    /// The facts of a batch of this pipeline; `None` for one of another, or one that is gone.
    fn facts_at(&mut self, seq: Seq) -> Result<Option<TraceFacts>, ReadError> {
        if let Some(known) = self.facts.get(seq) {
            return Ok(Some(known));
        }
        let found = self.spool.batch(seq)?.filter(|batch| batch.header.pipeline == self.consumer.pipeline());
        Ok(found.map(|batch| self.facts_of(&batch)))
    }

    /// None for a batch that cannot be read: nothing in it is judged.
    fn facts_of(&mut self, batch: &Batch) -> TraceFacts {
        if let Some(known) = self.facts.get(batch.seq) {
            return known;
        }
        let facts: TraceFacts = match body::inflate(&batch.frame, batch.header.raw_bytes as usize) {
            Ok(request) => self.sampler.questions().look(&request).into(),
            Err(problem) => {
                tracing::error!(pipeline = self.pipeline, batch = batch.seq.0, error = %problem, "a stored batch is not judged");
                Arc::from([])
            }
        };
        self.facts.put(batch.seq, Arc::clone(&facts));
        facts
    }
}

/// Looked up once, since there is a decision for each trace.
fn counters(sampling: &Sampling) -> Vec<[Counter; 2]> {
    let counter = |policy: &str, decision| {
        let labels = DecisionLabels { pipeline: sampling.pipeline.clone(), policy: policy.to_owned(), decision };
        sampling.metrics.traces.get_or_create(&labels).clone()
    };
    let policies = sampling.settings.policies.iter().map(|policy| policy.name.as_str());
    policies.chain([""]).map(|policy| [counter(policy, "sampled"), counter(policy, "not_sampled")]).collect()
}

/// Facts of batches ahead of the cursor, bounded by the number of traces in them.
#[derive(Default)]
struct FactsCache {
    batches: BTreeMap<Seq, TraceFacts>,
    traces: usize,
}

impl FactsCache {
    fn get(&self, seq: Seq) -> Option<TraceFacts> {
        self.batches.get(&seq).cloned()
    }

    fn put(&mut self, seq: Seq, facts: TraceFacts) {
        self.traces += facts.len() + 1;
        self.batches.insert(seq, facts);
        // What is furthest ahead is needed last.
        while self.traces > FACTS_MAX {
            let Some((_, gone)) = self.batches.pop_last() else { return };
            self.traces -= gone.len() + 1;
        }
    }

    fn forget_before(&mut self, position: Seq) {
        let kept = self.batches.split_off(&position);
        self.traces -= self.batches.values().map(|facts| facts.len() + 1).sum::<usize>();
        self.batches = kept;
    }
}

/// Notes about traces that go on behind the cursor: `o`, the first batch of the step.
const OPEN_PREFIX: &[u8] = b"o";
const OPEN_END: &[u8] = b"p";
/// Trace id, last batch (big endian), whether it is kept.
const OPEN_LEN: usize = 16 + 8 + 1;

fn encode_open(traces: &[(TraceId, Remembered)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(traces.len() * OPEN_LEN);
    for (id, remembered) in traces {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&remembered.last.key());
        out.push(u8::from(remembered.is_kept));
    }
    out
}

fn decode_open(value: &[u8]) -> impl Iterator<Item = (TraceId, Remembered)> {
    let (entries, _) = value.as_chunks::<OPEN_LEN>();
    entries.iter().filter_map(|entry| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        let (last, kept) = rest.split_first_chunk::<8>()?;
        let last = Seq(u64::from_be_bytes(*last));
        Some((TraceId(*id), Remembered { is_kept: kept != [0], last }))
    })
}
