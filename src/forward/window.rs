//! The requests under way, in the order of their numbers: finished in any order, booked from the front.

use crate::spool::{Outcome, Parked, Seq};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    requests_max: usize,
    raw_bytes_max: usize,
    /// Of the requests that are not finished.
    requests: usize,
    raw_bytes: usize,
}

/// Names a request: two may begin at the same number when the cursor was moved meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId(pub(super) u64);

#[derive(Debug)]
struct Slot {
    from: Seq,
    to: Seq,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Sending(Sending),
    Finished(Outcome),
}

/// A request that is not finished.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: RequestId,
    pub(super) raw_bytes: usize,
    pub(super) since: Instant,
    pub(super) task: AbortHandle,
    /// Whether a part of it has met a verdict.
    pub(super) is_begun: Arc<AtomicBool>,
}

/// Slots kept while the oldest is not finished. The younger ones hold only their outcome then, but until they are booked
/// ahead ([`Window::part`]) a crash would send all of them again.
const SLOTS_MAX: usize = 64;

/// A finished stretch, to be booked in one write.
#[derive(Debug, Clone)]
pub(super) struct Booking {
    pub(super) from: Seq,
    pub(super) to: Seq,
    pub(super) outcome: Outcome,
}

/// Parked frames that are booked in one write, bytes; one request's frames may exceed it.
const PARKED_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Window {
    pub(super) fn new(requests_max: usize, raw_bytes_max: usize) -> Self {
        Self { slots: VecDeque::new(), requests_max, raw_bytes_max, requests: 0, raw_bytes: 0 }
    }

    /// Whether another request may be sent. The first one may always.
    pub(super) fn has_room(&self) -> bool {
        self.requests == 0
            || (self.requests < self.requests_max
                && self.raw_bytes < self.raw_bytes_max
                && self.slots.len() < SLOTS_MAX)
    }

    /// Requests under way.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Whether this request is under way.
    pub(super) fn is_sending(&self, id: RequestId) -> bool {
        self.slots.iter().any(|slot| matches!(&slot.state, SlotState::Sending(sending) if sending.id == id))
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.requests == 0
    }

    pub(super) fn sending(&mut self, (from, to): (Seq, Seq), sending: Sending) {
        self.requests += 1;
        self.raw_bytes += sending.raw_bytes;
        self.slots.push_back(Slot { from, to, state: SlotState::Sending(sending) });
    }

    /// Nothing of this pipeline lies in `[from, to)`.
    pub(super) fn skip(&mut self, from: Seq, to: Seq) {
        match self.slots.back_mut() {
            Some(Slot { to: end, state: SlotState::Finished(_), .. }) if *end == from => *end = to,
            _ => self.slots.push_back(Slot { from, to, state: SlotState::Finished(Outcome::default()) }),
        }
    }

    /// A request is done. One that was forgotten meanwhile is ignored.
    pub(super) fn finish(&mut self, done: RequestId, outcome: Outcome) {
        for slot in &mut self.slots {
            if let SlotState::Sending(sending) = &slot.state
                && sending.id == done
            {
                self.requests -= 1;
                self.raw_bytes -= sending.raw_bytes;
                slot.state = SlotState::Finished(outcome);
                return;
            }
        }
    }

    /// Where the oldest request begins.
    pub(super) fn first(&self) -> Option<Seq> {
        self.slots.front().map(|slot| slot.from)
    }

    /// Whether something can be booked.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.slots.front(), Some(Slot { state: SlotState::Finished(_), .. }))
    }

    /// Takes the finished stretch at the front.
    pub(super) fn take_finished(&mut self) -> Option<Booking> {
        let mut booking: Option<Booking> = None;
        while self.is_ready() {
            let is_full = booking.as_ref().is_some_and(|booking| {
                booking.outcome.parked.iter().map(|parked: &Parked| parked.frame.len()).sum::<usize>()
                    > PARKED_BYTES_MAX
            });
            if is_full {
                break;
            }
            let Some(Slot { from, to, state: SlotState::Finished(outcome) }) = self.slots.pop_front() else { break };
            match &mut booking {
                None => booking = Some(Booking { from, to, outcome }),
                Some(booking) => {
                    booking.to = to;
                    booking.outcome.sent += outcome.sent;
                    for (reason, spans) in outcome.lost {
                        match booking.outcome.lost.iter_mut().find(|(known, _)| *known == reason) {
                            Some((_, sum)) => *sum += spans,
                            None => booking.outcome.lost.push((reason, spans)),
                        }
                    }
                    booking.outcome.parked.extend(outcome.parked);
                }
            }
        }
        booking
    }

    /// Where the oldest request takes longer than `patience` and younger ones are finished: a window of what lies from the first
    /// of those on, which this one no longer has.
    pub(super) fn part(&mut self, patience: Duration) -> Option<Self> {
        let Some(Slot { state: SlotState::Sending(oldest), .. }) = self.slots.front() else { return None };
        if oldest.since.elapsed() < patience {
            return None;
        }
        let at = self.slots.iter().position(|slot| matches!(slot.state, SlotState::Finished(_)))?;
        let mut younger = Self::new(self.requests_max, self.raw_bytes_max);
        younger.slots = self.slots.split_off(at);
        for slot in &younger.slots {
            if let SlotState::Sending(sending) = &slot.state {
                younger.requests += 1;
                younger.raw_bytes += sending.raw_bytes;
            }
        }
        self.requests -= younger.requests;
        self.raw_bytes -= younger.raw_bytes;
        Some(younger)
    }

    /// The cursor was moved to `position` by someone else, who accounted for what lies before: forgets that. Returns
    /// where to go on cutting if requests beyond `position` had to be forgotten as well.
    pub(super) fn resync(&mut self, position: Seq) -> Option<Seq> {
        while self.slots.front().is_some_and(|slot| slot.to <= position) {
            self.forget_front();
        }
        let is_cut_through = self.slots.front().is_some_and(|slot| slot.from < position);
        if is_cut_through {
            self.forget_all();
        }
        is_cut_through.then_some(position)
    }

    pub(super) fn forget_all(&mut self) {
        while !self.slots.is_empty() {
            self.forget_front();
        }
    }

    /// Forgets the youngest requests, all but the `kept` oldest that are not finished, as long as they only wait and
    /// nothing of them was sent. Returns where to go on cutting if there were any.
    pub(super) fn retreat(&mut self, kept: usize, is_waiting: impl Fn(Seq) -> bool) -> Option<Seq> {
        let mut position = None;
        while self.requests > kept
            && let Some(Slot { from, state: SlotState::Sending(sending), .. }) = self.slots.back()
            && !sending.is_begun.load(Ordering::Relaxed)
            && is_waiting(*from)
        {
            position = Some(*from);
            let slot = self.slots.pop_back();
            self.forget(slot);
        }
        position
    }

    fn forget_front(&mut self) {
        let slot = self.slots.pop_front();
        self.forget(slot);
    }

    fn forget(&mut self, slot: Option<Slot>) {
        if let Some(Slot { state: SlotState::Sending(sending), .. }) = slot {
            sending.task.abort();
            self.requests -= 1;
            self.raw_bytes -= sending.raw_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::LossReason;

    async fn sending(id: u64, raw_bytes: usize) -> Sending {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        Sending { id: RequestId(id), raw_bytes, since: Instant::now(), task, is_begun: Arc::default() }
    }

    fn outcome(sent: u64, poison: u64) -> Outcome {
        Outcome { sent, lost: vec![(LossReason::Poison, poison)], ..Outcome::default() }
    }

    #[tokio::test]
    async fn a_retreat_leaves_the_oldest_unfinished_request_also_behind_finished_ones() {
        let mut window = Window::new(4, 100);
        for from in 1..=4 {
            window.sending((Seq(from), Seq(from + 1)), sending(from, 10).await);
        }
        window.finish(RequestId(1), outcome(1, 0));
        assert_eq!(window.retreat(1, |_| true), Some(Seq(3)));
        assert_eq!(window.retreat(1, |_| true), None);
        assert!(!window.is_idle());
        window.finish(RequestId(2), outcome(1, 0));
        let booking = window.take_finished().unwrap();
        assert_eq!((booking.from, booking.to), (Seq(1), Seq(3)));
    }

    #[tokio::test]
    async fn only_the_finished_prefix_is_booked_and_joined() {
        let mut window = Window::new(3, 100);
        for (from, to) in [(1, 3), (3, 4), (4, 9)] {
            assert!(window.has_room());
            window.sending((Seq(from), Seq(to)), sending(from, 10).await);
        }
        assert!(!window.has_room());
        window.finish(RequestId(3), outcome(5, 1));
        assert!(window.has_room());
        assert!(window.take_finished().is_none());
        window.finish(RequestId(1), outcome(7, 2));
        let booking = window.take_finished().unwrap();
        assert_eq!((booking.from, booking.to, booking.outcome.sent), (Seq(1), Seq(4), 12));
        assert_eq!(booking.outcome.lost, [(LossReason::Poison, 3)]);
        assert!(!window.is_ready());
    }

    #[tokio::test]
    async fn bytes_bound_the_window_but_one_request_always_goes() {
        let mut window = Window::new(4, 100);
        window.sending((Seq(1), Seq(2)), sending(1, 1000).await);
        assert!(!window.has_room());
        window.finish(RequestId(1), Outcome::default());
        assert!(window.has_room());
    }

    #[tokio::test]
    async fn a_moved_cursor_keeps_what_lies_beyond() {
        let mut window = Window::new(4, 100);
        for (from, to) in [(1, 3), (3, 5), (5, 9)] {
            window.sending((Seq(from), Seq(to)), sending(from, 10).await);
        }
        assert_eq!(window.resync(Seq(3)), None);
        window.finish(RequestId(3), Outcome::default());
        assert_eq!(window.take_finished().map(|booking| (booking.from, booking.to)), Some((Seq(3), Seq(5))));
        // In the middle of a request: what is not booked goes again.
        assert_eq!(window.resync(Seq(6)), Some(Seq(6)));
        window.finish(RequestId(5), Outcome::default());
        assert!(window.take_finished().is_none() && window.has_room());
    }

    #[tokio::test]
    async fn a_retreat_keeps_the_first_and_what_was_begun() {
        let mut window = Window::new(8, 100);
        for from in 1..=5 {
            let sending = sending(from, 10).await;
            sending.is_begun.store(from == 2, Ordering::Relaxed);
            window.sending((Seq(from), Seq(from + 1)), sending);
        }
        assert_eq!(window.retreat(1, |from| from != Seq(5)), None);
        assert_eq!(window.retreat(1, |_| true), Some(Seq(3)));
        assert_eq!((window.requests, window.raw_bytes), (2, 20));
    }

    #[tokio::test]
    async fn what_is_finished_behind_a_request_that_takes_long_has_a_window_of_its_own() {
        let mut window = Window::new(8, 100);
        for from in 1..=4 {
            window.sending((Seq(from), Seq(from + 1)), sending(from, 10).await);
        }
        assert!(window.part(Duration::ZERO).is_none(), "nothing is finished");
        window.finish(RequestId(3), outcome(1, 0));
        assert!(window.part(Duration::from_secs(3600)).is_none());
        let mut younger = window.part(Duration::ZERO).unwrap();
        assert_eq!((window.requests, window.raw_bytes, younger.requests, younger.raw_bytes), (2, 20, 1, 10));
        assert_eq!(younger.take_finished().map(|booking| (booking.from, booking.to)), Some((Seq(3), Seq(4))));
        assert_eq!((window.first(), younger.first()), (Some(Seq(1)), Some(Seq(4))));
    }

    #[test]
    fn skipped_stretches_join() {
        let mut window = Window::new(1, 1);
        window.skip(Seq(1), Seq(4));
        window.skip(Seq(4), Seq(6));
        assert_eq!(window.take_finished().map(|booking| (booking.from, booking.to)), Some((Seq(1), Seq(6))));
    }
}
