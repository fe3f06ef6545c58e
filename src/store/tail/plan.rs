//! Which batches make a segment: decided by their headers alone, so that it is decided the same way every time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::group::{Cut, Extent, Group};
use crate::spool::{Header, ReadError, Seq};
use crate::traceql::column::ROWS_MAX;

/// A group takes batches up to so many raw bytes, about 5,000 spans: building one takes four times as much.
const CLOSED_RAW_BYTES_MAX: u64 = 2 << 20;
/// A group that has more is not made anew when batches arrive, but followed by another: bounds what a query spends on
/// building what an earlier one had built before.
const OPEN_RAW_BYTES_MAX: u64 = 512 << 10;

/// Groups without holes between them, oldest first. The last may be open.
#[derive(Default)]
pub(super) struct Plan {
    groups: VecDeque<Arc<Group>>,
    /// The first batch that is in no group.
    next: u64,
}

impl Plan {
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.iter().cloned().collect()
    }

    pub fn raw_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.extent.raw_bytes).sum()
    }

    /// Covers `range` and nothing else. Whether anything changed.
    ///
    /// # Errors
    /// A header could not be read; the plan then covers less.
    pub fn follow(
        &mut self,
        range: Range<Seq>,
        header: impl Fn(Seq) -> Result<Option<Header>, ReadError>,
    ) -> Result<bool, ReadError> {
        let Range { start: Seq(first), end: Seq(end) } = range;
        let mut changed = false;
        // A view that began earlier than the one before it: what was taken from the front is needed again.
        if self.groups.front().is_some_and(|group| group.cut.batches.start > first) {
            self.groups.clear();
            changed = true;
        }
        while self.groups.front().is_some_and(|group| group.cut.batches.end <= first) {
            self.groups.pop_front();
            changed = true;
        }
        // The beginning of a group may be sealed already: the rest of it is a group of its own.
        if let Some(group) = self.groups.pop_front_if(|group| group.cut.batches.start < first) {
            let mut rest = Open::at(first);
            for seq in first..group.cut.batches.end {
                rest.add(seq, header(Seq(seq))?);
            }
            self.groups.push_front(Arc::new(rest.close()));
            changed = true;
        }
        for group in &mut self.groups {
            if let Some(anew) = group.made_anew() {
                *group = Arc::new(anew);
                changed = true;
            }
        }
        if self.groups.is_empty() {
            self.next = first;
        }
        if self.next >= end {
            return Ok(changed);
        }
        let is_open = |group: &mut Arc<Group>| group.extent.raw_bytes <= OPEN_RAW_BYTES_MAX && group.cut.is_whole();
        let mut open = match self.groups.pop_back_if(is_open) {
            Some(group) => {
                let Cut { batches, with_spans, .. } = group.cut.clone();
                Open { batches, with_spans, extent: group.extent }
            }
            None => Open::at(self.next),
        };
        let result = self.extend(&mut open, end, header);
        if !open.batches.is_empty() {
            self.groups.push_back(Arc::new(open.close()));
        }
        result.map(|()| true)
    }

    fn extend(
        &mut self,
        open: &mut Open,
        end: u64,
        header: impl Fn(Seq) -> Result<Option<Header>, ReadError>,
    ) -> Result<(), ReadError> {
        while self.next < end {
            let header = header(Seq(self.next))?;
            if header.is_some_and(|header| !open.fits(&header)) && !open.batches.is_empty() {
                let full = std::mem::replace(open, Open::at(self.next));
                self.groups.push_back(Arc::new(full.close()));
            }
            open.add(self.next, header);
            self.next += 1;
            if open.extent.spans > ROWS_MAX as u64 {
                // A batch that is more than a segment, alone.
                let parts = std::mem::replace(open, Open::at(self.next)).cut();
                self.groups.extend(parts.map(Arc::new));
            }
        }
        Ok(())
    }
}

/// A group that is being put together.
struct Open {
    batches: Range<u64>,
    with_spans: Vec<Range<u64>>,
    extent: Extent,
}

impl Open {
    fn at(seq: u64) -> Self {
        Self { batches: seq..seq, with_spans: Vec::new(), extent: Extent::default() }
    }

    fn fits(&self, header: &Header) -> bool {
        self.extent.raw_bytes + u64::from(header.raw_bytes) <= CLOSED_RAW_BYTES_MAX
            && self.extent.spans + u64::from(header.spans) <= ROWS_MAX as u64
    }

    /// A batch without a header is damaged, of another signal, or gone since; it has no spans.
    fn add(&mut self, seq: u64, header: Option<Header>) {
        self.batches.end = seq + 1;
        if let Some(header) = header {
            self.extent.add(&header);
            match self.with_spans.last_mut() {
                Some(last) if last.end == seq => last.end += 1,
                _ => self.with_spans.push(seq..seq + 1),
            }
        }
    }

    fn close(self) -> Group {
        Group::new(Cut { batches: self.batches, with_spans: self.with_spans, from: 0 }, self.extent)
    }

    /// One batch of more spans than a segment has rows, as several groups.
    fn cut(self) -> impl Iterator<Item = Group> {
        let Self { batches, with_spans, extent } = self;
        let parts = extent.spans.div_ceil(ROWS_MAX as u64).max(1);
        (0..parts).map(move |part| {
            let share = Extent { raw_bytes: extent.raw_bytes / parts, spans: extent.spans / parts, ..extent };
            let from = part as usize * ROWS_MAX;
            Group::new(Cut { batches: batches.clone(), with_spans: with_spans.clone(), from }, share)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{PipelineId, TimeRange};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn header(raw_bytes: u32, spans: u32) -> Header {
        let time = TimeRange { min_start: 1, max_end: 2 };
        Header {
            signal: crate::otlp::Signal::Traces,
            raw_bytes,
            spans,
            pipeline: PipelineId(0),
            spans_before: 0,
            received: 0,
            time,
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_the_plan_covers_each_batch_once(
            steps in proptest::collection::vec((0u64..20, 0u64..20, 0u32..3_000_000, 0u32..90_000), 1..12),
        ) {
            let mut plan = Plan::default();
            let mut headers = BTreeMap::new();
            let (mut first, mut end) = (1, 1);
            for (arrive, leave, raw_bytes, spans) in steps {
                for _ in 0..arrive {
                    // Every third batch is damaged.
                    headers.insert(end, (end % 3 != 0).then(|| header(raw_bytes, spans)));
                    end += 1;
                }
                first = (first + leave).min(end);
                let before: Vec<_> = plan.groups();
                let changed = plan.follow(Seq(first)..Seq(end), |seq| Ok(headers[&seq.0])).unwrap();
                let groups = plan.groups();
                prop_assert_eq!(changed, before.len() != groups.len() || before.iter().zip(&groups).any(|(a, b)| !Arc::ptr_eq(a, b)));
                let mut next = (first, 0u64);
                for group in &groups {
                    prop_assert_eq!(next, (group.cut.batches.start, group.cut.from as u64));
                    let with_spans: Vec<u64> = group.cut.with_spans.iter().cloned().flatten().collect();
                    let readable: Vec<u64> = group.cut.batches.clone().filter(|seq| headers[seq].is_some()).collect();
                    prop_assert_eq!(with_spans, readable);
                    let spans: u64 = group.cut.batches.clone().filter_map(|seq| headers[&seq]).map(|header| u64::from(header.spans)).sum();
                    let left = spans.saturating_sub(group.cut.from as u64);
                    if left > ROWS_MAX as u64 {
                        prop_assert_eq!(group.cut.batches.end, group.cut.batches.start + 1);
                        next = (group.cut.batches.start, next.1 + ROWS_MAX as u64);
                    } else {
                        next = (group.cut.batches.end, 0);
                    }
                }
                prop_assert_eq!(next, (end, 0));
            }
        }
    }

    #[test]
    fn small_batches_share_a_group_and_only_a_small_group_is_made_anew() {
        let mut plan = Plan::default();
        let mut follow = |end, raw_bytes| {
            plan.follow(Seq(1)..Seq(end), |_| Ok(Some(header(raw_bytes, 10)))).unwrap();
            plan.groups().iter().map(|group| (group.cut.batches.start, group.cut.batches.end)).collect::<Vec<_>>()
        };
        assert_eq!(follow(100, 1000), [(1, 100)]);
        assert_eq!(follow(1000, 1000), [(1, 1000)]);
        assert_eq!(follow(1001, 1000), [(1, 1000), (1000, 1001)]);
        assert_eq!(follow(1004, 1 << 20), [(1, 1000), (1000, 1002), (1002, 1004)]);
    }
}
