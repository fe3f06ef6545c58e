//! One request, delivered or accounted for to the last span.
//!
//! ```text
//! request ─▶ attempt ─┬─ delivered ───────────────▶ sent, rejected
//!                     ├─ too large, refused ──────▶ two halves, each an attempt
//!                     └─ one span and still no ───▶ culprit ─▶ evidence? tried once more ─▶ parked
//! ```
//!
//! Only what was refused alone is parked, however many round trips a request full of poison takes: three a span.
//!
//! Parking is giving up on data, so it needs evidence that the destination works and the content is at fault: another
//! request was taken since the refusal, or (for refusals in so many words) a request without spans is taken. Without
//! evidence the culprits wait and are tried again: a back end that answers 400 or 500 to everything loses nothing.

use super::link::{Link, REQUEST_RAW_BYTES_MAX, Transport, Verdict};
use super::request::{Halves, Piece, Request};
use super::retry::Backoff;
use crate::spool::{LossReason, Outcome, Parked, Seq};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// How often a whole request is tried that the destination fails over, before it is searched for a culprit.
const INTERNAL_TRIES: u32 = 3;

/// Culprits set aside before they are dealt with, and before the rest is sent: a request full of poison shows early
/// whether anything but the content is at fault.
const CULPRITS_MAX: usize = 64;

/// Dead letters of one request that are told apart by what the destination said. Beyond, spans join the last letter of
/// their batch.
const LETTERS_MAX: usize = 64;

/// A piece that the destination does not take and that is not cut any further.
#[derive(Debug)]
struct Culprit {
    piece: Piece,
    why: String,
    is_internal: bool,
    /// [`Link::taken`] when it was refused.
    taken_before: u64,
    /// It was refused again although evidence was there.
    is_confirmed: bool,
}

struct Delivery<'a, T> {
    link: &'a Link<T>,
    order: Seq,
    shutdown: &'a CancellationToken,
    is_begun: &'a AtomicBool,
    /// What is still to be sent; the last is the oldest.
    work: Vec<Piece>,
    culprits: Vec<Culprit>,
    internal_tries: u32,
    backoff: Backoff,
    sent: u64,
    lost: BTreeMap<LossReason, u64>,
    letters: Vec<Letter>,
}

/// A dead letter that grows: spans of one batch that were refused in the same words lie in one.
struct Letter {
    seq: Seq,
    spans: u64,
    answer: String,
    /// zstd frames, end to end.
    frames: Vec<Bytes>,
}

/// Sends a request until all of its spans are accounted for. `None`: shutting down, nothing may be booked. `is_begun`
/// becomes true with the first verdict: until then nothing is lost by forgetting the delivery.
pub(super) async fn deliver<T: Transport>(
    link: &Link<T>,
    request: Request,
    is_begun: &AtomicBool,
    shutdown: &CancellationToken,
) -> Option<Outcome> {
    let spans = request.spans();
    if spans == 0 {
        return Some(Outcome::default());
    }
    let mut delivery = Delivery {
        link,
        order: request.from,
        shutdown,
        is_begun,
        work: Vec::new(),
        culprits: Vec::new(),
        internal_tries: 0,
        backoff: Backoff::new(link.retry.clone()),
        sent: 0,
        lost: BTreeMap::new(),
        letters: Vec::new(),
    };
    delivery.start(Piece::Batches(request.batches)).await;
    loop {
        while delivery.culprits.len() < CULPRITS_MAX
            && let Some(piece) = delivery.work.pop()
        {
            delivery.attempt(piece).await?;
        }
        if delivery.culprits.is_empty() {
            break;
        }
        delivery.settle().await?;
    }
    let lost: u64 = delivery.lost.values().sum();
    debug_assert_eq!(delivery.sent + lost, spans, "every span is accounted for once");
    let parked = delivery.letters.into_iter().map(Letter::into_parked).collect();
    let lost = delivery.lost.into_iter().collect();
    Some(Outcome { sent: delivery.sent, lost, parked, ..Outcome::default() })
}

impl Letter {
    fn into_parked(self) -> Parked {
        let Self { seq, spans, answer, mut frames } = self;
        let frame = if frames.len() == 1 { frames.swap_remove(0) } else { frames.concat().into() };
        Parked { seq, spans, answer, frame }
    }
}

impl<T: Transport> Delivery<'_, T> {
    /// The first pieces: the whole, or ones of at most the configured number of spans and the size that receivers
    /// accept, which a single large request to this process exceeds as one batch.
    async fn start(&mut self, whole: Piece) {
        let spans = whole.spans();
        let raw_bytes_max = self.link.burst_raw_bytes_max().min(REQUEST_RAW_BYTES_MAX);
        match whole.capped(self.link.spans_max.unwrap_or(u64::MAX), raw_bytes_max).await {
            Ok(pieces) => self.work.extend(pieces.into_iter().rev()),
            Err(why) => self.lose(LossReason::Damaged, spans, &why),
        }
    }

    async fn attempt(&mut self, piece: Piece) -> Option<()> {
        let spans = piece.spans();
        if spans == 0 {
            return Some(());
        }
        let taken_before = self.link.taken();
        let verdict = self.link.attempt(self.order, self.shutdown, &piece).await?;
        self.is_begun.store(true, Ordering::Relaxed);
        match verdict {
            Verdict::Delivered { rejected_spans } => {
                let rejected = rejected_spans.min(spans);
                self.sent += spans - rejected;
                self.book(LossReason::RejectedByDestination, rejected);
                self.backoff.reset();
            }
            Verdict::GivenUp { why } => self.lose(LossReason::RetryDisabled, spans, &why),
            Verdict::Damaged { why } => self.damaged(piece, why).await,
            Verdict::TooLarge { why } => {
                self.link.learn_size(piece.raw_bytes());
                self.divide(piece, why, false, taken_before).await;
            }
            Verdict::TooMuch { .. } => {
                self.link.learn_burst(piece.raw_bytes());
                match piece.halves().await {
                    Ok(Halves::Two(left, right)) => self.work.extend([right, left]),
                    Ok(Halves::Indivisible(piece)) => self.work.push(piece),
                    Err(why) => self.lose(LossReason::Damaged, spans, &why),
                }
            }
            Verdict::Refused { why } => self.divide(piece, why, false, taken_before).await,
            Verdict::Internal { why } => {
                self.internal_tries += 1;
                // Either the first tries, or nothing was taken meanwhile: the destination may be the one at fault.
                if self.link.retry.enabled
                    && (self.internal_tries < INTERNAL_TRIES || self.link.taken() == taken_before)
                {
                    let delay = self.backoff.next_delay(None);
                    debug!(destination = self.link.name, answer = why, retry_in = ?delay, "destination failed over a request");
                    self.pause(delay).await?;
                }
                if self.internal_tries < INTERNAL_TRIES && self.link.retry.enabled {
                    self.work.push(piece);
                } else {
                    self.divide(piece, why, true, taken_before).await;
                }
            }
        }
        Some(())
    }

    /// Halves what was refused, or sets it aside as a culprit if it cannot be cut.
    async fn divide(&mut self, piece: Piece, why: String, is_internal: bool, taken_before: u64) {
        let spans = piece.spans();
        match piece.halves().await {
            Ok(Halves::Two(left, right)) => {
                self.work.push(right);
                self.work.push(left);
            }
            Ok(Halves::Indivisible(piece)) => {
                let is_confirmed = !self.link.retry.enabled;
                self.culprits.push(Culprit { piece, why, is_internal, taken_before, is_confirmed });
            }
            Err(why) => self.lose(LossReason::Damaged, spans, &why),
        }
    }

    /// Batches are read one by one, so that only the broken one is lost.
    async fn damaged(&mut self, piece: Piece, why: String) {
        match piece {
            Piece::Batches(mut batches) if batches.len() > 1 => {
                let right = batches.split_off(batches.len() / 2);
                self.work.push(Piece::Batches(right));
                self.work.push(Piece::Batches(batches));
            }
            piece => self.lose(LossReason::Damaged, piece.spans(), &why),
        }
    }

    /// Looks for evidence against the culprits, tries them once more, and parks those that are refused again.
    async fn settle(&mut self) -> Option<()> {
        let is_internal_only = self.culprits.iter().all(|culprit| culprit.is_internal);
        let is_evident = |culprit: &Culprit, taken: u64| culprit.is_confirmed || taken > culprit.taken_before;
        let taken = self.link.taken();
        let is_waiting = self.culprits.iter().any(|culprit| !is_evident(culprit, taken));
        let mut takes_empty = false;
        if is_waiting && !is_internal_only {
            takes_empty = self.link.takes_empty_request(self.order, self.shutdown).await?;
        }
        let mut is_any_unproven = false;
        for mut culprit in std::mem::take(&mut self.culprits) {
            let is_proven = is_evident(&culprit, taken) || (takes_empty && !culprit.is_internal);
            if is_proven && !culprit.is_confirmed {
                culprit = match self.retry(culprit).await? {
                    Some(culprit) => culprit,
                    None => continue,
                };
                culprit.is_confirmed = true;
            }
            if culprit.is_confirmed {
                self.park(culprit).await;
            } else {
                is_any_unproven = true;
                self.culprits.push(culprit);
            }
        }
        if is_any_unproven {
            let pause = if is_internal_only { self.backoff.next_delay(None) } else { self.link.hold };
            let answer = self.culprits.first().map(|culprit| culprit.why.as_str()).unwrap_or_default();
            error!(
                destination = self.link.name,
                answer,
                retry_in = ?pause,
                "destination refuses a request, and nothing shows that it takes any: its spans are kept and tried again"
            );
            self.pause(pause).await?;
            // Behind the rest, which may hold the evidence.
            let culprits = std::mem::take(&mut self.culprits);
            self.work.splice(0..0, culprits.into_iter().rev().map(|culprit| culprit.piece));
        }
        Some(())
    }

    /// Tries a culprit once more. `Some(None)`: it was taken, or is accounted for otherwise.
    async fn retry(&mut self, culprit: Culprit) -> Option<Option<Culprit>> {
        let spans = culprit.piece.spans();
        let again = self.link.attempt(self.order, self.shutdown, &culprit.piece);
        Some(match again.await? {
            Verdict::Delivered { rejected_spans } => {
                let rejected = rejected_spans.min(spans);
                self.sent += spans - rejected;
                self.book(LossReason::RejectedByDestination, rejected);
                None
            }
            Verdict::Damaged { why } => {
                self.lose(LossReason::Damaged, spans, &why);
                None
            }
            Verdict::TooLarge { why }
            | Verdict::TooMuch { why }
            | Verdict::Refused { why }
            | Verdict::Internal { why }
            | Verdict::GivenUp { why } => Some(Culprit { why, ..culprit }),
        })
    }

    async fn park(&mut self, culprit: Culprit) {
        let spans = culprit.piece.spans();
        let seq = culprit.piece.seq().unwrap_or(self.order);
        warn!(
            destination = self.link.name,
            answer = culprit.why,
            spans,
            batch = seq.0,
            "destination will never take these spans; they are kept aside as dead letters"
        );
        self.book(LossReason::Poison, spans);
        match culprit.piece.frame().await {
            Ok(frame) => {
                let is_full = self.letters.len() >= LETTERS_MAX;
                match self.letters.last_mut() {
                    Some(last) if last.seq == seq && (is_full || last.answer == culprit.why) => {
                        last.spans += spans;
                        last.frames.push(frame);
                    }
                    _ => self.letters.push(Letter { seq, spans, answer: culprit.why, frames: vec![frame] }),
                }
            }
            Err(why) => error!(destination = self.link.name, error = why, "a dead letter could not be kept"),
        }
    }

    fn book(&mut self, reason: LossReason, spans: u64) {
        if spans > 0 {
            *self.lost.entry(reason).or_default() += spans;
        }
    }

    /// Books spans as lost and says so: they are not kept.
    fn lose(&mut self, reason: LossReason, spans: u64, why: &str) {
        error!(destination = self.link.name, reason = reason.as_str(), spans, cause = why, "spans are lost");
        self.book(reason, spans);
    }

    async fn pause(&self, pause: Duration) -> Option<()> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Some(()),
            () = self.shutdown.cancelled() => None,
        }
    }
}
