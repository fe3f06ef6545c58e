//! Budgets: the oldest extents go when the spool is too large or too old, or, once every destination has them, when they
//! are in sealed runs or the disk runs out of space. Spans that a destination had still to get are booked as lost to it in the same write.
//!
//! Short of space, what is not sealed yet waits for the sealer, who is told so ([`super::Spool::is_short_of_space`]). Only
//! if sealing fails it goes unsealed: intake is worth more than what nobody can seal.

use super::committer::{encode, unix_nanos};
use super::consumer::{Known, LossReason};
use super::database::{BATCH, DICT, META, synced};
use super::extent::Extent;
use super::state::{HEAD_KEY, HEAD_SPANS_KEY, State};
use super::{PipelineId, Seq, Shared};
use rocksdb::WriteBatch;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Extents dropped by one housekeeping run: bounds how long the committer is kept from committing.
const EXTENTS_PER_RUN_MAX: usize = 8;
/// Space for retries begins to be made while this share of the reserve is still free.
const FREE_SPACE_HEADROOM_PERCENT: u64 = 125;
/// A backlog that reaches back this far into the budget is worth a warning.
const WARN_PERCENT: u64 = 80;

pub(super) fn run(shared: &Shared) {
    for _ in 0..EXTENTS_PER_RUN_MAX {
        let Some(reason) = reason_to_drop_oldest(shared) else { break };
        if let Err(error) = drop_oldest(shared, reason) {
            tracing::error!(%error, "the oldest part of the spool could not be dropped");
            break;
        }
    }
    warn_before_loss(shared);
}

/// Why the oldest closed extent has to go, or `None` if it may stay. `Some(None)`: for space, without loss.
fn reason_to_drop_oldest(shared: &Shared) -> Option<Option<LossReason>> {
    let state = shared.state();
    let oldest = state.extents.front()?;
    let settings = &shared.settings;
    if state.frame_bytes() > settings.bytes_max {
        return Some(Some(LossReason::Budget));
    }
    if let Some(age_max) = settings.age_max
        && u128::from(unix_nanos().saturating_sub(oldest.newest_received)) > age_max.as_nanos()
    {
        return Some(Some(LossReason::Age));
    }
    let is_sealed = shared.is_sealed_to(oldest.end);
    if is_sealed && nobody_waits(shared, oldest) {
        return Some(None);
    }
    let may_go_unsealed = || !shared.is_sealing() || shared.sealing_fails.load(Ordering::Relaxed);
    (is_short_of_space(shared) && (is_sealed || may_go_unsealed()) && everybody_has(shared, &state, oldest))
        .then_some(None)
}

/// Whether space for retries is to be made.
pub(super) fn is_short_of_space(shared: &Shared) -> bool {
    let free = shared.database.free_bytes().unwrap_or(u64::MAX);
    free < shared.settings.free_bytes_min.saturating_mul(FREE_SPACE_HEADROOM_PERCENT) / 100
}

/// Whether a cursor has nothing left to get of an extent. One that moves over nothing of its own may stand before it.
fn is_past(consumer: &Known, extent: &Extent) -> bool {
    consumer.account.position >= extent.end
        || extent.spans_at_end(consumer.account.pipeline) <= consumer.account.accounted_in_order()
}

/// Whether every cursor is past the extent, also those of destinations that left the configuration: they may come back.
fn nobody_waits(shared: &Shared, extent: &Extent) -> bool {
    shared.consumers().values().all(|consumer| is_past(consumer, extent))
}

/// Bytes of frames that some cursor has still to get, to the extent.
pub(super) fn waiting_bytes(shared: &Shared) -> u64 {
    let state = shared.state();
    let consumers = shared.consumers();
    let waits = |extent: &&Extent| !consumers.values().all(|consumer| is_past(consumer, extent));
    let closed: u64 = state.extents.iter().filter(waits).map(|extent| extent.frame_bytes).sum();
    let is_behind = |consumer: &Known| consumer.account.accounted() < state.stored(consumer.account.pipeline);
    closed + if consumers.values().any(is_behind) { state.open.frame_bytes } else { 0 }
}

/// Whether every pipeline in the extent has, or had, a destination that is past it, and no configured one, nor one that
/// may be yet, is behind.
fn everybody_has(shared: &Shared, state: &State, extent: &Extent) -> bool {
    let consumers = shared.consumers();
    extent.spans_at_end.iter().all(|(pipeline, spans_at_end)| {
        let before = state.spans_at_head.get(pipeline).copied().unwrap_or(0);
        let of_pipeline = || consumers.values().filter(|consumer| consumer.account.pipeline.0 == *pipeline);
        *spans_at_end == before
            || (of_pipeline().any(|consumer| is_past(consumer, extent))
                && !of_pipeline()
                    .any(|consumer| shared.is_or_may_be_configured(consumer) && !is_past(consumer, extent)))
    })
}

fn drop_oldest(shared: &Shared, reason: Option<LossReason>) -> Result<(), rocksdb::Error> {
    let Some(extent) = shared.state().extents.front().cloned() else { return Ok(()) };
    let database = &shared.database;
    let meta = database.family(META);
    let batch = database.family(BATCH);
    let mut write = WriteBatch::default();
    let mut lost: BTreeMap<String, u64> = BTreeMap::new();

    // Held over the write, so that no cursor moves in between.
    let mut consumers = shared.consumers();
    let mut moved = BTreeMap::new();
    for (key, consumer) in consumers.iter() {
        // One that loses nothing stays where it is: requests that began there may be under way, and would be sent twice.
        if !is_past(consumer, &extent) {
            let mut account = consumer.account.clone();
            let spans_at_end = extent.spans_at_end(account.pipeline);
            let spans = account.expire(extent.end, spans_at_end, reason.unwrap_or(LossReason::Budget));
            write.put_cf(meta, key, encode(&account));
            // Nobody waits for what a destination that left the configuration will not get.
            if consumer.is_configured() {
                *lost.entry(account.destination.clone()).or_default() += spans;
            }
            moved.insert(key.clone(), account);
        }
    }
    let end = Seq(extent.end).key();
    write.put_cf(meta, HEAD_SPANS_KEY, encode(&extent.spans_at_end));
    write.put_cf(meta, HEAD_KEY, end);
    write.delete_cf(meta, Extent::meta_key(extent.first));
    // Synced: after a power cut files that are gone must not be part of an extent that is still listed.
    database.raw().write_opt(write, &synced())?;
    // Whole files go. Nothing is deleted by key: a tombstone would make compactions rewrite, and trip over, data at rest.
    // What straddles a file's edge goes with its file; nobody reads below the head. Both ends are inclusive.
    database.raw().delete_file_in_range_cf(batch, Seq(0).key(), Seq(extent.end - 1).key())?;
    let dict = database.family(DICT);
    database.raw().delete_file_in_range_cf(dict, Extent::page_key(0, 0), Extent::page_key(extent.first, u16::MAX))?;
    for (key, account) in moved {
        if let Some(consumer) = consumers.get_mut(&key) {
            consumer.account = account;
        }
    }
    drop(consumers);

    let mut state = shared.state_mut();
    state.extents.pop_front();
    state.spans_at_head = extent.spans_at_end.clone();
    drop(state);
    for (destination, spans) in lost {
        tracing::warn!(
            destination,
            spans,
            reason = reason.map_or("space", LossReason::as_str),
            "spans left the spool before the destination took them; raise extensions::spanreel::spool or mend the destination"
        );
    }
    Ok(())
}

fn warn_before_loss(shared: &Shared) {
    let state = shared.state();
    let head = state.head();
    let full_percent = state.frame_bytes().saturating_mul(100) / shared.settings.bytes_max.max(1);
    let has_all = |consumer: &Known| state.stored(consumer.account.pipeline) <= consumer.account.accounted();
    let behind = shared
        .consumers()
        .values()
        .find(|consumer| consumer.is_configured() && consumer.account.position <= head.0 && !has_all(consumer))
        .map(|consumer| consumer.account.destination.clone());
    drop(state);
    let warn = full_percent >= WARN_PERCENT && behind.is_some();
    if warn && !shared.warned_of_loss.swap(warn, Ordering::Relaxed) {
        tracing::warn!(
            full_percent,
            destination = behind.unwrap_or_default(),
            "the spool is nearly full of spans that a destination has not taken; the oldest will be lost to it next"
        );
    } else if !warn {
        shared.warned_of_loss.store(false, Ordering::Relaxed);
    }
}

/// Spans of `pipeline` that are no longer on disk.
pub(super) fn reclaimed(state: &State, pipeline: PipelineId) -> u64 {
    state.spans_at_head.get(&pipeline.0).copied().unwrap_or(0)
}
