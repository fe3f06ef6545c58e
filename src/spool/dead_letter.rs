//! What destinations refused for good: kept aside in `meta` to be looked at, dropped, or tried once more.
//!
//! ```text
//! parked/<pipeline>><destination>/ seq u64, number u64 (big endian)  ─▶ one line of JSON, line feed, zstd frames
//! ```
//!
//! Their spans are booked as lost by poison. One that a later try delivers moves to `sent`, in the write that removes it,
//! so that accounts stay exact.

use super::committer::encode;
use super::consumer::LossReason;
use super::database::META;
use super::ledger::ConsumerAccount;
use super::{ReadError, Seq, Spool};
use crate::otlp::Signal;
use bytes::Bytes;
use rocksdb::{Direction, IteratorMode, WriteBatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const PREFIX: &[u8] = b"parked/";
/// A slash, a sequence number and a count behind the name of the cursor.
const SUFFIX_LEN: usize = 1 + 8 + 8;

/// The first line of a stored dead letter.
#[derive(Serialize, Deserialize)]
pub(super) struct Note {
    pub spans: u64,
    pub answer: String,
}

/// What is known of a dead letter without its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it among all: `destination@pipeline:batch-number`.
    pub id: String,
    pub destination: String,
    pub pipeline: String,
    pub signal: Signal,
    /// The batch that it was part of.
    pub seq: Seq,
    /// Spans, data points or log records.
    pub spans: u64,
    /// The destination's own words.
    pub answer: String,
    pub frame_bytes: u64,
}

/// Why a dead letter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nobody wants it any more; its spans stay booked as lost.
    Dropped,
    /// The destination took it after all, but for some spans.
    Delivered { rejected: u64 },
}

pub(super) fn key(cursor: &str, seq: Seq, number: u64) -> Vec<u8> {
    let name = cursor.trim_start_matches("cursor/");
    [PREFIX, name.as_bytes(), b"/", seq.key().as_slice(), &number.to_be_bytes()].concat()
}

pub(super) fn value(spans: u64, answer: &str, frame: &[u8]) -> Vec<u8> {
    let mut value = encode(&Note { spans, answer: answer.to_owned() });
    value.push(b'\n');
    value.extend_from_slice(frame);
    value
}

/// A key taken apart: pipeline, destination, batch, number.
fn parse_key(key: &[u8]) -> Option<(&str, &str, Seq, u64)> {
    let rest = key.strip_prefix(PREFIX)?;
    let (name, suffix) = rest.split_at_checked(rest.len().checked_sub(SUFFIX_LEN)?)?;
    let (pipeline, destination) = std::str::from_utf8(name).ok()?.split_once('>')?;
    let (seq, number) = suffix.strip_prefix(b"/")?.split_first_chunk::<8>()?;
    Some((pipeline, destination, Seq(u64::from_be_bytes(*seq)), u64::from_be_bytes(number.try_into().ok()?)))
}

fn parse_value(value: &[u8]) -> Option<(Note, &[u8])> {
    let at = value.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = value.split_at(at);
    Some((serde_json::from_slice(line).ok()?, rest.get(1..)?))
}

impl Spool {
    /// The oldest dead letters, by pipeline and destination, at most `count_max`. Blocking.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn dead_letters(&self, count_max: usize) -> Result<Vec<DeadLetter>, ReadError> {
        let mut letters = Vec::new();
        self.each_dead_letter(&self.signals(), |_, letter, _| {
            letters.push(letter);
            letters.len() < count_max
        })?;
        Ok(letters)
    }

    /// One dead letter, with its zstd frames. Blocking.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn dead_letter(&self, id: &str) -> Result<Option<(DeadLetter, Bytes)>, ReadError> {
        let mut found = None;
        self.each_dead_letter(&self.signals(), |_, letter, frame| {
            if letter.id == id {
                found = Some((letter, Bytes::copy_from_slice(frame)));
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Removes a dead letter and books what became of its spans. `false`: it is not there (any more). Blocking.
    ///
    /// # Errors
    /// The disk could not be read or written.
    pub fn settle_dead_letter(&self, id: &str, settled: Settled) -> Result<bool, ReadError> {
        let signals = self.signals();
        // Held over the look-up as well: of two who settle the same one, the second finds nothing. What needs the state was
        // asked before: everybody takes that lock first.
        let mut consumers = self.shared.consumers();
        let mut found = None;
        self.each_dead_letter(&signals, |key, letter, _| {
            if letter.id == id {
                found = Some((key.to_vec(), letter));
            }
            found.is_none()
        })?;
        let Some((key, letter)) = found else { return Ok(false) };
        let meta = self.shared.database.family(META);
        let mut write = WriteBatch::default();
        write.delete_cf(meta, key);
        let cursor = format!("cursor/{}>{}", letter.pipeline, letter.destination);
        let mut moved: Option<ConsumerAccount> = None;
        if let Some(known) = consumers.get(&cursor) {
            let mut account = known.account.clone();
            account.parked_bytes = account.parked_bytes.saturating_sub(letter.frame_bytes);
            if let Settled::Delivered { rejected } = settled {
                account.recover(letter.spans, rejected);
            }
            write.put_cf(meta, &cursor, encode(&account));
            moved = Some(account);
        }
        self.shared.database.raw().write(write)?;
        if let (Some(account), Some(known)) = (moved, consumers.get_mut(&cursor)) {
            known.account = account;
        }
        Ok(true)
    }

    /// Calls `each` with key, letter and frame until it says `false`. What cannot be read is passed over.
    fn each_dead_letter(
        &self,
        signals: &BTreeMap<String, Signal>,
        mut each: impl FnMut(&[u8], DeadLetter, &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        let database = &self.shared.database;
        let start = IteratorMode::From(PREFIX, Direction::Forward);
        for item in database.raw().iterator_cf(database.family(META), start) {
            let (key, value) = item?;
            if !key.starts_with(PREFIX) {
                break;
            }
            let (Some((pipeline, destination, seq, number)), Some((note, frame))) =
                (parse_key(&key), parse_value(&value))
            else {
                continue;
            };
            let letter = DeadLetter {
                id: format!("{destination}@{pipeline}:{}-{number}", seq.0),
                destination: destination.to_owned(),
                pipeline: pipeline.to_owned(),
                signal: signals.get(pipeline).copied().unwrap_or_default(),
                seq,
                spans: note.spans,
                answer: note.answer,
                frame_bytes: frame.len() as u64,
            };
            if !each(&key, letter, frame) {
                break;
            }
        }
        Ok(())
    }

    /// What each pipeline carries.
    fn signals(&self) -> BTreeMap<String, Signal> {
        let state = self.shared.state();
        state.ledger.known().map(|(_, account)| (account.name.clone(), account.signal)).collect()
    }
}

impl ConsumerAccount {
    /// Spans that were booked as poison were taken after all, but for `rejected`.
    fn recover(&mut self, spans: u64, rejected: u64) {
        let poison = self.lost.entry(LossReason::Poison).or_default();
        let spans = spans.min(*poison);
        *poison -= spans;
        let rejected = rejected.min(spans);
        self.sent += spans - rejected;
        self.lose(LossReason::RejectedByDestination, rejected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_and_values_come_back(seq: u64, number: u64, spans: u64, answer: String, frame: Vec<u8>) {
            let key = key("cursor/a/b/traces>otlp/x", Seq(seq), number);
            prop_assert_eq!(parse_key(&key), Some(("a/b/traces", "otlp/x", Seq(seq), number)));
            let value = value(spans, &answer, &frame);
            let (note, rest) = parse_value(&value).unwrap();
            prop_assert_eq!((note.spans, note.answer, rest), (spans, answer, frame.as_slice()));
        }

        #[test]
        fn any_bytes_are_no_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), parse_value(&bytes));
        }
    }
}
