//! Zipkin lets the client's and the server's half of a call share one span id; OpenTelemetry and Grafana do not.
//!
//! As Tempo does when it answers: a server span that shares its id with a client span gets a fresh id, the client span
//! becomes its parent, and the children of the shared id become the server span's.

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::SpanPiece;
use crate::otlp::SpanId;
use crate::otlp::wire::{self, Fields, WireError};

const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// Gives such server spans fresh ids, counted up from 1 past those in use, so that the same trace always reads the same.
pub(super) fn separate(spans: &mut [SpanPiece<'_>]) -> Result<(), WireError> {
    let clients: HashSet<SpanId> = spans.iter().filter(|span| span.kind == CLIENT).filter_map(|span| span.id).collect();
    let shared = |span: &SpanPiece<'_>| span.id.filter(|id| span.kind == SERVER && clients.contains(id));
    if !spans.iter().any(|span| shared(span).is_some()) {
        return Ok(());
    }
    let used: HashSet<SpanId> = spans.iter().filter_map(|span| span.id).collect();
    let mut fresh = (1..=u64::MAX).map(|id| SpanId(id.to_be_bytes())).filter(|id| !used.contains(id));
    let mut renamed = HashMap::new();
    for span in spans.iter_mut() {
        let Some(old) = shared(span) else { continue };
        if let Some(new) = fresh.next() {
            renamed.insert(old, new);
            span.id = Some(new);
            span.parent = Some(old);
            span.bytes = Cow::Owned(with_ids(&span.bytes, new, old)?);
        }
    }
    for span in spans {
        let (Some(id), Some(parent)) = (span.id, span.parent) else { continue };
        if let Some(new) = renamed.get(&parent).filter(|new| **new != id) {
            span.parent = Some(*new);
            span.bytes = Cow::Owned(with_ids(&span.bytes, id, *new)?);
        }
    }
    Ok(())
}

/// The span with these ids in the place of its own; everything else verbatim.
fn with_ids(span: &[u8], id: SpanId, parent: SpanId) -> Result<Vec<u8>, WireError> {
    // A span id takes ten bytes with its tag and length; the parent's may be new.
    let mut out = Vec::with_capacity(span.len() + 10);
    wire::put_bytes(&mut out, 2, &id.0);
    wire::put_bytes(&mut out, 4, &parent.0);
    for field in Fields::new(span) {
        let field = field?;
        if !matches!(field.number, 2 | 4) {
            out.extend_from_slice(field.raw);
        }
    }
    Ok(out)
}
