//! Which traces the tail has, by the fingerprints of their ids.

use std::sync::Arc;

use super::group::Group;

/// Fingerprints beyond this are not put together: a long backlog must not cost memory for being there.
const PRINTS_MAX: usize = 512 << 10;

/// Fingerprints of all traces of all groups, sorted.
#[derive(Debug, Default)]
pub(super) struct Prints {
    all: Vec<u32>,
    /// Those that several groups have.
    repeated: Vec<u32>,
}

impl Prints {
    /// `None` while a group's traces are not known, or if they are too many.
    pub fn of(groups: &[Arc<Group>]) -> Option<Self> {
        let facts: Vec<_> = groups.iter().map(|group| group.facts()).collect::<Option<_>>()?;
        if facts.iter().map(|facts| facts.prints.len()).sum::<usize>() > PRINTS_MAX {
            return None;
        }
        let mut all: Vec<u32> = facts.iter().flat_map(|facts| facts.prints.iter().copied()).collect();
        all.sort_unstable();
        let mut repeated: Vec<u32> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        all.dedup();
        Some(Self { all, repeated })
    }

    pub fn may_hold(&self, print: u32) -> bool {
        self.all.binary_search(&print).is_ok()
    }

    pub fn may_be_split(&self, print: u32) -> bool {
        self.repeated.binary_search(&print).is_ok()
    }
}
