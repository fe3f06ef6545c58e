//! Spans that wait for the other side of their call: a bounded number, oldest first.

use super::super::facts::Value;
use super::super::labels::{Builder, values};
use super::super::symbols::Symbol;
use std::collections::HashMap;

/// Trace id, and the span id of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    trace_id: [u8; 16],
    caller: [u8; 8],
}

/// What connects client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    #[default]
    Direct,
    Messaging,
    Database,
    /// One side sends no spans.
    VirtualNode,
}

/// A call of which one side is known, or both.
#[derive(Debug, Clone)]
pub struct Edge {
    pub key: EdgeKey,
    deadline_millis: u64,
    pub connection: Connection,
    pub failed: bool,
    pub client: Option<Symbol>,
    pub server: Option<Symbol>,
    /// What the attributes say about the other side.
    pub peer: Option<Symbol>,
    /// Of a virtual node: the side that sends no spans.
    pub virtual_side: &'static str,
    pub client_seconds: f64,
    pub server_seconds: f64,
    /// Unix nanoseconds.
    pub client_end: u64,
    pub server_start: u64,
    /// Of the span that came last.
    pub span_id: [u8; 8],
    /// Label values of the client's side and of the server's, if labels are configured. Values without prefix are all
    /// in the first.
    dimensions: Option<Box<[Vec<u8>; 2]>>,
}

/// The place of an edge, and its neighbours by age.
#[derive(Debug)]
struct Place {
    edge: Option<Edge>,
    older: usize,
    newer: usize,
}

const NONE: usize = usize::MAX;

#[derive(Debug)]
pub struct Waiting {
    by_key: HashMap<EdgeKey, usize, foldhash::fast::RandomState>,
    places: Vec<Place>,
    free: Vec<usize>,
    oldest: usize,
    newest: usize,
    edges_max: usize,
}

impl EdgeKey {
    /// An id that is not there counts as zeros.
    pub fn new(trace_id: &[u8], caller: &[u8]) -> Self {
        Self { trace_id: trace_id.try_into().unwrap_or_default(), caller: caller.try_into().unwrap_or_default() }
    }

    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// Nobody calls.
    pub fn is_of_root(&self) -> bool {
        self.caller == [0; 8]
    }
}

impl Connection {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "",
            Self::Messaging => "messaging_system",
            Self::Database => "database",
            Self::VirtualNode => "virtual_node",
        }
    }
}

impl Edge {
    pub fn new(key: EdgeKey, deadline_millis: u64) -> Self {
        Self {
            key,
            deadline_millis,
            connection: Connection::Direct,
            failed: false,
            client: None,
            server: None,
            peer: None,
            virtual_side: "",
            client_seconds: 0.0,
            server_seconds: 0.0,
            client_end: 0,
            server_start: 0,
            span_id: [0; 8],
            dimensions: None,
        }
    }

    pub fn is_complete(&self) -> bool {
        self.client.is_some() && self.server.is_some()
    }

    /// Keeps label values of one side (0: client, 1: server). Without prefix both sides share them, and what the later
    /// side has counts.
    pub fn note_dimensions<'a>(&mut self, found: impl Iterator<Item = Option<Value<'a>>>, side: usize, prefixed: bool) {
        let place = if prefixed { side } else { 0 };
        let [client, server] = &mut **self.dimensions.get_or_insert_default();
        let kept = if place == 0 { client } else { server };
        let mut builder = Builder::default();
        for (number, value) in found.enumerate() {
            match value {
                Some(value) => builder.push_with(|out| value.write(out)),
                None => builder.push(values(kept).nth(number).unwrap_or_default()),
            }
        }
        *kept = builder.values().to_vec();
    }

    /// The values of dimension `number`: the client's and the server's, or the one.
    pub fn dimensions(&self, number: usize, prefixed: bool) -> impl Iterator<Item = &[u8]> {
        let sides = if prefixed { 2 } else { 1 };
        (0..sides).map(move |side| {
            let kept = self.dimensions.as_ref().and_then(|kept| kept.get(side));
            kept.and_then(|kept| values(kept).nth(number)).unwrap_or_default()
        })
    }
}

impl Waiting {
    pub fn new(edges_max: usize) -> Self {
        let (by_key, places, free) = (HashMap::default(), Vec::new(), Vec::new());
        Self { by_key, places, free, oldest: NONE, newest: NONE, edges_max }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// `false`: too many others wait.
    pub fn insert(&mut self, edge: Edge) -> bool {
        if self.by_key.len() >= self.edges_max {
            return false;
        }
        let key = edge.key;
        let place = Place { edge: Some(edge), older: self.newest, newer: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(free) = self.places.get_mut(at) {
                    *free = place;
                }
                at
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        };
        match self.places.get_mut(self.newest) {
            Some(newest) => newest.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        self.by_key.insert(key, at);
        true
    }

    pub fn take(&mut self, key: &EdgeKey) -> Option<Edge> {
        let at = self.by_key.remove(key)?;
        let place = self.places.get_mut(at)?;
        let (edge, older, newer) = (place.edge.take(), place.older, place.newer);
        match self.places.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.places.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.free.push(at);
        edge
    }

    /// The oldest edge, if it waited long enough.
    pub fn take_expired(&mut self, now_millis: u64) -> Option<Edge> {
        let oldest = self.places.get(self.oldest)?.edge.as_ref()?;
        let key = (oldest.deadline_millis <= now_millis).then_some(oldest.key)?;
        self.take(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list: what is inserted comes out once, by key or by age, oldest first.
        #[test]
        fn edges_leave_by_key_or_by_age(actions in proptest::collection::vec((0u8..3, 0u8..12), 0..80)) {
            const EDGES_MAX: usize = 6;
            let (mut waiting, mut model): (_, Vec<(u8, u64)>) = (Waiting::new(EDGES_MAX), Vec::new());
            for (now, (action, id)) in (0u64..).zip(actions) {
                let key = EdgeKey::new(&[id; 16], &[id; 8]);
                match action {
                    0 if model.iter().all(|(known, _)| *known != id) => {
                        let fits = model.len() < EDGES_MAX;
                        prop_assert_eq!(waiting.insert(Edge::new(key, now + 5)), fits);
                        if fits {
                            model.push((id, now + 5));
                        }
                    }
                    1 => {
                        let at = model.iter().position(|(known, _)| *known == id);
                        let expected = at.map(|at| model.remove(at).0);
                        prop_assert_eq!(waiting.take(&key).map(|edge| edge.key.caller[0]), expected);
                    }
                    _ => {
                        while let Some(edge) = waiting.take_expired(now) {
                            let (id, deadline) = model.remove(0);
                            prop_assert_eq!(edge.key.caller[0], id);
                            prop_assert!(deadline <= now);
                        }
                        prop_assert!(model.iter().all(|(_, deadline)| *deadline > now));
                    }
                }
                prop_assert_eq!(waiting.len(), model.len());
            }
        }
    }
}
