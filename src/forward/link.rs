//! The way to one destination: its transport, its gate, and what was learned about it since the start.

use super::answer::{Answer, bounded};
use super::body::{self, Body, Codec, CodecChoice, Dialect};
use super::budget::{Budget, Lane};
use super::delivery::{DeliverySettings, second_of_day};
use super::gate::{Change, Gate};
use super::metrics::DestinationMetrics;
use super::pace::{Charge, Pace};
use super::request::Piece;
use super::settings::{Compression, RetrySettings};
use super::sizes::Sizes;
use super::status::{Journal, State, Status};
use super::turns::Turns;
use crate::otlp::Signal;
use crate::spool::Seq;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// A request's protobuf before compression: two full batches of the spool. Receivers accept 4 MiB (grpc-go's default,
/// counted after decompression); 32 KiB of that stay free.
pub(super) const REQUEST_RAW_BYTES_MAX: usize = 2 * crate::spool::Header::RAW_BYTES_MAX;

/// However small a request was that a destination calls too large, later ones may be of this size: the complaint may
/// have been about one huge span.
const REQUEST_RAW_BYTES_MIN: usize = 256 * 1024;

/// So often a request meets a rate limit, alone and after the wait that was asked for, before smaller ones are tried: its
/// size may be more than ever passes at once (Tempo 2 says of that what it says of a bucket that is empty). The try before
/// any wait does not count.
const LIMITED_TRIES: u32 = 2;

/// How often something that needs a person is tried again.
const HOLD: Duration = Duration::from_secs(60);

/// How often it is looked whether the hours of a destination have begun.
pub(super) const HOURS_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Between two lines about partial successes.
const PARTIAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Sends one request and reports the answer. An implementation bounds its waits by the settings' timeout, and the
/// response that it reads.
pub(super) trait Transport: Send + Sync + 'static {
    fn send(&self, body: Body) -> impl Future<Output = Reply> + Send;

    /// When a connection ended that had served, told once: whoever was at its other end may have been restarted, though
    /// the next request was answered.
    fn broke_at(&self) -> Option<SystemTime> {
        None
    }
}

/// The name of [`Reply::no_answer`].
const NO_ANSWER: &str = "transport";

/// An answer, and its name for the metrics.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) name: Cow<'static, str>,
    pub(super) answer: Answer,
}

impl Reply {
    /// No answer came: connection refused, reset, timeout.
    pub(super) fn no_answer(why: &str) -> Self {
        Self { name: NO_ANSWER.into(), answer: Answer::Retry { after: None, why: bounded(why) } }
    }
}

/// What became of one attempt, as far as the request's spans are concerned. Everything that only needs patience or
/// another codec has been dealt with.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered {
        rejected_spans: u64,
    },
    TooLarge {
        why: String,
    },
    /// More at once than the destination lets pass, however long it is waited.
    TooMuch {
        why: String,
    },
    Refused {
        why: String,
    },
    Internal {
        why: String,
    },
    /// Retrying is switched off and the only attempt failed.
    GivenUp {
        why: String,
    },
    /// The stored bytes cannot be read.
    Damaged {
        why: String,
    },
}

pub(super) struct Link<T> {
    pub(super) name: String,
    transport: T,
    pub(super) dialect: Dialect,
    codec: CodecChoice,
    gate: Gate,
    pub(super) retry: RetrySettings,
    pub(super) hold: Duration,
    /// Spans per request; `None` is no cap.
    pub(super) spans_max: Option<u64>,
    request_raw_bytes_max: AtomicUsize,
    /// Requests with spans that were taken: the evidence that a refusal is about the content.
    taken: AtomicU64,
    partial_logged: Mutex<Option<Instant>>,
    journal: Journal,
    metrics: DestinationMetrics,
    budget: Budget,
    /// Whether the last attempt got an answer, whatever it was.
    is_answering: AtomicBool,
    delivery: DeliverySettings,
    pace: Pace,
    turns: Turns,
    sizes: Sizes,
    /// When the destination went silent in the midst of its work, or lost its connections; until somebody asks.
    went_silent: Mutex<Option<SystemTime>>,
    /// It is back since then, and what it was sent shortly before may be lost.
    came_back: AtomicBool,
    /// When something was last to go again.
    resent: Mutex<Option<Instant>>,
}

impl<T: Transport> Link<T> {
    pub(super) fn new(
        name: &str,
        transport: T,
        dialect: Dialect,
        compression: Compression,
        retry: RetrySettings,
        metrics: DestinationMetrics,
        budget: &Budget,
    ) -> Self {
        let link = Self {
            name: name.to_owned(),
            transport,
            dialect,
            codec: CodecChoice::new(compression),
            gate: Gate::new(retry.clone()),
            retry,
            hold: HOLD,
            spans_max: None,
            request_raw_bytes_max: AtomicUsize::new(REQUEST_RAW_BYTES_MAX),
            taken: AtomicU64::new(0),
            partial_logged: Mutex::new(None),
            journal: Journal::default(),
            metrics,
            budget: budget.clone(),
            is_answering: AtomicBool::new(false),
            delivery: DeliverySettings::default(),
            pace: Pace::new(None),
            turns: Turns::default(),
            sizes: Sizes::default(),
            went_silent: Mutex::new(None),
            came_back: AtomicBool::new(false),
            resent: Mutex::new(None),
        };
        link.show_state();
        link
    }

    /// With what the Collector has no word for.
    pub(super) fn delivering(mut self, delivery: &DeliverySettings) -> Self {
        self.pace = Pace::new(delivery.bytes_per_second_max);
        self.delivery = delivery.clone();
        self
    }

    /// How long nothing may be sent, because these are not the hours for it.
    pub(super) fn closed_for(&self) -> Option<Duration> {
        self.delivery.hours?.closed_for(second_of_day())
    }

    /// Waits until these are the hours in which something may be sent, a probe too. `None`: shutting down.
    async fn in_hours(&self, shutdown: &CancellationToken) -> Option<()> {
        while let Some(left) = self.closed_for() {
            self.show_state();
            tokio::select! {
                // Clocks are set now and then.
                () = tokio::time::sleep(left.min(HOURS_LOOK_INTERVAL)) => {}
                () = shutdown.cancelled() => return None,
            }
        }
        Some(())
    }

    /// When what was sent should go again: after the destination was gone, and not sooner after the last time than what
    /// goes again reaches back, or a destination that closes connections often would get everything again and again.
    pub(super) fn resend_due(&self) -> Option<Instant> {
        let resent = *self.resent.lock().unwrap_or_else(PoisonError::into_inner);
        let due = || resent.map_or_else(Instant::now, |resent| resent + self.delivery.resend);
        self.came_back.load(Ordering::Relaxed).then(due)
    }

    /// From when on what was sent should go again, if that is due; Unix nanoseconds.
    pub(super) fn resend_since(&self) -> Option<u64> {
        if self.resend_due()? > Instant::now() {
            return None;
        }
        self.came_back.store(false, Ordering::Relaxed);
        *self.resent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let silent_since = self.went_silent.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let since = silent_since.checked_sub(self.delivery.resend)?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    }

    /// Keeps in mind when a destination that had answered is silent, and when it answers again.
    fn watch_silence(&self, is_answer: bool) {
        let was_answering = self.is_answering.swap(is_answer, Ordering::Relaxed);
        if self.delivery.resend.is_zero() {
            return;
        }
        let broke_at = self.transport.broke_at();
        let mut went_silent = self.went_silent.lock().unwrap_or_else(PoisonError::into_inner);
        if went_silent.is_none() {
            *went_silent = broke_at.or((was_answering && !is_answer).then(SystemTime::now));
        }
        if is_answer && went_silent.is_some() {
            self.came_back.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anything goes again after the destination was away.
    pub(super) fn resends(&self) -> bool {
        !self.delivery.resend.is_zero()
    }

    /// Spans that were to go again were not taken.
    pub(super) fn left_out_of_resend(&self, spans: u64) {
        self.metrics.left_out_of_resend(spans);
    }

    /// How far back what goes again reaches.
    pub(super) fn resend_nanos(&self) -> u64 {
        u64::try_from(self.delivery.resend.as_nanos()).unwrap_or(u64::MAX)
    }

    /// What the process before this one had not sent waits since `received` (Unix nanoseconds): the destination was away.
    pub(super) fn was_silent_since(&self, received: u64) {
        let mut went_silent = self.went_silent.lock().unwrap_or_else(PoisonError::into_inner);
        went_silent.get_or_insert(UNIX_EPOCH + Duration::from_nanos(received));
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec.current()
    }

    /// How large the next request may be; a destination that may not answer is asked with a small one.
    pub(super) fn request_raw_bytes_max(&self) -> usize {
        let learned = self.request_raw_bytes_max.load(Ordering::Relaxed).min(self.burst_raw_bytes_max());
        if self.is_answering.load(Ordering::Relaxed) { learned } else { learned.min(REQUEST_RAW_BYTES_MIN) }
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> Status {
        self.journal.status(self.state())
    }

    fn state(&self) -> State {
        match (self.gate.state(), self.closed_for()) {
            // A probe that is due waits for them as well.
            (State::Idle | State::BackingOff { .. }, Some(left)) => {
                State::OutsideHours { until: SystemTime::now() + left }
            }
            (state, _) => state,
        }
    }

    /// Whether the destination is away or may be (it was never asked): one request at a time goes out, as a probe.
    pub(super) fn is_away(&self) -> bool {
        !self.is_answering.load(Ordering::Relaxed)
            || matches!(self.gate.state(), State::BackingOff { .. } | State::Held { .. })
    }

    /// Whether the request that begins at `order` waits at the gate.
    pub(super) fn is_waiting(&self, order: Seq) -> bool {
        self.gate.is_waiting(order)
    }

    pub(super) fn transport(&self) -> &T {
        &self.transport
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn show_state(&self) {
        self.metrics.state(&self.state());
    }

    /// A request of `raw_bytes` was too large: later ones are made half as large, within reason.
    pub(super) fn learn_size(&self, raw_bytes: usize) {
        let learned = (raw_bytes / 2).max(REQUEST_RAW_BYTES_MIN);
        let before = self.request_raw_bytes_max.fetch_min(learned, Ordering::Relaxed);
        if learned < before {
            info!(destination = self.name, bytes_max = learned, "destination wants smaller requests");
        }
    }

    /// A request of `raw_bytes` was more than the destination lets pass at once: for a while later ones are half as large.
    pub(super) fn learn_burst(&self, raw_bytes: usize) {
        let bytes_max = self.sizes.refused(raw_bytes, Instant::now());
        info!(
            destination = self.name,
            bytes_max, "destination limits the rate to less than a request: they are smaller now"
        );
    }

    /// How large a request may be that the destination's rate limit lets pass.
    pub(super) fn burst_raw_bytes_max(&self) -> usize {
        self.sizes.max(Instant::now())
    }

    /// Sends a piece in the codec in use until there is a verdict on its content; waits at the gate while the
    /// destination is away, and for room in the budget. `None`: shutting down.
    pub(super) async fn attempt(&self, order: Seq, shutdown: &CancellationToken, piece: &Piece) -> Option<Verdict> {
        let (mut tried, mut limited) = (None, 0);
        loop {
            self.in_hours(shutdown).await?;
            let codec = self.codec();
            // Before anything is held for it.
            let charge = self.turn(order, piece.body_bytes(self.dialect, codec), shutdown).await?;
            self.in_hours(shutdown).await?;
            let pass = self.gate.enter(order, shutdown).await?;
            // The wait may have been long.
            if self.closed_for().is_some() {
                continue;
            }
            let lane = if self.is_answering.load(Ordering::Relaxed) { Lane::Answering } else { Lane::Silent };
            let _share = tokio::select! {
                share = self.budget.sending(lane, piece.body_bytes(self.dialect, codec)) => share,
                () = shutdown.cancelled() => return None,
            };
            // Much may have happened meanwhile; a destination that went away must not hold memory.
            if !pass.is_current() || codec != self.codec() {
                continue;
            }
            // Encoded anew for each try: between two tries nothing is held, and they are seconds apart.
            let body = match piece.clone().body(self.dialect, codec).await {
                Ok(body) => body,
                Err(why) => return Some(Verdict::Damaged { why }),
            };
            // The same in another codec is a first try of that.
            if tried.replace(codec) == Some(codec) {
                self.metrics.retried();
            }
            let bytes = body.encoded_bytes();
            self.pace.settle(&charge, bytes);
            match self.send(body).await {
                Answer::Delivered { rejected_spans, message } => {
                    let now = Instant::now();
                    self.pace.delivered(bytes, now);
                    self.sizes.delivered(piece.raw_bytes(), now);
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    self.journal.success();
                    self.metrics.succeeded();
                    self.log(pass.answered(), "");
                    if rejected_spans > 0 || !message.is_empty() {
                        self.log_partial(rejected_spans, &message);
                    }
                    return Some(Verdict::Delivered { rejected_spans });
                }
                Answer::TooLarge { why } => {
                    self.log(pass.answered(), &why);
                    return Some(Verdict::TooLarge { why });
                }
                Answer::Refused { why } => {
                    self.log(pass.answered(), &why);
                    return Some(Verdict::Refused { why });
                }
                Answer::Internal { why } => {
                    self.log(pass.answered(), &why);
                    return Some(Verdict::Internal { why });
                }
                Answer::CompressionRefused { why } => match self.codec.lower(codec) {
                    Some((next, is_changed)) => {
                        let _ = pass.answered();
                        if is_changed {
                            let next = next.name().unwrap_or("none");
                            info!(destination = self.name, answer = why, "compression refused, sending with {next}");
                        }
                    }
                    None => self.log(pass.hold(self.hold, &why), &why),
                },
                Answer::Retry { why, .. } | Answer::Limited { why, .. } | Answer::Misconfigured { why }
                    if !self.retry.enabled =>
                {
                    let _ = pass.answered();
                    return Some(Verdict::GivenUp { why });
                }
                Answer::Retry { after, why } => self.log(pass.failed(after, &why), &why),
                Answer::Limited { after, why } => {
                    let change = pass.failed(after, &why);
                    // What failed before any wait, or together with others, may have been one too many.
                    limited += u32::from(matches!(change, Change::ClosedAgain(_)));
                    if after.is_some() && change != Change::Nothing {
                        self.slow_down();
                    }
                    self.log(change, &why);
                    if limited >= LIMITED_TRIES && piece.spans() > 1 {
                        return Some(Verdict::TooMuch { why });
                    }
                }
                Answer::Misconfigured { why } => self.log(pass.hold(self.hold, &why), &why),
            }
            self.show_state();
        }
    }

    /// Waits until the rate lets a body pass, and those that are older have gone. `None`: shutting down.
    async fn turn(&self, order: Seq, body_bytes: usize, shutdown: &CancellationToken) -> Option<Charge> {
        let turn = self.turns.join(order);
        let waited = async {
            loop {
                turn.first().await;
                match self.pace.turn(body_bytes, Instant::now()) {
                    Ok(charge) => return charge,
                    Err(again) => tokio::time::sleep_until(again).await,
                }
            }
        };
        shutdown.run_until_cancelled(waited).await
    }

    /// The destination gets too much.
    fn slow_down(&self) {
        if let Some(bytes_per_second_max) = self.pace.too_fast(Instant::now()) {
            info!(
                destination = self.name,
                bytes_per_second_max, "destination limits the rate: it gets less for a while"
            );
        }
    }

    /// Whether the destination takes a request without spans: if not, what it refuses is not the content.
    /// `None`: shutting down.
    pub(super) async fn takes_empty_request(&self, order: Seq, shutdown: &CancellationToken) -> Option<bool> {
        self.in_hours(shutdown).await?;
        let _pass = self.gate.enter(order, shutdown).await?;
        // Uncompressed, so that nothing but the request itself can be refused. A few bytes, the same for every signal.
        let Ok(empty) = body::encode(Bytes::new(), Signal::default(), 0, self.dialect, Codec::Identity) else {
            return Some(false);
        };
        Some(matches!(self.send(empty).await, Answer::Delivered { .. }))
    }

    async fn send(&self, body: Body) -> Answer {
        let _in_flight = self.metrics.sending(body.encoded_bytes());
        self.show_state();
        let reply = self.transport.send(body).await;
        self.watch_silence(reply.name != NO_ANSWER);
        self.metrics.answered(reply.name);
        match &reply.answer {
            Answer::Delivered { .. } => {}
            Answer::Retry { why, .. }
            | Answer::Limited { why, .. }
            | Answer::TooLarge { why }
            | Answer::Refused { why }
            | Answer::CompressionRefused { why }
            | Answer::Misconfigured { why }
            | Answer::Internal { why } => self.journal.error(why),
        }
        reply.answer
    }

    /// `partial_success`: a warning, but not for every request of a destination that has something to say each time.
    fn log_partial(&self, rejected_spans: u64, message: &str) {
        let mut last = self.partial_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PARTIAL_LOG_INTERVAL) {
            *last = Some(Instant::now());
            warn!(destination = self.name, rejected_spans, message, "destination took a request in part");
        }
    }

    /// One line when a destination goes away, one when it is back; what needs a person is repeated at every try.
    fn log(&self, change: Change, why: &str) {
        let is_held = matches!(self.gate.state(), State::Held { .. });
        match change {
            Change::Nothing => {}
            Change::Closed(delay) | Change::ClosedAgain(delay) if is_held => error!(
                destination = self.name,
                answer = why,
                retry_in = ?delay,
                "destination refuses everything; its spans wait on disk: check endpoint, TLS and credentials"
            ),
            Change::Closed(delay) => {
                warn!(destination = self.name, answer = why, retry_in = ?delay, "destination away; its spans wait on disk");
            }
            Change::ClosedAgain(delay) => {
                debug!(destination = self.name, answer = why, retry_in = ?delay, "destination still away");
            }
            Change::Opened(away) => info!(destination = self.name, away_for = ?away, "destination is back"),
        }
    }
}

#[cfg(test)]
impl<T: Transport> Link<T> {
    pub(super) fn use_codec_for_test(&self, codec: Codec) {
        while self.codec() != codec {
            self.codec.lower(self.codec());
        }
    }
}
