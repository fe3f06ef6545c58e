//! Where a destination reads and sends: at its cursor, and, while a backlog drains, at the end of the spool as well.
//!
//! ```text
//!        cursor                    beyond            read next
//! ─ done ──┤ backlog: main lane ────┤ live lane: new ──┤
//! ```
//!
//! The backlog goes oldest first. Half of the requests under way are for what is new, as long as there is any, so that
//! fresh spans arrive within seconds, however long the backlog takes. Both are booked as they finish; when the main lane
//! comes to where the live one began, the two become one again. A request that takes long is a backlog as well: what is done
//! behind it goes on as the live lane.

use crate::forward::cutter::Cutter;
use crate::forward::window::{Booking, RequestId, Window};
use crate::process::batch::settings::BatchSettings;
use crate::spool::{Chunk, Outcome, ReadLimits, Seq};
use std::time::Duration;

/// A stretch of the spool on its way to the destination.
pub(super) struct Lane {
    pub(super) cutter: Cutter,
    pub(super) window: Window,
}

/// The lane of what is new.
pub(super) struct Live {
    /// Where it began; the main lane goes so far.
    pub(super) from: Seq,
    pub(super) lane: Lane,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Main,
    Live,
}

/// The bounds of a lane's window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) requests_max: usize,
    pub(super) raw_bytes_max: usize,
}

/// The lanes of one destination.
pub(super) struct Lanes {
    bounds: Bounds,
    pub(super) main: Lane,
    pub(super) live: Option<Live>,
    /// Whose request went out last.
    last: Which,
}

impl Lane {
    fn new(batch: Option<&BatchSettings>, start: Seq, bounds: Bounds) -> Self {
        Self { cutter: Cutter::new(batch, start), window: Window::new(bounds.requests_max, bounds.raw_bytes_max) }
    }

    /// The first number that is not booked.
    pub(super) fn first(&self) -> Seq {
        self.window.first().unwrap_or(self.cutter.start())
    }
}

impl Lanes {
    /// At the cursor; `ahead` is what is accounted for beyond it.
    pub(super) fn new(batch: Option<&BatchSettings>, position: Seq, ahead: Option<(Seq, Seq)>, bounds: Bounds) -> Self {
        let live = ahead.map(|(from, to)| Live { from, lane: Lane::new(batch, to, bounds) });
        Self { bounds, main: Lane::new(batch, position, bounds), live, last: Which::Live }
    }

    pub(super) fn of(&mut self, which: Which) -> Option<&mut Lane> {
        match which {
            Which::Main => Some(&mut self.main),
            Which::Live => self.live.as_mut().map(|live| &mut live.lane),
        }
    }

    /// Begins to send what lies from `from` on beside the backlog.
    pub(super) fn open(&mut self, batch: Option<&BatchSettings>, from: Seq) {
        self.live = Some(Live { from, lane: Lane::new(batch, from, self.bounds) });
    }

    /// Where the oldest request takes longer than `patience`, what is done behind it becomes a lane of its own, so that it is
    /// booked: the spool's budget would call it lost, and a crash send it again.
    pub(super) fn part(&mut self, batch: Option<&BatchSettings>, patience: Duration) {
        if self.live.is_none()
            && let Some(window) = self.main.window.part(patience)
            && let Some(from) = window.first()
        {
            let cutter = std::mem::replace(&mut self.main.cutter, Cutter::new(batch, from));
            self.live = Some(Live { from, lane: Lane { cutter, window } });
        }
    }

    /// One lane again, once nothing is left of the main one: it has come to where the other began, and none of its requests
    /// is under way. Sooner, one that has to go again would take along what the other lane has booked.
    pub(super) fn join(&mut self) {
        let end = self.main.first();
        if let Some(live) = self.live.take_if(|live| live.from <= end) {
            self.main = live.lane;
        }
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.main.window.is_idle() && self.live.as_ref().is_none_or(|live| live.lane.window.is_idle())
    }

    /// Whether something can be booked.
    pub(super) fn is_ready(&self) -> bool {
        self.main.window.is_ready() || self.live.as_ref().is_some_and(|live| live.lane.window.is_ready())
    }

    /// Takes a finished stretch.
    pub(super) fn take_finished(&mut self) -> Option<(Which, Booking)> {
        self.join();
        if let Some(booking) = self.main.window.take_finished() {
            return Some((Which::Main, booking));
        }
        let booking = self.live.as_mut().and_then(|live| live.lane.window.take_finished());
        booking.map(|booking| (Which::Live, booking))
    }

    pub(super) fn finish(&mut self, id: RequestId, outcome: Outcome) {
        match self.live.as_mut().filter(|live| live.lane.window.is_sending(id)) {
            Some(live) => live.lane.window.finish(id, outcome),
            None => self.main.window.finish(id, outcome),
        }
    }

    /// Which lanes may send another request, in this order.
    pub(super) fn turns(&self) -> impl Iterator<Item = Which> + use<> {
        let main = self.main.window.requests();
        let live = self.live.as_ref().map_or(0, |live| live.lane.window.requests());
        let has_room = main + live < self.bounds.requests_max || main + live == 0;
        let may_live = self.live.as_ref().is_some_and(|live| live.lane.window.has_room())
            && live < (self.bounds.requests_max / 2).max(1);
        // With one request at a time the lanes take turns.
        let is_live_first = self.bounds.requests_max > 1 || self.last == Which::Main;
        let may = |which| match which {
            Which::Main => self.main.window.has_room(),
            Which::Live => may_live,
        };
        let order = if is_live_first { [Which::Live, Which::Main] } else { [Which::Main, Which::Live] };
        let turns = order.map(|which| (has_room && may(which)).then_some(which));
        turns.into_iter().flatten()
    }

    pub(super) fn sent(&mut self, which: Which) {
        self.last = which;
    }

    /// How much more a lane may read, and from where.
    pub(super) fn appetite(&mut self, which: Which, raw_bytes_max: usize) -> Option<(Seq, ReadLimits)> {
        let end = self.end(which);
        let lane = self.of(which)?;
        let from = lane.cutter.read_from();
        let limits = lane.cutter.appetite(raw_bytes_max)?;
        end.is_none_or(|end| from < end).then_some((from, limits))
    }

    /// Takes what was read for a lane, as far as it is its.
    pub(super) fn push(&mut self, which: Which, mut chunk: Chunk) {
        if let Some(end) = self.end(which).filter(|end| *end < chunk.next) {
            chunk.batches.retain(|batch| batch.seq < end);
            chunk.next = end;
        }
        if let Some(lane) = self.of(which) {
            lane.cutter.push(chunk);
        }
    }

    fn end(&self, which: Which) -> Option<Seq> {
        match which {
            Which::Main => self.live.as_ref().map(|live| live.from),
            Which::Live => None,
        }
    }

    /// The destination is away: keeps the oldest request, which is the probe, and what was begun; the rest is read again
    /// when the gate opens.
    pub(super) fn let_go(&mut self, is_waiting: impl Fn(Seq) -> bool) {
        let main = &mut self.main;
        let retreated = main.window.retreat(1, &is_waiting);
        // A retreat leaves one under way. With none, what waits to be cut stays: it is the next probe.
        if !main.window.is_idle() {
            main.cutter.restart(retreated.unwrap_or(main.cutter.start()));
        }
        if let Some(Live { lane, .. }) = &mut self.live {
            let retreated = lane.window.retreat(0, &is_waiting);
            lane.cutter.restart(retreated.unwrap_or(lane.cutter.start()));
        }
    }

    /// The cursor was moved to `position` by someone else, who accounted for what lies before: forgets that.
    pub(super) fn follow(&mut self, position: Seq) {
        if self.live.as_ref().is_some_and(|live| live.from < position) {
            // What the live lane has is all that is left, if anything.
            if let Some(live) = self.live.take() {
                self.main.window.forget_all();
                self.main = live.lane;
            }
        }
        let main = &mut self.main;
        if main.window.resync(position).is_some() || main.cutter.start() < position {
            main.cutter.restart(position);
        }
    }
}
