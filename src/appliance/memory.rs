//! How one budget of memory (`extensions::spanreel::memory::max_mib`) is divided among the rooms.
//!
//! ```text
//! resting   block cache, write buffers, filters of runs, columns of the tail, pinned traces: held as long as they are of use
//! passing   requests on their way to disk, a run that is being sealed, queries, answers, bodies to destinations
//! ```
//!
//! What rests is less than half of the budget; where a `prometheus` exporter is configured its series are an eighth more. Each passing share is a bound of its own, and they are more than the other half
//! together: intake at full speed, sealing, three scans and slow readers do not all come at once, and if they do, each
//! waits at its own bound. The program itself, its stacks and tables come on top, about 30 MiB, of which 4 MiB are heap.

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
    /// OTLP of one run; sealing holds about as much again for its columns.
    pub sealing_raw_bytes: u64,
    pub forward: forward::Memory,
    pub query: QueryLimits,
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
            runs: runs::Memory { filter_bytes: parts(6), pinned_bytes: parts(2) },
            tail: TailSettings {
                resident_bytes_max: parts(6),
                // Columns are about a fifth of it.
                whole_raw_bytes_max: parts(30) as u64,
            },
            intake_bytes: at_least(8, parts(16)),
            sealing_raw_bytes: at_least(8, parts(20)).min(SEALING_RAW_BYTES_MAX) as u64,
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
                scratch_bytes_max: parts(32),
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

    fn resting(memory: &Memory) -> usize {
        memory.spool.block_cache_bytes
            + 2 * memory.spool.batch_memtable_bytes
            + memory.runs.filter_bytes
            + memory.runs.pinned_bytes
            + memory.tail.resident_bytes_max
    }

    #[test]
    fn neither_what_rests_nor_any_passing_share_is_more_than_half() {
        for max_mib in [32, 64, 256, 1 << 20] {
            let memory = Memory::of(MemorySettings { max_mib });
            let max = max_mib as usize * MIB;
            assert!(resting(&memory) <= max / 2, "{memory:?}");
            assert!(memory.forward.shown_bytes <= max / 8, "{memory:?}");
            let query = memory.query;
            for share in [
                memory.intake_bytes,
                memory.sealing_raw_bytes as usize,
                memory.forward.answering_bytes + memory.forward.silent_bytes,
                query.scratch_bytes_max,
                query.answers_bytes_max,
            ] {
                assert!(share <= max / 2, "{share} of {max}: {memory:?}");
            }
        }
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
