//! The loop of one destination: read, cut, send, book.
//!
//! ```text
//!          read            cut              deliver (tasks, any order)         book (finished prefix)
//! spool ─────────▶ cutter ─────▶ request ─▶ window ──────────────────▶ outcome ─────────────────────▶ cursor
//! ```

use super::budget::Share;
use super::cutter::{Cut, Cutter, spans_max};
use super::deliver::deliver;
use super::link::{Link, Transport, Verdict};
use super::request::Piece;
use super::window::{Booking, RequestId, Sending, Window};
use crate::process::batch::settings::BatchSettings;
use crate::spool::{Batch, Chunk, Outcome, ReadError, ReadLimits, Seq};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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

/// How often it is looked whether the hours of a destination have begun.
const HOURS_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Batches that are looked at for a resend, back from the cursor: bounds the look, not the resend's worth.
const RESEND_BATCHES_MAX: u64 = 16 * 1024;

/// The pause after the spool could not be read or moved on.
const SPOOL_RETRY: Duration = Duration::from_secs(1);

/// Where batches come from: a feed of the spool, or a model of it in tests.
pub(super) trait Source: Clone + Send + Sync + 'static {
    fn position(&self) -> Seq;
    fn read(&self, from: Seq, limits: ReadLimits) -> Result<Chunk, ReadError>;
    fn wait(&self, from: Seq) -> impl Future<Output = ()> + Send;
    fn advance(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError>;
}

pub(super) struct Engine<S, T> {
    source: S,
    pub(super) link: Arc<Link<T>>,
    batch: Option<BatchSettings>,
    requests_max: usize,
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
    cutter: Cutter,
    window: Window,
    deliveries: JoinSet<(RequestId, Option<Outcome>)>,
    /// Of the next request.
    next_id: RequestId,
    last_booking: Instant,
    /// What the spool could not book yet: taken from the window, tried again before anything else.
    unbooked: Option<Booking>,
    /// What goes again after the destination was away.
    resending: JoinSet<()>,
}

impl<S: Source, T: Transport> Engine<S, T> {
    pub(super) fn new(source: S, mut link: Link<T>, batch: Option<&BatchSettings>, num_consumers: u32) -> Self {
        link.spans_max = spans_max(batch);
        let requests_max = usize::try_from(num_consumers).unwrap_or(usize::MAX).clamp(1, REQUESTS_IN_FLIGHT_MAX);
        Self { source, link: Arc::new(link), batch: batch.cloned(), requests_max }
    }

    /// Forwards until `shutdown`; then gives requests under way a moment, and books what is finished.
    pub(super) async fn run(&self, shutdown: CancellationToken) {
        let mut run = Run {
            engine: self,
            shutdown: shutdown.clone(),
            cutter: Cutter::new(self.batch.as_ref(), self.source.position()),
            window: Window::new(self.requests_max, RAW_BYTES_IN_FLIGHT_MAX),
            deliveries: JoinSet::new(),
            next_id: RequestId(0),
            last_booking: Instant::now(),
            unbooked: None,
            resending: JoinSet::new(),
        };
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
    /// Sends what can be sent, then waits for the next thing to happen and deals with it.
    async fn step(&mut self) -> Result<(), ReadError> {
        if let Some(left) = self.engine.link.closed_for() {
            return self.wait_for_hours(left).await;
        }
        if let Some(since) = self.engine.link.resend_since() {
            self.resend(since);
        }
        let mut wait_at_most = None;
        let is_away = self.engine.link.is_away();
        if is_away {
            self.let_go();
        }
        // Nothing new while the spool does not book: what is sent would only be sent again after a crash.
        while self.unbooked.is_none() && self.window.has_room() {
            let Some(mut ahead) = self.room_ahead(is_away) else { break };
            match self.cutter.cut(unix_nanos(), self.engine.link.request_raw_bytes_max()) {
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
                    self.window.sending(range, Sending { id, raw_bytes, task, is_begun });
                }
                Cut::Skip { from, to } => self.window.skip(from, to),
                Cut::Wait(left) => {
                    wait_at_most = Some(left);
                    break;
                }
                Cut::Nothing => break,
            }
        }
        let appetite =
            self.room_ahead(is_away).and_then(|_| self.cutter.appetite(self.engine.link.request_raw_bytes_max()));
        let from = self.cutter.read_from();
        let book_at = self.last_booking + BOOKING_INTERVAL;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            Some(done) = self.deliveries.join_next(), if !self.deliveries.is_empty() => {
                if let Progress::Lost = self.finish(done) {
                    // Whatever made it panic is likely still there.
                    tokio::time::sleep(SPOOL_RETRY).await;
                }
            }
            () = tokio::time::sleep_until(book_at), if self.unbooked.is_some() || self.window.is_ready() => self.book().await?,
            () = self.engine.source.wait(from), if appetite.is_some() => {
                self.follow_cursor();
                let from = self.cutter.read_from();
                if let Some(limits) = appetite {
                    let chunk = self.blocking(move |source| source.read(from, limits)).await?;
                    let is_stuck = chunk.next <= from;
                    self.cutter.push(chunk);
                    if is_stuck {
                        // Something is durable there and nothing can be read: do not spin.
                        tokio::time::sleep(BOOKING_INTERVAL).await;
                    }
                }
            }
            () = tokio::time::sleep(LOOK_INTERVAL), if !self.window.is_idle() => {}
            () = tokio::time::sleep(wait_at_most.unwrap_or(SPOOL_RETRY)), if wait_at_most.is_some() => {}
        }
        self.engine.link.show_state();
        Ok(())
    }

    /// Nothing new goes out; what is under way ends and is booked.
    async fn wait_for_hours(&mut self, left: Duration) -> Result<(), ReadError> {
        let book_at = self.last_booking + BOOKING_INTERVAL;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            Some(done) = self.deliveries.join_next(), if !self.deliveries.is_empty() => drop(self.finish(done)),
            () = tokio::time::sleep_until(book_at), if self.unbooked.is_some() || self.window.is_ready() => self.book().await?,
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
        let end = self.window.first().unwrap_or(self.cutter.start());
        // A destination that comes and goes has its resends one after the other, the older one given up.
        self.resending.abort_all();
        self.resending.spawn(async move {
            let sent = resend(source, &link, since, end, &shutdown).await;
            info!(
                destination = link.name,
                sent, "what was sent shortly before the destination went away was sent again"
            );
        });
    }

    /// Whether another request may be read and sent. The first always may; further ones need a share of the memory,
    /// and a destination that is not away.
    fn room_ahead(&self, is_away: bool) -> Option<Option<Share>> {
        if self.window.is_idle() {
            return Some(None);
        }
        let link = &self.engine.link;
        if is_away { None } else { link.budget().ahead(link.request_raw_bytes_max()).map(Some) }
    }

    /// The destination is away: keeps the oldest request, which is the probe, and what was begun; the rest is read
    /// again when the gate opens.
    fn let_go(&mut self) {
        let link = &self.engine.link;
        let retreated = self.window.retreat(|from| link.is_waiting(from));
        // A retreat leaves one under way. With none, what waits to be cut stays: it is the next probe.
        if !self.window.is_idle() {
            self.cutter.restart(retreated.unwrap_or(self.cutter.start()));
        }
    }

    fn finish(&mut self, done: Result<(RequestId, Option<Outcome>), tokio::task::JoinError>) -> Progress {
        match done {
            Ok((id, Some(outcome))) => self.window.finish(id, outcome),
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
        self.window = Window::new(self.engine.requests_max, RAW_BYTES_IN_FLIGHT_MAX);
        self.cutter.restart(self.engine.source.position());
    }

    /// Books the finished stretch at the front, if any. What cannot be booked is kept for the next call.
    async fn book(&mut self) -> Result<(), ReadError> {
        self.follow_cursor();
        while let Some(booking) = self.unbooked.take().or_else(|| self.window.take_finished()) {
            // The copy is of counts and of references to parked frames.
            let Booking { from, to, outcome } = booking.clone();
            let is_booked = self.blocking(move |source| source.advance(from, to, outcome)).await;
            self.last_booking = Instant::now();
            match is_booked {
                Ok(true) => {}
                // The cursor was moved since it was looked at. What was taken from the window is not booked.
                Ok(false) => self.restart(),
                Err(error) => {
                    self.unbooked = Some(booking);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The spool's budget moves cursors too, and accounts for what they passed: forgets that.
    fn follow_cursor(&mut self) {
        let position = self.engine.source.position();
        if self.window.first().unwrap_or(self.cutter.start()) >= position {
            return;
        }
        info!(destination = self.engine.link.name, position = position.0, "the spool's budget moved the cursor on");
        if self.window.resync(position).is_some() || self.cutter.start() < position {
            self.cutter.restart(position);
        }
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

/// Sends what the spool still has of what became durable from `since` on, up to `end`; how many spans the destination took.
async fn resend<S: Source, T: Transport>(
    source: S,
    link: &Link<T>,
    since: u64,
    end: Seq,
    shutdown: &CancellationToken,
) -> u64 {
    let mut next = Seq(end.0.saturating_sub(RESEND_BATCHES_MAX));
    let mut sent = 0;
    while next < end {
        let from = next;
        let limits = ReadLimits { raw_bytes_max: link.request_raw_bytes_max(), spans_max: u64::MAX, batches_max: 512 };
        let source = source.clone();
        let read = tokio::task::spawn_blocking(move || source.read(from, limits)).await;
        let Ok(Ok(chunk)) = read else { break };
        if chunk.next <= from {
            break;
        }
        next = chunk.next;
        let batches: Vec<Batch> =
            chunk.batches.into_iter().filter(|batch| batch.seq < end && batch.header.received >= since).collect();
        if batches.is_empty() {
            continue;
        }
        let piece = Piece::Batches(batches);
        // Behind everything that is new: a closed gate lets the oldest through first.
        match link.attempt(Seq(u64::MAX), shutdown, &piece).await {
            Some(Verdict::Delivered { rejected_spans }) => sent += piece.spans().saturating_sub(rejected_spans),
            Some(_) => {}
            None => break,
        }
    }
    sent
}

fn unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
