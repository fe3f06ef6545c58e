//! What the web UI's page of health shows beyond the status: the accounts as equations, what waits for how long and what
//! was refused by destination, certificates, and the latest warnings.

use super::host::View;
use crate::receive::settings::ServerTlsSettings;
use crate::spool::{ConsumerSnapshot, Depth, Snapshot, Spool, unix_nanos};
use crate::telemetry;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Dead letters that are looked at to count them.
const DEAD_LETTERS_MAX: usize = 1000;

/// Dead letters by destination and pipeline, as they were last counted: to count them is to read them.
#[derive(Default)]
pub(super) struct DeadLetterCounts(Mutex<Counted>);

#[derive(Default, Clone)]
struct Counted {
    /// Bytes kept aside, by destination: as long as these are the same, so is the rest.
    parked: Vec<u64>,
    letters: Vec<Counts>,
    more: bool,
    /// Why they could not be counted.
    problem: Option<String>,
}

#[derive(Clone)]
struct Counts {
    destination: String,
    pipeline: String,
    count: u64,
    items: u64,
    bytes: u64,
}

impl DeadLetterCounts {
    /// Blocking, if anything has changed.
    fn of(&self, spool: &Spool, consumers: &[ConsumerSnapshot]) -> Counted {
        let parked: Vec<u64> = consumers.iter().map(|consumer| consumer.account.parked_bytes).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.parked == parked {
            return known.clone();
        }
        let letters = match spool.dead_letters(DEAD_LETTERS_MAX + 1) {
            Ok(letters) => letters,
            // Not remembered: the next time may go better.
            Err(error) => return Counted { problem: Some(error.to_string()), ..Counted::default() },
        };
        let mut counted = Counted { parked, more: letters.len() > DEAD_LETTERS_MAX, ..Counted::default() };
        for letter in letters.into_iter().take(DEAD_LETTERS_MAX) {
            let same = |of: &&mut Counts| of.destination == letter.destination && of.pipeline == letter.pipeline;
            let (spans, bytes) = (letter.spans, letter.frame_bytes);
            match counted.letters.iter_mut().find(same) {
                Some(of) => (of.count, of.items, of.bytes) = (of.count + 1, of.items + spans, of.bytes + bytes),
                None => counted.letters.push(Counts {
                    destination: letter.destination,
                    pipeline: letter.pipeline,
                    count: 1,
                    items: spans,
                    bytes,
                }),
            }
        }
        *known = counted.clone();
        counted
    }
}

/// Adds to a status, made of the same snapshot, what it does not say. Blocking.
pub(super) fn complete(
    status: &mut Value,
    spool: &Spool,
    snapshot: &Snapshot,
    view: &View,
    (webhook_expires, dead_letters): (Option<i64>, &DeadLetterCounts),
) {
    let counted = dead_letters.of(spool, &snapshot.consumers);
    let is_counted = counted.problem.is_none();
    if let Some(destinations) = status["destinations"].as_array_mut() {
        for (destination, consumer) in destinations.iter_mut().zip(&snapshot.consumers) {
            let of_this =
                |of: &&Counts| of.destination == consumer.account.destination && of.pipeline == consumer.pipeline;
            let oldest = (consumer.queued > 0).then(|| spool.oldest_waiting(&consumer.account)).flatten();
            let age = oldest.map(|oldest| Duration::from_nanos(unix_nanos().saturating_sub(oldest)).as_secs());
            destination["oldest_waiting_age_seconds"] = json!(age);
            let depth = if consumer.queued > 0 { spool.depth(&consumer.account) } else { Depth::default() };
            destination["waiting_batches"] = json!(depth.batches);
            destination["waiting_bytes"] = json!(depth.bytes);
            let letters = counted.letters.iter().find(of_this).map_or(0, |of| of.count);
            destination["dead_letters"] = json!(is_counted.then_some(letters));
        }
    }
    let sum = |part: fn(&Counts) -> u64| is_counted.then(|| counted.letters.iter().map(part).sum::<u64>());
    status["dead_letters"] = json!({
        "count": sum(|of| of.count),
        "items": sum(|of| of.items),
        "bytes": sum(|of| of.bytes),
        "more": counted.more,
        "problem": counted.problem,
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    status["at"] = json!(now);
    status["ledger"] = ledger(snapshot);
    status["certificates"] = certificates(view, webhook_expires, now);
    status["recent"] = telemetry::recent().to_json();
}

/// Every equation with its terms; a difference is a fault of this program.
fn ledger(snapshot: &Snapshot) -> Value {
    let minus = |sum: u64, terms: u64| i128::from(sum) - i128::from(terms);
    let destinations = |of: u16, stored: u64| -> Vec<Value> {
        let of_this = snapshot.consumers.iter().filter(|consumer| consumer.account.pipeline.0 == of);
        of_this
            .map(|consumer| {
                let (sent, queued) = (consumer.account.sent, consumer.queued);
                let expired: u64 = consumer.account.lost.values().sum();
                json!({
                    "destination": consumer.account.destination,
                    "equation": "stored = sent + queued + expired",
                    "stored": stored,
                    "sent": sent,
                    "queued": queued,
                    "expired": expired,
                    "difference": minus(stored, sent + queued + expired),
                })
            })
            .collect()
    };
    let pipelines = snapshot.ledger.known().map(|(id, account)| {
        let dropped: u64 = account.dropped.values().sum();
        json!({
            "pipeline": account.name,
            "signal": account.signal,
            "equation": "received = stored + sampled_out + dropped",
            "received": account.received,
            "stored": account.stored,
            "sampled_out": account.sampled_out,
            "dropped": dropped,
            "difference": minus(account.received, account.stored + account.sampled_out + dropped),
            "destinations": destinations(id.0, account.stored),
        })
    });
    pipelines.collect()
}

/// Of the webhook and of every listener with TLS, as its file is now.
fn certificates(view: &View, webhook_expires: Option<i64>, now: i64) -> Value {
    let described = |name: String, serves: String, expires: Result<i64, String>| {
        let (expires, problem) = match expires {
            Ok(expires) => (Some(expires), None),
            Err(problem) => (None, Some(problem)),
        };
        let left = expires.map(|expires| expires - now);
        json!({ "name": name, "serves": serves, "expires": expires, "expires_in_seconds": left, "problem": problem })
    };
    let webhook = webhook_expires
        .map(|expires| described("webhook".to_owned(), "questions of the API server".to_owned(), Ok(expires)));
    let listeners = view.listeners.iter().filter_map(|(_, listening)| {
        let expires = listening.tls.as_deref().map(ServerTlsSettings::expires)?;
        Some(described(listening.receiver.clone(), listening.address.to_string(), expires))
    });
    webhook.into_iter().chain(listeners).collect()
}
