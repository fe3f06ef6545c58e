//! What goes out together: batches as they lie in the spool, grouped into requests.
//!
//! Without a `batch` processor a request takes what is there. With one, batches wait until they hold enough spans or
//! the oldest has waited long enough. Pure: time is an argument.

use super::request::Request;
use crate::process::batch::settings::BatchSettings;
use crate::spool::{Batch, Chunk, ReadLimits, Seq};
use std::collections::VecDeque;
use std::time::Duration;

/// Batches in one request. A quiet system stores many tiny ones; this bounds the bookkeeping per request.
const BATCHES_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Cutter {
    grouping: Option<Grouping>,
    spans_max: Option<u64>,
    waiting: VecDeque<Batch>,
    /// The waiting batches and the foreign ones between them lie in `[start, end)`.
    start: Seq,
    end: Seq,
    raw_bytes: usize,
    spans: u64,
}

#[derive(Debug, Clone, Copy)]
struct Grouping {
    spans: u64,
    timeout: Duration,
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Cut {
    Request(Request),
    /// Batches of other pipelines only: the cursor may pass them.
    Skip {
        from: Seq,
        to: Seq,
    },
    /// Not before so long, unless more arrives.
    Wait(Duration),
    Nothing,
}

impl Cutter {
    pub(super) fn new(settings: Option<&BatchSettings>, start: Seq) -> Self {
        let grouping = settings
            .filter(|settings| settings.send_batch_size > 0 && !settings.timeout.is_zero())
            .map(|settings| Grouping { spans: u64::from(settings.send_batch_size), timeout: settings.timeout });
        Self {
            grouping,
            spans_max: spans_max(settings),
            waiting: VecDeque::new(),
            start,
            end: start,
            raw_bytes: 0,
            spans: 0,
        }
    }

    /// Where reading goes on.
    pub(super) fn read_from(&self) -> Seq {
        self.end
    }

    /// When the oldest batch that waits became durable, Unix nanoseconds.
    pub(super) fn oldest_received(&self) -> Option<u64> {
        self.waiting.front().map(|batch| batch.header.received)
    }

    /// Where cutting goes on: everything before is part of a request.
    pub(super) fn start(&self) -> Seq {
        self.start
    }

    /// Forgets what waits and goes on at `start`.
    pub(super) fn restart(&mut self, start: Seq) {
        *self = Self {
            waiting: VecDeque::new(),
            start,
            end: start,
            raw_bytes: 0,
            spans: 0,
            grouping: self.grouping,
            spans_max: self.spans_max,
        };
    }

    /// How much more may be read; `None` while a full request waits.
    pub(super) fn appetite(&self, raw_bytes_max: usize) -> Option<ReadLimits> {
        let has_room = self.raw_bytes < raw_bytes_max
            && self.waiting.len() < BATCHES_MAX
            && self.spans_max.is_none_or(|spans_max| self.spans < spans_max);
        has_room.then(|| ReadLimits {
            raw_bytes_max: raw_bytes_max - self.raw_bytes,
            spans_max: u64::MAX,
            batches_max: BATCHES_MAX - self.waiting.len(),
        })
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        for batch in &chunk.batches {
            self.raw_bytes += batch.header.raw_bytes as usize;
            self.spans += u64::from(batch.header.spans);
        }
        self.waiting.extend(chunk.batches);
        self.end = chunk.next;
    }

    /// The next request of at most `raw_bytes_max` bytes, if it is time. One batch that is larger goes alone.
    pub(super) fn cut(&mut self, now_unix_nanos: u64, raw_bytes_max: usize) -> Cut {
        let Some(oldest) = self.waiting.front() else {
            if self.start == self.end {
                return Cut::Nothing;
            }
            let from = std::mem::replace(&mut self.start, self.end);
            return Cut::Skip { from, to: self.end };
        };
        let (mut count, mut raw_bytes, mut spans) = (0, 0, 0);
        for batch in &self.waiting {
            raw_bytes += batch.header.raw_bytes as usize;
            spans += u64::from(batch.header.spans);
            let is_over = raw_bytes > raw_bytes_max || self.spans_max.is_some_and(|spans_max| spans > spans_max);
            if count > 0 && is_over {
                break;
            }
            count += 1;
        }
        let is_full = count < self.waiting.len() || count == BATCHES_MAX || self.raw_bytes >= raw_bytes_max;
        if let Some(grouping) = self.grouping
            && !is_full
            && self.spans < grouping.spans
        {
            // A clock that was set back must not make spans wait longer than the timeout.
            let age = Duration::from_nanos(now_unix_nanos.saturating_sub(oldest.header.received));
            let left = grouping.timeout.saturating_sub(age);
            if !left.is_zero() {
                return Cut::Wait(left);
            }
        }
        let batches: Vec<Batch> = self.waiting.drain(..count).collect();
        for batch in &batches {
            self.raw_bytes -= batch.header.raw_bytes as usize;
            self.spans -= u64::from(batch.header.spans);
        }
        let to = self.waiting.front().map_or(self.end, |batch| batch.seq);
        let from = std::mem::replace(&mut self.start, to);
        Cut::Request(Request { batches, from, to })
    }
}

/// Spans per request by `send_batch_max_size`; 0 is no cap.
pub(super) fn spans_max(settings: Option<&BatchSettings>) -> Option<u64> {
    settings.map(|settings| u64::from(settings.send_batch_max_size)).filter(|spans_max| *spans_max > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::link::REQUEST_RAW_BYTES_MAX;
    use crate::forward::testing::batch_of;
    use proptest::prelude::*;

    const MAX: usize = REQUEST_RAW_BYTES_MAX;
    const SECOND: u64 = 1_000_000_000;

    fn chunk(from: u64, batches: Vec<Batch>, next: u64) -> Chunk {
        Chunk { batches, from: Seq(from), next: Seq(next) }
    }

    fn settings(send_batch_size: u32, send_batch_max_size: u32) -> BatchSettings {
        BatchSettings { send_batch_size, timeout: Duration::from_secs(2), send_batch_max_size }
    }

    fn request(cut: Cut) -> Request {
        match cut {
            Cut::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_batch_processor_everything_goes_at_once() {
        let mut cutter = Cutter::new(None, Seq(1));
        assert!(matches!(cutter.cut(0, MAX), Cut::Nothing));
        cutter.push(chunk(1, vec![batch_of(1, 5), batch_of(4, 5)], 6));
        let request = request(cutter.cut(0, MAX));
        assert_eq!((request.from, request.to, request.spans()), (Seq(1), Seq(6), 10));
        cutter.push(chunk(6, vec![], 9));
        assert!(matches!(cutter.cut(0, MAX), Cut::Skip { from: Seq(6), to: Seq(9) }));
        assert!(matches!(cutter.cut(0, MAX), Cut::Nothing));
    }

    #[test]
    fn a_batch_processor_waits_for_spans_or_time() {
        let mut cutter = Cutter::new(Some(&settings(10, 0)), Seq(1));
        cutter.push(chunk(1, vec![batch_of(1, 4)], 2));
        let received = batch_of(1, 4).header.received;
        match cutter.cut(received + SECOND, MAX) {
            Cut::Wait(left) => assert_eq!(left, Duration::from_secs(1)),
            other => panic!("{other:?}"),
        }
        cutter.push(chunk(2, vec![batch_of(2, 6)], 3));
        assert_eq!(request(cutter.cut(received + SECOND, MAX)).spans(), 10);
        cutter.push(chunk(3, vec![batch_of(3, 1)], 4));
        assert_eq!(request(cutter.cut(received + 2 * SECOND, MAX)).spans(), 1);
        // A clock set back: the wait is the timeout, not more.
        cutter.push(chunk(4, vec![batch_of(4, 1)], 5));
        assert!(matches!(cutter.cut(0, MAX), Cut::Wait(left) if left == Duration::from_secs(2)));
    }

    #[test]
    fn a_full_request_does_not_wait() {
        let mut cutter = Cutter::new(Some(&settings(1000, 1000)), Seq(1));
        cutter.push(chunk(1, (1..=4).map(|seq| batch_of(seq, 400)).collect(), 5));
        assert_eq!(request(cutter.cut(0, MAX)).spans(), 800);
        assert!(matches!(cutter.cut(0, MAX), Cut::Wait(_)));
        // One batch larger than the cap goes alone; delivery cuts it.
        let mut cutter = Cutter::new(Some(&settings(100, 100)), Seq(1));
        cutter.push(chunk(1, vec![batch_of(1, 400), batch_of(2, 1)], 3));
        assert_eq!(request(cutter.cut(0, MAX)).spans(), 400);
    }

    proptest! {
        #[test]
        fn requests_are_bounded_and_cover_every_number_once(
            sizes in proptest::collection::vec((0u64..3, 1u32..3_000_000), 0..40),
            has_grouping: bool,
        ) {
            let grouping = settings(50, 0);
            let mut cutter = Cutter::new(has_grouping.then_some(&grouping), Seq(1));
            let (mut seq, mut expected) = (1, Vec::new());
            let mut batches = Vec::new();
            for (gap, raw_bytes) in sizes {
                seq += gap;
                let mut batch = batch_of(seq, 1);
                batch.header.raw_bytes = raw_bytes;
                expected.push(batch.seq);
                batches.push(batch);
                seq += 1;
            }
            cutter.push(chunk(1, batches, seq + 1));
            let (mut position, mut seen) = (Seq(1), Vec::new());
            loop {
                match cutter.cut(u64::MAX, MAX) {
                    Cut::Request(request) => {
                        prop_assert_eq!(request.from, position);
                        prop_assert!(request.raw_bytes() <= MAX || request.batches.len() == 1);
                        prop_assert!(request.batches.iter().all(|b| request.from <= b.seq && b.seq < request.to));
                        seen.extend(request.batches.iter().map(|batch| batch.seq));
                        position = request.to;
                    }
                    Cut::Skip { from, to } => {
                        prop_assert_eq!(from, position);
                        position = to;
                    }
                    Cut::Nothing => break,
                    Cut::Wait(_) => prop_assert!(false),
                }
            }
            prop_assert_eq!(position, Seq(seq + 1));
            prop_assert_eq!(seen, expected);
            prop_assert_eq!((cutter.raw_bytes, cutter.spans), (0, 0));
        }
    }
}
