//! Which traces have spans in more than one segment.
//!
//! When a run is registered, its traces are compared with those of the latest segments, exactly (by fingerprint, so a
//! trace may now and then be taken for split that is not), and are looked for by id in those older ones whose spans overlap
//! theirs in time. Both sides are marked. So a trace is missed only if its pieces are further apart than [`TRACES_MAX`] other
//! traces and do not overlap in time; its search results may then show the trace twice.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use foldhash::HashMap;

use super::filter::Filter;
use super::record::load_splits;
use super::{RunSegment, RunsError};
use crate::otlp::TraceId;
use crate::spool::Database;
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Segment, SegmentError, SegmentId};

/// Traces of the latest segments that are kept in memory, 8 bytes each with the filter.
const TRACES_MAX: usize = 400_000;
/// Look-ups in older segments per new one, a few microseconds each. When they do not suffice, all traces of the segments
/// that were not looked into count as split.
const PROBES_MAX: usize = 20_000;

/// Numbers of traces that are split, by segment. Sorted.
pub(super) type Marks = BTreeMap<SegmentId, Vec<u32>>;

/// Stands for all traces of a segment.
const ALL: u32 = u32::MAX;
/// Marks in memory, 4 bytes each. Beyond that all traces of the segments with the most marks count as split: that costs
/// searches time, and no answer.
const MARKS_MAX: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct Splits {
    marks: RwLock<HashMap<SegmentId, Arc<[u32]>>>,
    latest: Mutex<Latest>,
}

/// The latest segments, oldest first.
#[derive(Default)]
struct Latest {
    recent: VecDeque<Recent>,
    /// Of all their traces, made when it is asked first: one look instead of a search in each segment.
    filter: Option<Filter>,
}

/// The traces of a segment.
pub(super) struct Recent {
    segment: SegmentId,
    /// Sorted.
    fingerprints: Vec<u32>,
    /// The number of each one's trace.
    numbers: Vec<u16>,
}

impl Splits {
    pub fn load(database: &Database) -> Result<Self, RunsError> {
        let mut marks = load_splits(database)?.into_iter().map(|(segment, traces)| (segment, traces.into())).collect();
        bound(&mut marks, MARKS_MAX);
        Ok(Self { marks: RwLock::new(marks), latest: Mutex::default() })
    }

    pub fn contains(&self, segment: SegmentId, trace: usize) -> bool {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let Some(traces) = marks.get(&segment) else { return false };
        traces.last() == Some(&ALL) || traces.binary_search(&(trace as u32)).is_ok()
    }

    /// All traces of a segment that are split.
    pub fn of(&self, segment: SegmentId, traces: usize) -> Mask {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let marked = marks.get(&segment).map_or(&[][..], |marked| &**marked);
        if marked.last() == Some(&ALL) {
            return Mask::all(traces);
        }
        let mut split = Mask::none(traces);
        marked.iter().for_each(|trace| split.set(*trace as usize));
        split
    }

    /// Reads the traces of the latest segments.
    pub fn remember(&self, segments: &[Arc<RunSegment>]) {
        let mut latest = self.latest();
        let recent = latest.changed();
        let mut traces = 0;
        for segment in segments.iter().rev() {
            traces += segment.record().traces as usize;
            if traces > TRACES_MAX {
                break;
            }
            match Recent::read(segment) {
                Ok(read) => recent.push_back(read),
                // It is set aside.
                Err(SegmentError::Gone) => {}
                // It counts as older, and is looked into.
                Err(_) => break,
            }
        }
        recent.make_contiguous().reverse();
    }

    #[cfg(test)]
    pub fn forget_recent(&self) {
        self.latest().changed().clear();
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of the latest segments has a trace, and how many segments are older than those.
    pub fn recently(&self, trace: TraceId, segments: &[Arc<RunSegment>]) -> (bool, usize) {
        let mut latest = self.latest();
        (latest.has(trace.fingerprint()), older_than(&latest.recent, segments))
    }

    /// What `new` segments have in common with each other and with those before.
    pub fn find(&self, before: &[Arc<RunSegment>], new: &[Arc<RunSegment>]) -> Result<Marks, RunsError> {
        let mut marks = Marks::new();
        for segment in new {
            let fresh = match Recent::read(segment) {
                Ok(fresh) => fresh,
                Err(SegmentError::Gone) => continue,
                Err(error) => return Err(RunsError::Read(error)),
            };
            let mut latest = self.latest();
            let recent = latest.changed();
            for other in recent.iter().filter(|other| other.segment != fresh.segment) {
                other.in_common(&fresh, |there, here| {
                    marks.entry(other.segment).or_default().push(u32::from(there));
                    marks.entry(fresh.segment).or_default().push(u32::from(here));
                });
            }
            let older = older_than(recent, before);
            // An attempt that failed may have left it.
            recent.retain(|other| other.segment != fresh.segment);
            recent.push_back(fresh);
            let mut traces: usize = recent.iter().map(|recent| recent.numbers.len()).sum();
            while traces > TRACES_MAX && recent.len() > 1 {
                traces -= recent.pop_front().map_or(0, |recent| recent.numbers.len());
            }
            drop(latest);
            probe(before.get(..older).unwrap_or_default(), segment, &mut marks)?;
        }
        for traces in marks.values_mut() {
            traces.sort_unstable();
            traces.dedup();
        }
        Ok(marks)
    }

    /// The marks of these segments together with those they have already.
    pub fn merged(&self, new: &Marks) -> Marks {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let merge = |(segment, traces): (&SegmentId, &Vec<u32>)| {
            let mut all: Vec<u32> = marks.get(segment).map_or_else(Vec::new, |known| known.to_vec());
            all.extend_from_slice(traces);
            all.sort_unstable();
            all.dedup();
            if all.last() == Some(&ALL) {
                all = vec![ALL];
            }
            (*segment, all)
        };
        new.iter().map(merge).collect()
    }

    pub fn add(&self, new: &Marks) {
        let merged = self.merged(new);
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        marks.extend(merged.into_iter().map(|(segment, traces)| (segment, traces.into())));
        bound(&mut marks, MARKS_MAX);
    }

    /// The traces of `new` that are split, going by the segments that it was made of.
    pub fn inherited(&self, old: &[Arc<RunSegment>], new: &RunSegment) -> Result<Vec<u32>, SegmentError> {
        let traces = new.traces()?;
        let mut marked = vec![false; traces.len()];
        for old in old {
            let before = old.traces()?;
            for (number, is_marked) in traces.ids.iter().zip(&mut marked) {
                *is_marked |= before.position(*number).is_some_and(|number| self.contains(old.id(), number));
            }
        }
        Ok((0u32..).zip(marked).filter_map(|(number, is_marked)| is_marked.then_some(number)).collect())
    }

    /// Other segments stand in the place of these, which were there together. Marks of these stay for queries that have begun,
    /// until they are forgotten.
    pub fn replace(&self, old: &[Arc<RunSegment>], new: Vec<Recent>) {
        let mut latest = self.latest();
        let recent = latest.changed();
        if let Some(at) = recent.iter().position(|recent| old.iter().any(|old| old.id() == recent.segment)) {
            for (offset, new) in new.into_iter().enumerate() {
                recent.insert(at + offset, new);
            }
        }
        recent.retain(|recent| old.iter().all(|old| old.id() != recent.segment));
    }

    pub fn forget(&self, segment: SegmentId) {
        self.marks.write().unwrap_or_else(PoisonError::into_inner).remove(&segment);
        self.latest().changed().retain(|recent| recent.segment != segment);
    }
}

impl Latest {
    fn changed(&mut self) -> &mut VecDeque<Recent> {
        self.filter = None;
        &mut self.recent
    }

    fn has(&mut self, fingerprint: u32) -> bool {
        let Self { recent, filter } = self;
        let filter = filter.get_or_insert_with(|| {
            let mut filter = Filter::with_room(recent.iter().map(|recent| recent.fingerprints.len()).sum());
            recent.iter().flat_map(|recent| &recent.fingerprints).for_each(|fingerprint| filter.add(*fingerprint));
            filter
        });
        filter.may_hold(fingerprint)
            && recent.iter().any(|recent| recent.fingerprints.binary_search(&fingerprint).is_ok())
    }
}

/// Makes the longest lists short until there are no more than so many marks; one a segment is always left.
fn bound(marks: &mut HashMap<SegmentId, Arc<[u32]>>, marks_max: usize) {
    let mut count: usize = marks.values().map(|traces| traces.len()).sum();
    if count <= marks_max {
        return;
    }
    let mut lists: Vec<&mut Arc<[u32]>> = marks.values_mut().filter(|traces| traces.len() > 1).collect();
    lists.sort_unstable_by_key(|traces| traces.len());
    while count > marks_max / 2
        && let Some(traces) = lists.pop()
    {
        count -= traces.len() - 1;
        *traces = Arc::new([ALL]);
    }
}

/// How many of the segments, oldest first, are older than the oldest that is remembered.
fn older_than(recent: &VecDeque<Recent>, segments: &[Arc<RunSegment>]) -> usize {
    match recent.front() {
        Some(oldest) => segments.partition_point(|segment| segment.id() < oldest.segment),
        None => segments.len(),
    }
}

impl Recent {
    /// Also makes the segment's filter.
    pub fn read(segment: &Arc<RunSegment>) -> Result<Self, SegmentError> {
        let traces = segment.traces()?;
        let mut sorted: Vec<(u32, u16)> = traces.ids.iter().map(|id| id.fingerprint()).zip(0u16..).collect();
        sorted.sort_unstable();
        let (fingerprints, numbers): (Vec<u32>, Vec<u16>) = sorted.into_iter().unzip();
        segment.set_filter(&fingerprints);
        Ok(Self { segment: segment.id(), fingerprints, numbers })
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u16)> + Clone {
        self.fingerprints.iter().copied().zip(self.numbers.iter().copied())
    }

    /// Calls `each` with the numbers that traces of the same fingerprint have here and there.
    fn in_common(&self, other: &Self, mut each: impl FnMut(u16, u16)) {
        let mut theirs = other.iter().peekable();
        for (fingerprint, here) in self.iter() {
            while theirs.next_if(|(other, _)| *other < fingerprint).is_some() {}
            // Several traces may share a fingerprint, here and there.
            for (_, there) in theirs.clone().take_while(|(other, _)| *other == fingerprint) {
                each(here, there);
            }
        }
    }
}

fn mark_all(marks: &mut Marks, segments: [SegmentId; 2]) {
    for segment in segments {
        marks.entry(segment).or_default().push(ALL);
    }
}

/// Looks for the traces of a segment in older ones that overlap them in time.
fn probe(older: &[Arc<RunSegment>], segment: &Arc<RunSegment>, marks: &mut Marks) -> Result<(), RunsError> {
    let times = segment.times();
    let overlapping: Vec<&Arc<RunSegment>> = older
        .iter()
        .filter(|other| other.times().max_end >= times.min_start && other.times().min_start <= times.max_end)
        .collect();
    if overlapping.is_empty() {
        return Ok(());
    }
    let read = || Ok((segment.traces()?, segment.starts()?, segment.durations()?));
    let (traces, starts, durations) = match read() {
        Ok(read) => read,
        Err(SegmentError::Gone) => return Ok(()),
        Err(error) => return Err(RunsError::Read(error)),
    };
    let ranges: Vec<(u64, u64)> = (0..traces.len())
        .map(|trace| {
            traces.rows(trace).fold((u64::MAX, 0), |(from, to), row| {
                let start = starts.get(row).copied().unwrap_or_default();
                let end = start.saturating_add(durations.get(row).copied().unwrap_or_default());
                (from.min(start), to.max(end))
            })
        })
        .collect();
    let mut probes = 0;
    for other in overlapping {
        let others = other.times();
        for (trace, (from, to)) in (0u32..).zip(&ranges) {
            if others.max_end < *from || others.min_start > *to {
                continue;
            }
            probes += 1;
            if probes > PROBES_MAX {
                mark_all(marks, [other.id(), segment.id()]);
                break;
            }
            let Some(id) = traces.ids.get(trace as usize) else { continue };
            let found = match other.position_of(*id) {
                Ok(found) => found,
                Err(SegmentError::Gone) => break,
                Err(error) => {
                    // One that cannot be read now must not keep new ones from being registered.
                    tracing::warn!(run = other.id().0, %error, "traces of an old run cannot be looked for: all of them count as split");
                    mark_all(marks, [other.id(), segment.id()]);
                    break;
                }
            };
            if let Some(there) = found {
                marks.entry(other.id()).or_default().push(there as u32);
                marks.entry(segment.id()).or_default().push(trace);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_traces_that_share_a_fingerprint_are_in_common() {
        let recent = |fingerprints: &[u32]| Recent {
            segment: SegmentId(1, 0),
            fingerprints: fingerprints.to_vec(),
            numbers: (0..fingerprints.len() as u16).collect(),
        };
        let mut pairs = Vec::new();
        recent(&[1, 5, 5, 7, 9]).in_common(&recent(&[2, 5, 5, 5, 9, 9]), |here, there| pairs.push((here, there)));
        assert_eq!(pairs, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (4, 4), (4, 5)]);
    }

    #[test]
    fn marks_are_bounded_and_none_is_forgotten() {
        let mut marks: HashMap<SegmentId, Arc<[u32]>> =
            (1..=20u64).map(|segment| (SegmentId(segment, 0), (0..segment as u32 * 10).collect())).collect();
        let before = marks.clone();
        bound(&mut marks, 2_100);
        assert_eq!(marks, before, "there is room");
        bound(&mut marks, 1_000);
        assert!(marks.values().map(|traces| traces.len()).sum::<usize>() <= 1_000);
        let splits = Splits { marks: RwLock::new(marks), latest: Mutex::default() };
        for (segment, traces) in &before {
            assert!(traces.iter().all(|trace| splits.contains(*segment, *trace as usize)));
        }
        assert!(splits.contains(SegmentId(20, 0), 100_000), "all traces of the longest count as split");
        assert!(!splits.contains(SegmentId(1, 0), 100_000));
        // What is added to one of those stays one mark.
        let more = Marks::from([(SegmentId(20, 0), vec![3, 4])]);
        assert_eq!(splits.merged(&more)[&SegmentId(20, 0)], [ALL]);
    }
}
