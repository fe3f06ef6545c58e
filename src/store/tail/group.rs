//! Batches that make one segment, and the segment while it is in memory.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::{Shared, lock};
use crate::spool::{Header, Seq, TimeRange};
use crate::store::build::{Index, Place, Pushed};
use crate::traceql::column::ROWS_MAX;
use crate::traceql::segment::{SegmentError, SegmentId, Times};

/// What is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// By number; some may be damaged.
    pub batches: Range<u64>,
    /// Those among them that have spans: batches of other signals lie between them, and are not read.
    pub with_spans: Vec<Range<u64>>,
    /// Number of the first span in the first batch. Not 0 only for parts of a batch that is more than one segment.
    pub from: usize,
}

impl Cut {
    /// Whether batches may be added: none of them is in two groups.
    pub fn is_whole(&self) -> bool {
        self.from == 0
    }
}

/// Sums over the headers of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub raw_bytes: u64,
    pub spans: u64,
    pub time: TimeRange,
}

impl Default for Extent {
    fn default() -> Self {
        Self { raw_bytes: 0, spans: 0, time: TimeRange::EMPTY }
    }
}

impl Extent {
    pub fn add(&mut self, header: &Header) {
        self.raw_bytes += u64::from(header.raw_bytes);
        self.spans += u64::from(header.spans);
        self.time = self.time.join(header.time);
    }
}

/// Batches that make one segment.
#[derive(Debug)]
pub(super) struct Group {
    pub cut: Cut,
    pub extent: Extent,
    facts: OnceLock<Facts>,
    resident: Mutex<Option<Arc<Resident>>>,
    last_used: AtomicU64,
    /// It was built once and some of its batches cannot be read any more: later queries need another group for the rest.
    is_spoilt: AtomicBool,
}

/// What stays known of a group that was built once.
#[derive(Debug)]
pub(super) struct Facts {
    pub rows: usize,
    pub times: Times,
    /// Fingerprints of its traces, sorted, each once.
    pub prints: Box<[u32]>,
}

impl Facts {
    pub fn may_hold(&self, print: u32) -> bool {
        self.prints.binary_search(&print).is_ok()
    }
}

/// A group's columns, and where the bytes of its spans lie.
#[derive(Debug)]
pub(super) struct Resident {
    pub index: Index,
    /// [`Place::batch`] is an index in `batches`.
    pub places: Vec<Place>,
    pub batches: Vec<Seq>,
    bytes: usize,
}

impl Group {
    pub fn new(cut: Cut, extent: Extent) -> Self {
        Self {
            cut,
            extent,
            facts: OnceLock::new(),
            resident: Mutex::default(),
            last_used: AtomicU64::new(0),
            is_spoilt: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> SegmentId {
        SegmentId(self.cut.batches.start, (self.cut.from / ROWS_MAX) as u16)
    }

    /// The same batches once more, if some of them went since it was built.
    pub fn made_anew(&self) -> Option<Self> {
        self.is_spoilt.load(Ordering::Relaxed).then(|| Self::new(self.cut.clone(), self.extent))
    }

    pub fn facts(&self) -> Option<&Facts> {
        self.facts.get()
    }

    /// Exact once the group was built, wide enough before.
    pub fn times(&self) -> Times {
        let TimeRange { min_start, max_end } = self.extent.time;
        self.facts().map_or_else(
            || Times {
                min_start,
                max_start: max_end,
                max_end,
                min_duration: 0,
                max_duration: max_end.saturating_sub(min_start),
            },
            |facts| facts.times,
        )
    }

    /// The columns, built if they are not there, and whether they had to be.
    ///
    /// # Errors
    /// The disk could not be read, or batches went since the group was built before.
    pub fn resident(&self, shared: &Shared) -> Result<(Arc<Resident>, bool), SegmentError> {
        // Held while building: whoever else wants the same group waits instead of building it too.
        let mut slot = lock(&self.resident);
        self.last_used.store(shared.now(), Ordering::Relaxed);
        if let Some(resident) = &*slot {
            return Ok((Arc::clone(resident), false));
        }
        let resident = Arc::new(self.build(shared)?);
        let facts = self.facts.get_or_init(|| {
            let mut prints: Vec<u32> = resident.index.traces.ids.iter().map(|id| id.fingerprint()).collect();
            prints.sort_unstable();
            prints.dedup();
            Facts { rows: resident.index.rows(), times: resident.index.times, prints: prints.into() }
        });
        if facts.rows != resident.index.rows() {
            self.is_spoilt.store(true, Ordering::Relaxed);
            return Err(SegmentError::Gone);
        }
        *slot = Some(Arc::clone(&resident));
        Ok((resident, true))
    }

    fn build(&self, shared: &Shared) -> Result<Resident, SegmentError> {
        let mut builder = lock(&shared.builder);
        // An earlier build may have ended half way, by an error.
        builder.clear();
        let mut batches = Vec::new();
        for seq in self.cut.with_spans.iter().cloned().flatten().map(Seq) {
            let request = shared.inflated(seq).map_err(|error| SegmentError::Read(error.to_string()))?;
            let Some(request) = request else { continue };
            batches.push(seq);
            // The cut was chosen so that the group is one segment: what is left of a batch is in the next group.
            if let Pushed::Full { next } = builder.push(request, self.cut.from)
                && next == self.cut.from
            {
                tracing::error!(
                    batch = seq.0,
                    "a stored batch has more spans than its header says; not all are searched"
                );
                batches.pop();
            }
        }
        // Kept, its memory would be more than all columns of the tail may take.
        let built = builder.finish_lean();
        drop(builder);
        let bytes = built.index.bytes() + built.spans.places.len() * size_of::<Place>();
        Ok(Resident { index: built.index, places: built.spans.places, batches, bytes })
    }

    pub fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// 0 while it is not in memory, or is just being built.
    pub fn resident_bytes(&self) -> usize {
        let slot = self.resident.try_lock();
        slot.ok().and_then(|slot| slot.as_ref().map(|resident| resident.bytes)).unwrap_or(0)
    }

    pub fn evict(&self) {
        if let Ok(mut slot) = self.resident.try_lock() {
            *slot = None;
        }
    }
}
