//! How one budget of memory (`extensions::spanreel::memory::max_mib`) is divided among the rooms.
//!
//! ```text
//! resting   27   block cache, write buffers, filters of runs, columns of the tail, pinned traces
//! passing   29   one pool: queries, their answers until they are read, runs in the making ([`crate::traceql::control::Pool`])
//! intake     8   requests on their way to disk
//!           64
//! ```
//!
//! In the pool nobody has a share: a run is made of as much OTLP as queries leave room for, and a query that needs much
//! waits until the run is made. Intake has its own, since a slow reader or a scan must not stop it.
//!
//! Not in it: bodies on their way to destinations (an eighth and a sixteenth, where there are any), series of `prometheus` exporters
//! (an eighth, where there are such), and the program itself with its stacks and tables, about 35 MiB, of which 6 MiB are heap.

use super::spanreel::settings::MemorySettings;
use crate::query::QueryLimits;
use crate::store::TailSettings;
use crate::store::runs;
use crate::{forward, spool};

const MIB: usize = 1024 * 1024;
/// Shares are counted in these parts of the whole, which are 1 MiB each by default.
const PARTS: usize = 64;

/// What each room may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub spool: spool::Memory,
    pub runs: runs::Memory,
    pub tail: TailSettings,
    /// Requests between socket and disk, all listeners together. Group commit needs a few megabytes to be efficient; more
    /// only makes memory peaks.
    pub intake_bytes: usize,
    pub sealing: Sealing,
    pub forward: forward::Memory,
    pub query: QueryLimits,
}

/// OTLP of one run, bytes; what holds it, and as much again for its columns, is borrowed from the pool of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealing {
    /// Where queries hold next to nothing.
    pub raw_bytes: u64,
    /// While queries hold the rest.
    pub raw_bytes_min: u64,
}

impl Memory {
    pub fn of(settings: MemorySettings) -> Self {
        let max = usize::try_from(settings.max_mib).unwrap_or(usize::MAX).saturating_mul(MIB);
        let parts = |parts: usize| max / PARTS * parts;
        let at_least = |mib: usize, share: usize| share.max(mib * MIB);
        Self {
            spool: spool::Memory {
                block_cache_bytes: parts(8),
                // Two of them. More would only be flushed later: what waits for the sealer is minutes old.
                batch_memtable_bytes: parts(4).min(BATCH_MEMTABLE_BYTES_MAX),
                group_raw_bytes: parts(4).min(GROUP_RAW_BYTES_MAX),
            },
            runs: runs::Memory { filter_bytes: parts(5), pinned_bytes: parts(2) },
            tail: TailSettings {
                resident_bytes_max: parts(4),
                // Columns are about a fifth of it.
                whole_raw_bytes_max: parts(30) as u64,
            },
            intake_bytes: at_least(8, parts(8)),
            sealing: Sealing {
                raw_bytes: at_least(4, parts(10)).min(SEALING_RAW_BYTES_MAX) as u64,
                raw_bytes_min: at_least(4, parts(6)).min(SEALING_RAW_BYTES_MAX) as u64,
            },
            forward: forward::Memory {
                ahead_raw_bytes: parts(16),
                // One request of the largest size, at the least.
                answering_bytes: at_least(4, parts(8)),
                silent_bytes: at_least(4, parts(4)),
                shown_bytes: at_least(4, parts(8)),
            },
            query: QueryLimits {
                // Tempo's own default is 5 MB.
                trace_bytes_max: parts(8).max(TRACE_BYTES_MIN),
                // One query may need all of it: a comparison counts every value of every attribute.
                scratch_bytes_max: parts(29),
                // Of the same pool, so that clients that do not read leave more than half of it.
                answers_bytes_max: parts(12),
                ..QueryLimits::default()
            },
        }
    }
}

/// A longer memtable is a longer log, which a restart replays.
const BATCH_MEMTABLE_BYTES_MAX: usize = 32 * MIB;
/// A longer group makes its first member wait.
const GROUP_RAW_BYTES_MAX: usize = 8 * MIB;
/// A segment is full of rows before.
const SEALING_RAW_BYTES_MAX: usize = 32 * MIB;
const TRACE_BYTES_MIN: usize = 5_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seal::MAKING_FACTOR;

    fn resting(memory: &Memory) -> usize {
        memory.spool.block_cache_bytes
            + 2 * memory.spool.batch_memtable_bytes
            + memory.runs.filter_bytes
            + memory.runs.pinned_bytes
            + memory.tail.resident_bytes_max
    }

    #[test]
    fn all_shares_together_are_the_budget() {
        for max_mib in [64, 128, 256, 1 << 20] {
            let memory = Memory::of(MemorySettings { max_mib });
            let max = max_mib as usize * MIB;
            let passing = memory.query.scratch_bytes_max;
            assert!(resting(&memory) + passing + memory.intake_bytes <= max, "{memory:?}");
            assert!(memory.query.answers_bytes_max < passing / 2);
            let least = (memory.sealing.raw_bytes_min * MAKING_FACTOR) as usize;
            assert!(least <= passing / 2, "a run can be made beside queries: {memory:?}");
            assert!(memory.forward.answering_bytes + memory.forward.silent_bytes <= max * 3 / 16, "{memory:?}");
            assert!(memory.forward.shown_bytes <= max / 8, "{memory:?}");
        }
    }

    #[test]
    fn with_the_least_memory_requests_and_runs_still_fit() {
        let memory = Memory::of(MemorySettings { max_mib: 32 });
        assert!(resting(&memory) <= 16 * MIB && memory.intake_bytes == 8 * MIB, "{memory:?}");
        assert!(
            (memory.sealing.raw_bytes_min * MAKING_FACTOR) as usize <= memory.query.scratch_bytes_max,
            "{memory:?}"
        );
    }

    #[test]
    fn the_rooms_own_defaults_are_those_of_the_setting() {
        let memory = Memory::of(MemorySettings::default());
        assert_eq!(memory.spool, spool::Memory::default());
        assert_eq!(memory.runs, runs::Memory::default());
        assert_eq!(memory.tail, TailSettings::default());
        assert_eq!(memory.forward, forward::Memory::default());
    }
}
