//! How spans of one segment stand to each other, for all its traces at once: for traces that have no spans elsewhere.

use std::cell::OnceCell;
use std::ops::Range;

use crate::traceql::ast::Relation;
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Parent, Traces};

/// The trees of a segment. Says what [`super::tree::Tree`] says of each trace, without building one.
pub struct Forest<'s> {
    parents: &'s [Parent],
    traces: &'s Traces,
    /// Rows that hang on a root.
    connected: OnceCell<Mask>,
}

/// What is known of a row while ways up are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    Walking,
    Unconnected,
    Connected,
    /// Connected, and below a row of the left side.
    Below,
}

impl<'s> Forest<'s> {
    #[must_use]
    pub fn new(parents: &'s [Parent], traces: &'s Traces) -> Self {
        Self { parents, traces, connected: OnceCell::new() }
    }

    /// The rows of `right` that stand in a relation to one of `left`. Only the traces of these numbers are looked at.
    #[must_use]
    pub fn related(&self, relation: Relation, left: &Mask, right: &Mask, traces: &[u32]) -> Mask {
        let mut found = Mask::none(right.rows());
        match relation {
            Relation::Child => {
                for row in self.rows(right, traces) {
                    if self.parent(row).is_some_and(|parent| left.get(parent)) && self.is_connected(row) {
                        found.set(row);
                    }
                }
            }
            Relation::Parent => {
                for row in self.rows(left, traces) {
                    if let Some(parent) = self.parent(row)
                        && right.get(parent)
                        && self.is_connected(row)
                    {
                        found.set(parent);
                    }
                }
            }
            Relation::Descendant => {
                let (mut known, mut way) = (vec![Known::No; self.parents.len()], Vec::new());
                for row in self.rows(right, traces) {
                    if self.walk(row, Some(left), &mut known, &mut way) == Known::Below {
                        found.set(row);
                    }
                }
            }
            Relation::Ancestor => {
                let mut above = Mask::none(right.rows());
                for row in self.rows(left, traces) {
                    if !self.is_connected(row) {
                        continue;
                    }
                    let mut at = row;
                    while let Some(parent) = self.parent(at)
                        && !above.get(parent)
                    {
                        above.set(parent);
                        if right.get(parent) {
                            found.set(parent);
                        }
                        at = parent;
                    }
                }
            }
            Relation::Sibling => {
                // By parent: how many children of it are on the left side. Roots are each other's siblings.
                let mut counts = vec![0_u32; self.parents.len()];
                for trace in traces {
                    let rows = self.traces.rows(*trace as usize);
                    let mut roots = 0;
                    for row in left.iter_in(rows.clone()).filter(|row| self.is_connected(*row)) {
                        match self.parent(row) {
                            Some(parent) => {
                                if let Some(count) = counts.get_mut(parent) {
                                    *count += 1;
                                }
                            }
                            None => roots += 1,
                        }
                    }
                    for row in right.iter_in(rows).filter(|row| self.is_connected(*row)) {
                        let all = match self.parent(row) {
                            Some(parent) => counts.get(parent).copied().unwrap_or(0),
                            None => roots,
                        };
                        if all > u32::from(left.get(row)) {
                            found.set(row);
                        }
                    }
                }
            }
        }
        found
    }

    /// Whether one of the rows `below` among `rows` may have one of `above` as its parent, or ancestor, in its whole trace: it
    /// has here, or the way up leaves what is here, or takes a step that spans elsewhere may turn aside.
    #[must_use]
    pub fn may_relate(
        &self,
        below: &Mask,
        above: &Mask,
        rows: Range<usize>,
        any_distance: bool,
        is_certain: impl Fn(usize, usize) -> bool,
    ) -> bool {
        let steps_max = if any_distance { rows.len() } else { 1 };
        below.iter_in(rows).any(|row| {
            let mut at = row;
            for _ in 0..steps_max {
                match self.parents.get(at) {
                    Some(Parent::Root) => return false,
                    Some(Parent::Row(parent)) => {
                        let parent = *parent as usize;
                        if above.get(parent) || !is_certain(at, parent) {
                            return true;
                        }
                        at = parent;
                    }
                    Some(Parent::Away) | None => return true,
                }
            }
            false
        })
    }

    fn rows<'a>(&'a self, mask: &'a Mask, traces: &'a [u32]) -> impl Iterator<Item = usize> + 'a {
        traces.iter().flat_map(|trace| mask.iter_in(self.traces.rows(*trace as usize)))
    }

    fn parent(&self, row: usize) -> Option<usize> {
        match self.parents.get(row) {
            Some(Parent::Row(parent)) => Some(*parent as usize),
            _ => None,
        }
    }

    fn is_connected(&self, row: usize) -> bool {
        let connected = self.connected.get_or_init(|| {
            let (mut known, mut way) = (vec![Known::No; self.parents.len()], Vec::new());
            let mut connected = Mask::none(self.parents.len());
            for row in 0..self.parents.len() {
                if self.walk(row, None, &mut known, &mut way) == Known::Connected {
                    connected.set(row);
                }
            }
            connected
        });
        connected.get(row)
    }

    /// Walks up from a row until something is known, and notes it for the whole way. `way` is room to do so.
    fn walk(&self, row: usize, left: Option<&Mask>, known: &mut [Known], way: &mut Vec<usize>) -> Known {
        let below = |row: usize, known: Known| {
            if known == Known::Connected && left.is_some_and(|left| left.get(row)) { Known::Below } else { known }
        };
        let mut at = row;
        // What holds for a row whose parent is the one where the way ends.
        let mut above = loop {
            match known.get_mut(at) {
                // Out of the segment, or round in a circle.
                None | Some(Known::Walking) => break Known::Unconnected,
                Some(state @ Known::No) => *state = Known::Walking,
                Some(state) => break below(at, *state),
            }
            way.push(at);
            match self.parents.get(at) {
                Some(Parent::Row(parent)) => at = *parent as usize,
                Some(Parent::Root) => break Known::Connected,
                Some(Parent::Away) | None => break Known::Unconnected,
            }
        };
        while let Some(at) = way.pop() {
            if let Some(state) = known.get_mut(at) {
                *state = above;
            }
            above = below(at, above);
        }
        known.get(row).copied().unwrap_or(Known::Unconnected)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::{Link, Tree};
    use super::*;
    use crate::otlp::TraceId;

    const RELATIONS: [Relation; 5] =
        [Relation::Child, Relation::Parent, Relation::Descendant, Relation::Ancestor, Relation::Sibling];

    fn links() -> impl Strategy<Value = Vec<Link>> {
        (1_usize..10).prop_flat_map(|spans| {
            let link = prop_oneof![
                1 => Just(Link::Root),
                1 => Just(Link::Away),
                4 => (0..spans as u32).prop_map(Link::Span),
            ];
            proptest::collection::vec(link, spans)
        })
    }

    proptest! {
        #[test]
        fn a_forest_says_of_each_trace_what_its_tree_says(
            trees in proptest::collection::vec(links(), 1..4),
            sides in proptest::collection::vec(any::<(bool, bool)>(), 40),
        ) {
            let mut traces = Traces { ids: Vec::new(), first_rows: vec![0] };
            let mut parents = Vec::new();
            for (number, links) in trees.iter().enumerate() {
                let first = parents.len() as u32;
                parents.extend(links.iter().map(|link| match link {
                    Link::Root => Parent::Root,
                    Link::Away => Parent::Away,
                    Link::Span(parent) => Parent::Row(first + parent),
                }));
                traces.ids.push(TraceId([number as u8 + 1; 16]));
                traces.first_rows.push(parents.len() as u32);
            }
            let sides = &sides[..parents.len()];
            let (left, right) = (Mask::of(sides, |side| side.0), Mask::of(sides, |side| side.1));
            let forest = Forest::new(&parents, &traces);
            let all: Vec<u32> = (0..traces.len() as u32).collect();
            for relation in RELATIONS {
                let mut expected = Vec::new();
                for (number, links) in trees.iter().enumerate() {
                    let rows = traces.rows(number);
                    let part = |pick: fn(&(bool, bool)) -> bool| Mask::of(&sides[rows.clone()], |side| pick(&side));
                    let related = Tree::new(links).related(relation, &part(|side| side.0), &part(|side| side.1));
                    expected.extend(related.iter().map(|span| rows.start + span));
                }
                let found: Vec<usize> = forest.related(relation, &left, &right, &all).iter().collect();
                prop_assert_eq!(found, expected, "{:?}", relation);
            }
        }
    }
}
