//! A trace put together from all its pieces.

use std::collections::BTreeMap;

use super::super::spans::{Span, Trace};
use crate::otlp::TraceId;
use crate::traceql::answer::{RootSpan, ServiceStats};
use crate::traceql::value::{Kind, Status, Value};

/// A whole trace: no span id and kind twice, by start time, then id, then kind.
#[derive(Debug, Clone)]
pub struct Tree {
    pub id: TraceId,
    pub spans: Vec<Span>,
    /// Of each span the index of its parent, where it is there and can be told.
    pub parents: Vec<Option<usize>>,
    pub sets: Vec<NestedSet>,
}

/// All zero for spans that hang on no root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NestedSet {
    pub left: i64,
    pub right: i64,
    /// `left` of the parent; -1 for roots.
    pub parent: i64,
}

/// Every trace that has a span in any of the parts, put together.
pub fn trees(parts: &[Vec<Trace>]) -> Vec<Tree> {
    let mut spans: BTreeMap<TraceId, Vec<Span>> = BTreeMap::new();
    for trace in parts.iter().flatten() {
        spans.entry(trace.id).or_default().extend(trace.spans.iter().cloned());
    }
    spans.into_iter().filter(|(_, spans)| !spans.is_empty()).map(|(id, spans)| Tree::new(id, spans)).collect()
}

impl Tree {
    fn new(id: TraceId, pieces: Vec<Span>) -> Self {
        let mut spans: Vec<Span> = Vec::new();
        for span in pieces {
            if !spans.iter().any(|known| known.id == span.id && known.kind == span.kind) {
                spans.push(span);
            }
        }
        spans.sort_by_key(|span| (span.start, span.id, span.kind));
        let parents: Vec<Option<usize>> = (0..spans.len()).map(|span| parent(&spans, span)).collect();
        let sets = nested_sets(&spans, &parents);
        Self { id, spans, parents, sets }
    }

    /// The earliest of the spans that have no parent.
    pub fn root(&self) -> Option<RootSpan> {
        let root = self.spans.iter().find(|span| span.parent.is_none())?;
        Some(RootSpan { service: service(root).into(), name: root.name.as_str().into() })
    }

    pub fn start(&self) -> u64 {
        self.spans.iter().map(|span| span.start).min().unwrap_or(0)
    }

    pub fn duration(&self) -> u64 {
        self.spans.iter().map(Span::end).max().unwrap_or(0) - self.start()
    }

    /// As with the numbers of the nested set, there are none where no root has come.
    pub fn child_count(&self, span: usize) -> i64 {
        if self.sets.iter().all(|set| set.left == 0) {
            return 0;
        }
        self.parents.iter().filter(|parent| **parent == Some(span)).count() as i64
    }

    pub fn services(&self) -> BTreeMap<std::sync::Arc<str>, ServiceStats> {
        let mut services: BTreeMap<std::sync::Arc<str>, ServiceStats> = BTreeMap::new();
        for span in &self.spans {
            let stats = services.entry(service(span).into()).or_default();
            stats.spans += 1;
            stats.errors += u32::from(span.status == Status::Error);
        }
        services
    }
}

/// `resource.service.name`, empty where there is none.
pub fn service(span: &Span) -> &str {
    match span.resource.get("service.name") {
        Some(Value::String(name)) => name,
        _ => "",
    }
}

/// Two spans may share an id: the client's and the server's half of a call. Then a server is the child of the client, and
/// everything else of the server. Of three with one id none is known to be a parent.
fn parent(spans: &[Span], span: usize) -> Option<usize> {
    let id = spans[span].parent?;
    let wanted = if spans[span].kind == Kind::Server { Kind::Client } else { Kind::Server };
    let candidates: Vec<usize> = (0..spans.len()).filter(|candidate| spans[*candidate].id == id).collect();
    match candidates[..] {
        [only] => Some(only),
        [one, other] => [one, other].into_iter().find(|candidate| spans[*candidate].kind == wanted),
        _ => None,
    }
}

fn nested_sets(spans: &[Span], parents: &[Option<usize>]) -> Vec<NestedSet> {
    let mut sets = vec![NestedSet::default(); spans.len()];
    let mut next = 1;
    for root in (0..spans.len()).filter(|span| spans[*span].parent.is_none()) {
        number(root, -1, parents, &mut sets, &mut next);
    }
    sets
}

fn number(span: usize, parent: i64, parents: &[Option<usize>], sets: &mut [NestedSet], next: &mut i64) {
    let left = *next;
    *next += 1;
    for child in (0..parents.len()).filter(|child| parents[*child] == Some(span)) {
        number(child, left, parents, sets, next);
    }
    sets[span] = NestedSet { left, right: *next, parent };
    *next += 1;
}

#[cfg(test)]
mod tests {
    use super::super::super::spans::{span, trace};
    use super::*;

    #[test]
    fn numbers_go_down_and_up_root_by_root() {
        let trees = trees(&[
            vec![trace(1, [span(1), span(2).child_of(1).lasting(1, 0), span(4).lasting(9, 0)])],
            vec![trace(
                1,
                [
                    span(2).child_of(1).lasting(1, 0),
                    span(3).child_of(2).lasting(2, 0),
                    span(5).child_of(7).lasting(9, 9),
                ],
            )],
        ]);
        let numbers: Vec<(i64, i64, i64)> = trees[0].sets.iter().map(|set| (set.left, set.right, set.parent)).collect();
        assert_eq!(numbers, [(1, 6, -1), (2, 5, 1), (3, 4, 2), (7, 8, -1), (0, 0, 0)]);
    }

    #[test]
    fn what_hangs_on_three_spans_with_one_id_hangs_on_none_and_the_rest_keeps_its_numbers() {
        let shared = [(Kind::Client, 1), (Kind::Server, 2), (Kind::Producer, 3)]
            .map(|(kind, start)| span(2).child_of(1).kind(kind).lasting(start, 0));
        let others = [span(1).lasting(0, 0), span(3).child_of(2).lasting(9, 0)];
        let trees = trees(&[vec![trace(1, others.into_iter().chain(shared))]]);
        let numbers: Vec<(i64, i64)> = trees[0].sets.iter().map(|set| (set.left, set.right)).collect();
        assert_eq!(numbers, [(1, 8), (2, 3), (4, 5), (6, 7), (0, 0)]);
    }
}
