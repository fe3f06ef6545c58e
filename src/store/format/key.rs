//! Keys of the `trace` and `column` families. Runs follow one another, so their key ranges, and with them their files,
//! never overlap: nothing is ever compacted.
//!
//! ```text
//! run      hour u32, first batch u64                  hour: when the run was sealed, Unix hours, never less than before
//! segment  run, segment u16
//! trace    segment, trace id 16 bytes
//! column   segment, kind u8, slice or page u16
//!          segment, kind u8, scope u8, name            of a field
//! ```
//! Integers are big endian.

use crate::traceql::ast::{Field, Intrinsic, Scope};

/// Names a run and tells where its keys begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey {
    pub hour: u32,
    /// The first batch that was sealed into it.
    pub first: u64,
}

/// Segments that are made anew of a run's own are numbered from here: so both can be there, side by side, until the run is
/// registered with the new ones. Far beyond the segments that a run has.
pub const MADE_ANEW: u16 = 1 << 14;

pub const RUN_LEN: usize = 12;
pub const SEGMENT_LEN: usize = RUN_LEN + 2;
pub const TRACE_LEN: usize = SEGMENT_LEN + 16;

impl RunKey {
    pub fn bytes(self) -> [u8; RUN_LEN] {
        let mut key = [0; RUN_LEN];
        key[..4].copy_from_slice(&self.hour.to_be_bytes());
        key[4..].copy_from_slice(&self.first.to_be_bytes());
        key
    }

    /// Not less than any key of the run, and less than any of a later one.
    pub fn last(self) -> Vec<u8> {
        // Longer than any trace's key; columns begin with a kind, which is never 255.
        [self.bytes().as_slice(), &[0xff; TRACE_LEN]].concat()
    }

    /// The first and the last key of those segments that are numbered from `first`, which is 0 or [`MADE_ANEW`]: of their files
    /// and of no others.
    pub fn from_segment(self, first: u16) -> (Vec<u8>, Vec<u8>) {
        let last = self.segment(first + (MADE_ANEW - 1));
        (self.segment(first).0.to_vec(), [last.0.as_slice(), &[0xff; TRACE_LEN]].concat())
    }

    pub fn segment(self, number: u16) -> SegmentKey {
        let mut key = [0; SEGMENT_LEN];
        key[..RUN_LEN].copy_from_slice(&self.bytes());
        key[RUN_LEN..].copy_from_slice(&number.to_be_bytes());
        SegmentKey(key)
    }
}

/// The beginning of every key of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentKey(pub [u8; SEGMENT_LEN]);

impl SegmentKey {
    pub fn trace(&self, id: [u8; 16]) -> [u8; TRACE_LEN] {
        let mut key = [0; TRACE_LEN];
        key[..SEGMENT_LEN].copy_from_slice(&self.0);
        key[SEGMENT_LEN..].copy_from_slice(&id);
        key
    }

    /// A chunk of which there is one, or one a slice or page.
    pub fn chunk(&self, kind: Kind, number: u16) -> Vec<u8> {
        [self.0.as_slice(), &[kind as u8], &number.to_be_bytes()].concat()
    }

    /// `None` for fields that have no column.
    pub fn field(&self, kind: Kind, field: &Field) -> Option<Vec<u8>> {
        let (scope, name) = match field {
            Field::Attribute(attribute) => (scope_code(attribute.scope?), attribute.name.as_bytes()),
            Field::Intrinsic(intrinsic) => (INTRINSIC, std::slice::from_ref(intrinsic_code(*intrinsic)?)),
        };
        Some([self.0.as_slice(), &[kind as u8, scope], name].concat())
    }
}

/// What a chunk holds. Part of the format on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Of one scope, by [`scope_code`].
    Names = 0,
    Traces = 1,
    Ids = 2,
    Starts = 3,
    Durations = 4,
    Parents = 5,
    /// The resource of each row, and the scope of each row.
    ResourceOfRow = 6,
    ScopeOfRow = 7,
    /// Pages of envelopes, see `envelopes`.
    Resources = 8,
    Scopes = 9,
    Words = 10,
    /// Of a field.
    Dictionary = 11,
    /// Of a field: codes of rows, resources or scopes.
    Codes = 12,
    /// Of a field that has no dictionary.
    Sketches = 13,
    /// Of each trace the spans that repeated another one's id; not there if none did.
    Repeats = 14,
}

/// Stands where attributes have their scope.
const INTRINSIC: u8 = 255;

pub fn scope_code(scope: Scope) -> u8 {
    match scope {
        Scope::Span => 0,
        Scope::Resource => 1,
        Scope::Event => 2,
        Scope::Link => 3,
        Scope::Instrumentation => 4,
    }
}

/// Of those that have columns.
fn intrinsic_code(intrinsic: Intrinsic) -> Option<&'static u8> {
    Some(match intrinsic {
        Intrinsic::Name => &0,
        Intrinsic::Status => &1,
        Intrinsic::StatusMessage => &2,
        Intrinsic::Kind => &3,
        Intrinsic::EventName => &4,
        Intrinsic::EventTimeSinceStart => &5,
        Intrinsic::LinkTraceId => &6,
        Intrinsic::LinkSpanId => &7,
        Intrinsic::InstrumentationName => &8,
        Intrinsic::InstrumentationVersion => &9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_are_made_anew_lie_behind_all_that_they_are_made_of() {
        let run = RunKey { hour: 5, first: 10 };
        let (first, last) = run.from_segment(0);
        let (first_anew, last_anew) = run.from_segment(MADE_ANEW);
        assert!(run.bytes().as_slice() <= first.as_slice() && last < first_anew && last_anew <= run.last());
        let name = Field::Intrinsic(Intrinsic::Name);
        for (number, from, to) in [(0, &first, &last), (7, &first, &last), (MADE_ANEW, &first_anew, &last_anew)] {
            let segment = run.segment(number);
            for key in [segment.trace([0xff; 16]).to_vec(), segment.field(Kind::Repeats, &name).unwrap()] {
                assert!(*from <= key && key <= *to, "{number}");
            }
        }
    }

    #[test]
    fn keys_of_a_run_lie_between_its_ends_and_those_of_others_outside() {
        let runs = [(4, 9), (5, 10), (5, 11), (6, 300)].map(|(hour, first)| RunKey { hour, first });
        for run in runs {
            let segment = run.segment(u16::MAX);
            let name = Field::Intrinsic(Intrinsic::Name);
            let keys = [
                run.segment(0).trace([0; 16]).to_vec(),
                segment.trace([0xff; 16]).to_vec(),
                segment.chunk(Kind::Sketches, u16::MAX),
                segment.field(Kind::Codes, &name).unwrap(),
            ];
            for key in keys {
                assert!(run.bytes().as_slice() <= key.as_slice() && key <= run.last());
                for other in runs.iter().filter(|other| **other != run) {
                    assert!(key.as_slice() < other.bytes().as_slice() || key > other.last());
                }
            }
        }
    }
}
