//! The loop of one destination: read, cut, send, book.
//!
//! ```text
//!          read            cut              deliver (tasks, any order)         book (finished prefix)
//! spool ─────────▶ cutter ─────▶ request ─▶ window ──────────────────▶ outcome ─────────────────────▶ cursor
//!                  └────────── lane ────────────┘
//! ```
//!
//! There is one lane, or a second one for what is new while a backlog drains ([`lane`]).

mod lane;
mod resend;

use super::budget::Share;
use super::cutter::{Cut, spans_max};
use super::deliver::deliver;
use super::link::{HOURS_LOOK_INTERVAL, Link, Transport};
use super::window::{Booking, RequestId, Sending};
use crate::process::batch::settings::BatchSettings;
use crate::spool::{Chunk, Header, Newest, Outcome, ReadError, ReadLimits, Seq, unix_nanos};
use lane::{Bounds, Lanes, Which};
use resend::{resend, since_last};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Requests under way per destination, whatever `num_consumers` says: with requests of megabytes this fills a fast
/// link, and each costs memory.
const REQUESTS_IN_FLIGHT_MAX: usize = 4;

/// Their protobuf, before compression. A destination that wants another codec than zstd holds that much inflated.
const RAW_BYTES_IN_FLIGHT_MAX: usize = 16 * 1024 * 1024;

/// Bookings of requests that finish shortly after one another share a write.
const BOOKING_INTERVAL: Duration = Duration::from_millis(50);

/// How often the loop looks up while requests are under way: the gate may have closed, or memory come free.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long requests under way may still take when the process stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Batches that are looked at for a resend, back from the cursor: bounds the look, not the resend's worth.
const RESEND_BATCHES_MAX: u64 = 16 * 1024;

/// A batch that waits for longer than this when the process starts was not sent because the destination was away. A batch
/// processor's timeout comes on top.
const AWAY_AT_START: Duration = Duration::from_secs(3);

/// How much older the oldest batch that waits must be than the newest one, for what is new to have a lane of its own. A
/// batch processor's timeout comes on top.
const FALLEN_BEHIND: Duration = Duration::from_secs(15);

/// A request may take so long before what is done behind it is booked ahead of it.
const TAKES_LONG: Duration = Duration::from_secs(10);

/// How often it is looked whether a destination has fallen behind.
const BEHIND_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after the spool could not be read or moved on.
const SPOOL_RETRY: Duration = Duration::from_secs(1);

/// Where batches come from: a feed of the spool, or a model of it in tests.
pub(super) trait Source: Clone + Send + Sync + 'static {
    fn position(&self) -> Seq;
    fn read(&self, from: Seq, limits: ReadLimits) -> Result<Chunk, ReadError>;
    fn wait(&self, from: Seq) -> impl Future<Output = ()> + Send;
    fn advance(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError>;
    /// Books `[from, to)` beyond the cursor, which jumps over it later.
    fn advance_ahead(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError>;
    /// What is booked beyond the cursor.
    fn ahead(&self) -> Option<(Seq, Seq)>;
    fn newest(&self) -> Result<Newest, ReadError>;
}

pub(super) struct Engine<S, T> {
    source: S,
    pub(super) link: Arc<Link<T>>,
    batch: Option<BatchSettings>,
    requests_max: usize,
    takes_long: Duration,
}

/// What became of the attempt to send something.
enum Next {
    Sent,
    /// There is nothing to send, for so long unless more comes.
    Wait(Option<Duration>),
}

/// Whether a delivery ended as deliveries do.
enum Progress {
    Made,
    Lost,
}

/// The loop's own state.
struct Run<'a, S, T> {
    engine: &'a Engine<S, T>,
    shutdown: CancellationToken,
    lanes: Lanes,
    deliveries: JoinSet<(RequestId, Option<Outcome>)>,
    /// Of the next request.
    next_id: RequestId,
    last_booking: Instant,
    /// What the spool could not book yet: taken from the window, tried again before anything else.
    unbooked: Option<(Which, Booking)>,
    /// When it was last looked whether the destination has fallen behind.
    looked_behind: Option<Instant>,
    /// What goes again after the destination was away.
    resending: JoinSet<()>,
}

impl<S: Source, T: Transport> Engine<S, T> {
    pub(super) fn new(source: S, mut link: Link<T>, batch: Option<&BatchSettings>, num_consumers: u32) -> Self {
        link.spans_max = spans_max(batch);
        let requests_max = usize::try_from(num_consumers).unwrap_or(usize::MAX).clamp(1, REQUESTS_IN_FLIGHT_MAX);
        Self { source, link: Arc::new(link), batch: batch.cloned(), requests_max, takes_long: TAKES_LONG }
    }

    /// At the cursor.
    fn lanes(&self) -> Lanes {
        let bounds = Bounds { requests_max: self.requests_max, raw_bytes_max: RAW_BYTES_IN_FLIGHT_MAX };
        Lanes::new(self.batch.as_ref(), self.source.position(), self.source.ahead(), bounds)
    }

    /// How long a batch processor lets a batch wait.
    fn waits_at_most(&self) -> Duration {
        self.batch.as_ref().map_or(Duration::ZERO, |batch| batch.timeout)
    }

    /// Returns once there is something for an appetite.
    async fn wait(&self, appetite: Option<(Seq, ReadLimits)>) {
        if let Some((from, _)) = appetite {
            self.source.wait(from).await;
        }
    }

    /// Forwards until `shutdown`; then gives requests under way a moment, and books what is finished.
    pub(super) async fn run(&self, shutdown: CancellationToken) {
        let mut run = Run {
            engine: self,
            shutdown: shutdown.clone(),
            lanes: self.lanes(),
            deliveries: JoinSet::new(),
            next_id: RequestId(0),
            last_booking: Instant::now(),
            unbooked: None,
            looked_behind: None,
            resending: JoinSet::new(),
        };
        run.remember_silence().await;
        while !shutdown.is_cancelled() {
            let step = run.step();
            if let Err(problem) = step.await {
                error!(destination = self.link.name, error = %problem, "the spool cannot be read or the cursor not be moved; trying again");
                tokio::select! {
                    () = tokio::time::sleep(SPOOL_RETRY) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        }
        run.stop().await;
    }
}

impl<S: Source, T: Transport> Run<'_, S, T> {
    /// What the process before this one knew of a destination that was away, it took along; what it had not sent tells.
    async fn remember_silence(&mut self) {
        if !self.engine.link.resends() {
            return;
        }
        let (from, limits) =
            (self.lanes.main.cutter.start(), ReadLimits { raw_bytes_max: 0, spans_max: 0, batches_max: 1 });
        let Ok(chunk) = self.blocking(move |source| source.read(from, limits)).await else { return };
        if let Some(oldest) = chunk.batches.first().map(|batch| batch.header.received)
            && u128::from(unix_nanos().saturating_sub(oldest))
                > (AWAY_AT_START + self.engine.waits_at_most()).as_nanos()
        {
            self.engine.link.was_silent_since(oldest);
        }
    }

    /// Sends what can be sent, then waits for the next thing to happen and deals with it.
    async fn step(&mut self) -> Result<(), ReadError> {
        if let Some(left) = self.engine.link.closed_for() {
            return self.wait_for_hours(left).await;
        }
        if let Some(since) = self.engine.link.resend_since() {
            self.resend(since);
        }
        self.lanes.join();
        let is_away = self.engine.link.is_away();
        if is_away {
            let link = &self.engine.link;
            self.lanes.let_go(|from| link.is_waiting(from));
        } else {
            self.lanes.part(self.engine.batch.as_ref(), self.engine.takes_long);
            self.look_behind().await?;
        }
        // Nothing new while the spool does not book: what is sent would only be sent again after a crash.
        let mut wait_at_most = None;
        while self.unbooked.is_none() {
            match self.send_next(is_away) {
                Next::Sent => {}
                Next::Wait(left) => {
                    wait_at_most = left;
                    break;
                }
            }
        }
        let raw_bytes_max = self.engine.link.request_raw_bytes_max();
        let has_room = self.room_ahead(is_away).is_some();
        let mut appetite = |which| self.lanes.appetite(which, raw_bytes_max).filter(|_| has_room);
        let of_main = appetite(Which::Main);
        // What is read for it while the destination is away would be let go again.
        let of_live = if is_away { None } else { appetite(Which::Live) };
        let book_at = self.last_booking + BOOKING_INTERVAL;
        let resend_due = self.engine.link.resend_due();
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            Some(done) = self.deliveries.join_next(), if !self.deliveries.is_empty() => {
                if let Progress::Lost = self.finish(done) {
                    // Whatever made it panic is likely still there.
                    tokio::time::sleep(SPOOL_RETRY).await;
                }
            }
            () = tokio::time::sleep_until(book_at), if self.unbooked.is_some() || self.lanes.is_ready() => self.book().await?,
            () = self.engine.wait(of_live), if of_live.is_some() => self.read(Which::Live, raw_bytes_max).await?,
            () = self.engine.wait(of_main), if of_main.is_some() => self.read(Which::Main, raw_bytes_max).await?,
            () = tokio::time::sleep(LOOK_INTERVAL), if !self.lanes.is_idle() => {}
            () = tokio::time::sleep_until(resend_due.unwrap_or(book_at)), if resend_due.is_some() => {}
            () = tokio::time::sleep(wait_at_most.unwrap_or(SPOOL_RETRY)), if wait_at_most.is_some() => {}
        }
        self.engine.link.show_state();
        Ok(())
    }

    /// Sends the next request of the lane whose turn it is and that has one.
    fn send_next(&mut self, is_away: bool) -> Next {
        let mut wait_at_most: Option<Duration> = None;
        for which in self.lanes.turns() {
            // While the destination is away, the probe is of the main lane.
            if is_away && which == Which::Live {
                continue;
            }
            let Some(mut ahead) = self.room_ahead(is_away) else { break };
            let raw_bytes_max = self.engine.link.request_raw_bytes_max();
            let Some(lane) = self.lanes.of(which) else { continue };
            match lane.cutter.cut(unix_nanos(), raw_bytes_max) {
                Cut::Request(request) => {
                    let (range, raw_bytes) = ((request.from, request.to), request.raw_bytes());
                    let id = self.next_id;
                    self.next_id = RequestId(id.0 + 1);
                    let (link, shutdown) = (Arc::clone(&self.engine.link), self.shutdown.clone());
                    let is_begun = Arc::new(AtomicBool::new(false));
                    if let Some(share) = &mut ahead {
                        share.shrink(raw_bytes);
                    }
                    let task = self.deliveries.spawn({
                        let is_begun = Arc::clone(&is_begun);
                        async move {
                            let _ahead = ahead;
                            (id, deliver(&link, request, &is_begun, &shutdown).await)
                        }
                    });
                    lane.window.sending(range, Sending { id, raw_bytes, since: Instant::now(), task, is_begun });
                    self.lanes.sent(which);
                    return Next::Sent;
                }
                Cut::Skip { from, to } => {
                    lane.window.skip(from, to);
                    return Next::Sent;
                }
                Cut::Wait(left) => wait_at_most = Some(wait_at_most.map_or(left, |least| least.min(left))),
                Cut::Nothing => {}
            }
        }
        Next::Wait(wait_at_most)
    }

    /// Opens a lane for what is new, if what waits is much older.
    async fn look_behind(&mut self) -> Result<(), ReadError> {
        let behind = FALLEN_BEHIND + self.engine.waits_at_most();
        let is_behind = |oldest: u64, newest: u64| u128::from(newest.saturating_sub(oldest)) > behind.as_nanos();
        let is_looked = self.looked_behind.is_some_and(|looked| looked.elapsed() < BEHIND_LOOK_INTERVAL);
        let Some(oldest) = self.lanes.main.cutter.oldest_received() else { return Ok(()) };
        if self.lanes.live.is_some() || is_looked || !is_behind(oldest, unix_nanos()) {
            return Ok(());
        }
        self.looked_behind = Some(Instant::now());
        let newest = self.blocking(|source| source.newest()).await?;
        if newest.end > self.lanes.main.cutter.read_from()
            && newest.received.is_some_and(|received| is_behind(oldest, received))
        {
            info!(destination = self.engine.link.name, "a backlog drains; what is new goes beside it");
            self.lanes.open(self.engine.batch.as_ref(), newest.end);
        }
        Ok(())
    }

    async fn read(&mut self, which: Which, raw_bytes_max: usize) -> Result<(), ReadError> {
        self.follow_cursor();
        let Some((from, limits)) = self.lanes.appetite(which, raw_bytes_max) else { return Ok(()) };
        let chunk = self.blocking(move |source| source.read(from, limits)).await?;
        let is_stuck = chunk.next <= from;
        self.lanes.push(which, chunk);
        if is_stuck {
            // Something is durable there and nothing can be read: do not spin.
            tokio::time::sleep(BOOKING_INTERVAL).await;
        }
        Ok(())
    }

    /// Nothing new goes out; what is under way ends and is booked.
    async fn wait_for_hours(&mut self, left: Duration) -> Result<(), ReadError> {
        let book_at = self.last_booking + BOOKING_INTERVAL;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            Some(done) = self.deliveries.join_next(), if !self.deliveries.is_empty() => drop(self.finish(done)),
            () = tokio::time::sleep_until(book_at), if self.unbooked.is_some() || self.lanes.is_ready() => self.book().await?,
            // Clocks are set now and then.
            () = tokio::time::sleep(left.min(HOURS_LOOK_INTERVAL)) => {}
        }
        self.engine.link.show_state();
        Ok(())
    }

    /// What was sent from `since` on goes again, beside what is new. Accounts know nothing of it: it was sent before.
    fn resend(&mut self, since: u64) {
        let (source, link, shutdown) =
            (self.engine.source.clone(), Arc::clone(&self.engine.link), self.shutdown.clone());
        let end = self.lanes.main.first();
        let ahead = self.engine.source.ahead();
        // A destination that comes and goes has its resends one after the other, the older one given up.
        self.resending.abort_all();
        self.resending.spawn(async move {
            let before = (Seq(end.0.saturating_sub(RESEND_BATCHES_MAX)), end);
            let mut sent = 0;
            sent += resend(source.clone(), &link, since, before, &shutdown).await;
            if let Some(ahead) = ahead {
                // The destination was there for what is booked ahead, though older batches waited.
                let since = since.max(since_last(source.clone(), ahead, link.resend_nanos()).await);
                sent += resend(source, &link, since, ahead, &shutdown).await;
            }
            info!(
                destination = link.name,
                sent, "what was sent shortly before the destination went away was sent again"
            );
        });
    }

    /// Whether another request may be read and sent. The first always may; further ones need a share of the memory,
    /// and a destination that is not away.
    fn room_ahead(&self, is_away: bool) -> Option<Option<Share>> {
        if self.lanes.is_idle() {
            return Some(None);
        }
        let link = &self.engine.link;
        // A batch is cut to smaller requests only when it is held.
        let raw_bytes = link.request_raw_bytes_max().max(Header::RAW_BYTES_MAX);
        if is_away { None } else { link.budget().ahead(raw_bytes).map(Some) }
    }

    fn finish(&mut self, done: Result<(RequestId, Option<Outcome>), tokio::task::JoinError>) -> Progress {
        match done {
            Ok((id, Some(outcome))) => self.lanes.finish(id, outcome),
            // Shutting down: the cursor stays, the request goes again after the restart.
            Ok((_, None)) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                // A delivery that panicked is sent again from the cursor: nothing of it was booked.
                error!(destination = self.engine.link.name, %error, "a delivery failed; going on at the cursor");
                self.restart();
                return Progress::Lost;
            }
        }
        Progress::Made
    }

    /// Forgets everything that is not booked and goes on at the cursor.
    fn restart(&mut self) {
        self.deliveries = JoinSet::new();
        self.unbooked = None;
        self.lanes = self.engine.lanes();
    }

    /// Books the finished stretch at the front, if any. What cannot be booked is kept for the next call.
    async fn book(&mut self) -> Result<(), ReadError> {
        self.follow_cursor();
        while let Some((which, booking)) = self.unbooked.take().or_else(|| self.lanes.take_finished()) {
            // The copy is of counts and of references to parked frames.
            let Booking { from, to, outcome } = booking.clone();
            let is_booked = self.blocking(move |source| match which {
                Which::Main => source.advance(from, to, outcome),
                Which::Live => source.advance_ahead(from, to, outcome),
            });
            let is_booked = is_booked.await;
            self.last_booking = Instant::now();
            match is_booked {
                Ok(true) => {}
                // The cursor was moved since it was looked at. What was taken from the window is not booked.
                Ok(false) => self.restart(),
                Err(error) => {
                    self.unbooked = Some((which, booking));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The spool's budget moves cursors too, and accounts for what they passed: forgets that.
    fn follow_cursor(&mut self) {
        self.lanes.join();
        let position = self.engine.source.position();
        if self.lanes.main.first() >= position {
            return;
        }
        info!(destination = self.engine.link.name, position = position.0, "the spool's budget moved the cursor on");
        self.lanes.follow(position);
    }

    /// Disk work, off the async workers.
    async fn blocking<V: Send + 'static>(
        &self,
        work: impl FnOnce(S) -> Result<V, ReadError> + Send + 'static,
    ) -> Result<V, ReadError> {
        let source = self.engine.source.clone();
        match tokio::task::spawn_blocking(move || work(source)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    async fn stop(&mut self) {
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.deliveries.join_next()).await {
            self.finish(done);
        }
        self.deliveries.abort_all();
        self.resending.abort_all();
        if let Err(error) = self.book().await {
            error!(destination = self.engine.link.name, %error, "the cursor could not be moved; requests will be sent again");
        }
    }
}

#[cfg(test)]
mod tests;
