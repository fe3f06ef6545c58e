//! How the spans of one trace stand to each other.

use crate::traceql::ast::{Intrinsic, Relation};
use crate::traceql::mask::Mask;

/// No span.
pub const NONE: u32 = u32::MAX;

/// Parents and nested sets of the spans of a trace, which are numbered by start time. Spans that do not hang on a root
/// are in no relation to any other, and neither is anything in a trace without root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// By span: its parent, or [`NONE`].
    parents: Vec<u32>,
    /// By span: numbers from 1, given on the way down and on the way up; 0 for spans that hang on no root.
    sets: Vec<(u32, u32)>,
    children: Vec<u32>,
    /// Spans that hang on a root, by the left number: parents before children.
    order: Vec<u32>,
}

/// Where a span's parent is, among the spans of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Root,
    Span(u32),
    Away,
}

impl Tree {
    /// By the parent of every span.
    #[must_use]
    pub fn new(links: &[Link]) -> Self {
        let mut tree = Self::unknown(links.len());
        if !links.contains(&Link::Root) {
            return tree;
        }
        // Children as chains, built backwards so that they come out by start time.
        let mut first_child = vec![NONE; links.len()];
        let mut next_sibling = vec![NONE; links.len()];
        for (span, link) in links.iter().enumerate().rev() {
            if let Link::Span(parent) = *link
                && let (Some(first), Some(next)) = (first_child.get_mut(parent as usize), next_sibling.get_mut(span))
            {
                *next = std::mem::replace(first, span as u32);
                if let (Some(own), Some(count)) = (tree.parents.get_mut(span), tree.children.get_mut(parent as usize)) {
                    *own = parent;
                    *count += 1;
                }
            }
        }
        let after = |chain: &[u32], span: u32| chain.get(span as usize).copied().unwrap_or(NONE);
        let mut bound = 1;
        for (root, _) in links.iter().enumerate().filter(|(_, link)| **link == Link::Root) {
            let mut span = root as u32;
            tree.enter(span, &mut bound);
            loop {
                let child = after(&first_child, span);
                if child != NONE {
                    // Taken off the chain, so that on the way up the next one is found.
                    if let Some(first) = first_child.get_mut(span as usize) {
                        *first = after(&next_sibling, child);
                    }
                    span = child;
                    tree.enter(span, &mut bound);
                } else {
                    if let Some(set) = tree.sets.get_mut(span as usize) {
                        set.1 = bound;
                    }
                    bound += 1;
                    span = after(&tree.parents, span);
                    if span == NONE {
                        break;
                    }
                }
            }
        }
        tree
    }

    /// No span is known to stand in any relation.
    #[must_use]
    pub fn unknown(spans: usize) -> Self {
        Self { parents: vec![NONE; spans], sets: vec![(0, 0); spans], children: vec![0; spans], order: Vec::new() }
    }

    fn enter(&mut self, span: u32, bound: &mut u32) {
        if let Some(set) = self.sets.get_mut(span as usize) {
            set.0 = *bound;
        }
        *bound += 1;
        self.order.push(span);
    }

    /// The nested set numbers; 0 and 0 for spans that hang on no root.
    #[must_use]
    pub fn set(&self, span: usize) -> (u32, u32) {
        self.sets.get(span).copied().unwrap_or((0, 0))
    }

    /// The left number of the parent, -1 for roots, 0 for spans that hang on none.
    #[must_use]
    pub fn parent_set(&self, span: usize) -> i64 {
        if self.set(span).0 == 0 {
            return 0;
        }
        self.parent(span).map_or(-1, |parent| i64::from(self.set(parent).0))
    }

    /// How many children a span has.
    #[must_use]
    pub fn children(&self, span: usize) -> u32 {
        self.children.get(span).copied().unwrap_or(0)
    }

    /// `span:childCount` or one of the numbers of nested sets.
    #[must_use]
    pub fn number(&self, intrinsic: Intrinsic, span: usize) -> i64 {
        match intrinsic {
            Intrinsic::ChildCount => i64::from(self.children(span)),
            Intrinsic::NestedSetLeft => i64::from(self.set(span).0),
            Intrinsic::NestedSetRight => i64::from(self.set(span).1),
            _ => self.parent_set(span),
        }
    }

    fn parent(&self, span: usize) -> Option<usize> {
        self.parents.get(span).filter(|parent| **parent != NONE).map(|parent| *parent as usize)
    }

    /// The spans of `right` that stand in a relation to one of `left`.
    #[must_use]
    pub fn related(&self, relation: Relation, left: &Mask, right: &Mask) -> Mask {
        let mut found = Mask::none(right.rows());
        match relation {
            Relation::Child => {
                for span in self.connected(right) {
                    if self.parent(span).is_some_and(|parent| left.get(parent)) {
                        found.set(span);
                    }
                }
            }
            Relation::Parent => {
                for parent in self.connected(left).filter_map(|span| self.parent(span)) {
                    if right.get(parent) {
                        found.set(parent);
                    }
                }
            }
            Relation::Descendant => {
                // Where the sets of left spans met so far end: whatever begins before is below one of them.
                let mut covered = 0;
                for span in self.order.iter().map(|span| *span as usize) {
                    let (own_left, own_right) = self.set(span);
                    if own_left < covered && right.get(span) {
                        found.set(span);
                    }
                    if left.get(span) {
                        covered = covered.max(own_right);
                    }
                }
            }
            Relation::Ancestor => {
                // Backwards, the left span met last is the nearest in order: if any is below, that one is.
                let mut nearest = u32::MAX;
                for span in self.order.iter().rev().map(|span| *span as usize) {
                    let (own_left, own_right) = self.set(span);
                    if nearest < own_right && right.get(span) {
                        found.set(span);
                    }
                    if left.get(span) {
                        nearest = own_left;
                    }
                }
            }
            Relation::Sibling => {
                // By parent, roots last: how many left spans it has.
                let mut counts = vec![0_u32; self.parents.len() + 1];
                let place = |span: usize| self.parent(span).unwrap_or(self.parents.len());
                for span in self.connected(left) {
                    if let Some(count) = counts.get_mut(place(span)) {
                        *count += 1;
                    }
                }
                for span in self.connected(right) {
                    let others = counts.get(place(span)).copied().unwrap_or(0) - u32::from(left.get(span));
                    if others > 0 {
                        found.set(span);
                    }
                }
            }
        }
        found
    }

    fn connected<'a>(&'a self, spans: &'a Mask) -> impl Iterator<Item = usize> + 'a {
        spans.iter().filter(|span| self.set(*span).0 != 0)
    }
}

/// The relation seen from the other side.
#[must_use]
pub fn inverse(relation: Relation) -> Relation {
    match relation {
        Relation::Child => Relation::Parent,
        Relation::Parent => Relation::Child,
        Relation::Descendant => Relation::Ancestor,
        Relation::Ancestor => Relation::Descendant,
        Relation::Sibling => Relation::Sibling,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_sets_count_down_and_up() {
        // 0 has the children 1 and 3, 1 has the child 2; 4 is a second root; 5 hangs on nothing, and 6 on 5.
        let links = [Link::Root, Link::Span(0), Link::Span(1), Link::Span(0), Link::Root, Link::Away, Link::Span(5)];
        let tree = Tree::new(&links);
        let sets: Vec<(u32, u32)> = (0..links.len()).map(|span| tree.set(span)).collect();
        assert_eq!(sets, [(1, 8), (2, 5), (3, 4), (6, 7), (9, 10), (0, 0), (0, 0)]);
        let parents: Vec<i64> = (0..links.len()).map(|span| tree.parent_set(span)).collect();
        assert_eq!(parents, [-1, 1, 2, 1, -1, 0, 0]);
        assert_eq!([tree.children(0), tree.children(1), tree.children(5)], [2, 1, 1]);
    }

    #[test]
    fn without_root_nothing_is_known() {
        let links = [Link::Away, Link::Span(0), Link::Span(2)];
        assert_eq!(Tree::new(&links), Tree::unknown(3));
    }

    /// Of any shape, circles and spans that are their own parents included.
    fn links() -> impl Strategy<Value = Vec<Link>> {
        (1_usize..12).prop_flat_map(|spans| {
            let link = prop_oneof![
                1 => Just(Link::Root),
                1 => Just(Link::Away),
                4 => (0..spans as u32).prop_map(Link::Span),
            ];
            proptest::collection::vec(link, spans)
        })
    }

    /// The relation by walking up, one step at a time.
    fn plainly(links: &[Link], relation: Relation, left: usize, right: usize) -> bool {
        let ancestors = |span: usize| {
            let mut above = Vec::new();
            let mut at = span;
            while let Link::Span(parent) = links[at] {
                at = parent as usize;
                above.push(at);
                if above.len() > links.len() {
                    return None;
                }
            }
            (links[at] == Link::Root).then_some(above)
        };
        let (Some(over_left), Some(over_right)) = (ancestors(left), ancestors(right)) else { return false };
        match relation {
            Relation::Child => over_right.first() == Some(&left),
            Relation::Parent => over_left.first() == Some(&right),
            Relation::Descendant => over_right.contains(&left),
            Relation::Ancestor => over_left.contains(&right),
            Relation::Sibling => left != right && over_left.first() == over_right.first(),
        }
    }

    const RELATIONS: [Relation; 5] =
        [Relation::Child, Relation::Parent, Relation::Descendant, Relation::Ancestor, Relation::Sibling];

    proptest! {
        #[test]
        fn relations_are_those_found_by_walking_up(
            links in links(),
            sides in proptest::collection::vec(any::<(bool, bool)>(), 12),
        ) {
            let sides = &sides[..links.len()];
            let (left, right) = (Mask::of(sides, |side| side.0), Mask::of(sides, |side| side.1));
            let tree = Tree::new(&links);
            for relation in RELATIONS {
                let expected: Vec<usize> =
                    right.iter().filter(|right| left.iter().any(|left| plainly(&links, relation, left, *right))).collect();
                let found: Vec<usize> = tree.related(relation, &left, &right).iter().collect();
                prop_assert_eq!(found, expected, "{:?}", relation);
            }
        }
    }
}
