//! One trace from the pieces that were received of it.
//!
//! ```text
//! fragments (requests that hold only this trace's spans)
//!   ─▶ group by resource, then by scope ─▶ drop repeated spans ─▶ sort by start time ─▶ separate shared ids ─▶ one request
//! ```
//!
//! A pure function of bytes. Spans, resources, scopes and unknown fields are copied verbatim, with two exceptions: an
//! absent resource, scope or status becomes an empty one, because Grafana insists on them; and a
//! Zipkin server span gets an id of its own ([`shared_ids`]), as with Tempo.

mod shared_ids;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::envelope::Envelope;
use crate::otlp::SpanId;
use crate::otlp::wire::{self, Fields, Payload, WireError};

/// `Span.status`, absent from spans whose status is unset.
const STATUS: u32 = 15;

/// An empty `status` field as it stands on the wire.
const EMPTY_STATUS: [u8; 2] = [(STATUS as u8) << 3 | 2, 0];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssembleLimits {
    /// Bytes of spans, resources and scopes; what would go beyond is left out.
    pub trace_bytes_max: usize,
}

/// Whether all of a trace is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// A limit was met; some spans are missing.
    Truncated,
}

/// An assembled trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// An `ExportTraceServiceRequest`, which is byte for byte also `TracesData` and `tempopb.Trace`.
    pub request: Vec<u8>,
    pub spans: usize,
    pub completeness: Completeness,
}

/// Puts a trace together. Of spans with the same id and kind the first counts; so a re-sent batch shows once, and the
/// two halves of a Zipkin span both stay. Resource spans, scope spans and spans come sorted by start time, then by id.
///
/// # Errors
/// A fragment is not protobuf, which cannot be once it passed the scan.
pub fn assemble<'a>(
    fragments: impl IntoIterator<Item = &'a [u8]>,
    limits: &AssembleLimits,
) -> Result<Trace, WireError> {
    let mut pieces = Pieces::default();
    let mut completeness = Completeness::Complete;
    for fragment in fragments {
        completeness = pieces.take(fragment, limits.trace_bytes_max)?;
        if completeness == Completeness::Truncated {
            break;
        }
    }
    let Pieces { resources, scopes, mut spans, .. } = pieces;
    spans.sort_by_key(|span| (span.start_unix_nano, span.id));
    shared_ids::separate(&mut spans)?;
    let request = Layout::of(&resources, &scopes, &spans).write();
    Ok(Trace { request, spans: spans.len(), completeness })
}

/// A span and what is needed to place it.
struct SpanPiece<'a> {
    bytes: Cow<'a, [u8]>,
    /// Index of its scope in [`Pieces::scopes`].
    scope: usize,
    /// `None` only for spans that the scan would have refused.
    id: Option<SpanId>,
    parent: Option<SpanId>,
    kind: u64,
    start_unix_nano: u64,
    has_status: bool,
}

impl<'a> SpanPiece<'a> {
    fn read(bytes: &'a [u8], scope: usize) -> Result<Self, WireError> {
        let mut span = Self {
            bytes: Cow::Borrowed(bytes),
            scope,
            id: None,
            parent: None,
            kind: 0,
            start_unix_nano: 0,
            has_status: false,
        };
        for field in Fields::new(bytes) {
            let field = field?;
            match (field.number, field.payload) {
                (2, Payload::Bytes(id)) => span.id = SpanId::from_wire(id),
                (4, Payload::Bytes(id)) => span.parent = SpanId::from_wire(id),
                (6, Payload::Varint(kind)) => span.kind = kind,
                (7, Payload::Fixed64(nanos)) => span.start_unix_nano = nanos,
                (STATUS, _) => span.has_status = true,
                _ => {}
            }
        }
        Ok(span)
    }

    fn len(&self) -> usize {
        self.bytes.len() + if self.has_status { 0 } else { EMPTY_STATUS.len() }
    }
}

/// What was taken from fragments so far.
#[derive(Default)]
struct Pieces<'a> {
    resources: Vec<Envelope>,
    /// Each with the index of its resource.
    scopes: Vec<(usize, Envelope)>,
    spans: Vec<SpanPiece<'a>>,
    resource_index: HashMap<Envelope, usize>,
    scope_index: HashMap<(usize, Envelope), usize>,
    seen: HashSet<(SpanId, u64)>,
    bytes: usize,
}

impl<'a> Pieces<'a> {
    fn take(&mut self, fragment: &'a [u8], bytes_max: usize) -> Result<Completeness, WireError> {
        for resource_spans in messages(fragment, 1) {
            let resource_spans = resource_spans?;
            let resource = self.resource(Envelope::read(resource_spans)?);
            for scope_spans in messages(resource_spans, 2) {
                let scope_spans = scope_spans?;
                let scope = self.scope(resource, Envelope::read(scope_spans)?);
                for bytes in messages(scope_spans, 2) {
                    let span = SpanPiece::read(bytes?, scope)?;
                    if span.id.is_some_and(|id| !self.seen.insert((id, span.kind))) {
                        continue;
                    }
                    self.bytes += span.len();
                    if self.bytes > bytes_max {
                        return Ok(Completeness::Truncated);
                    }
                    self.spans.push(span);
                }
            }
        }
        Ok(Completeness::Complete)
    }

    fn resource(&mut self, envelope: Envelope) -> usize {
        *self.resource_index.entry(envelope).or_insert_with_key(|envelope| {
            self.bytes += envelope.fields.len();
            self.resources.push(envelope.clone());
            self.resources.len() - 1
        })
    }

    fn scope(&mut self, resource: usize, envelope: Envelope) -> usize {
        *self.scope_index.entry((resource, envelope)).or_insert_with_key(|scope| {
            self.bytes += scope.1.fields.len();
            self.scopes.push(scope.clone());
            self.scopes.len() - 1
        })
    }
}

fn messages(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], WireError>> {
    Fields::new(message).filter_map(move |field| match field {
        Ok(field) => field.bytes(number).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

/// The order of the result, with the lengths that protobuf wants beforehand.
struct Layout<'p, 'a> {
    resources: Vec<ResourceLayout<'p, 'a>>,
}

struct ResourceLayout<'p, 'a> {
    envelope: &'p Envelope,
    scopes: Vec<ScopeLayout<'p, 'a>>,
}

struct ScopeLayout<'p, 'a> {
    envelope: &'p Envelope,
    spans: Vec<&'p SpanPiece<'a>>,
}

impl<'p, 'a> Layout<'p, 'a> {
    /// `spans` are sorted; a resource or scope stands where its first span does, one without spans nowhere.
    fn of(resources: &'p [Envelope], scopes: &'p [(usize, Envelope)], spans: &'p [SpanPiece<'a>]) -> Self {
        let mut layout = Self { resources: Vec::with_capacity(resources.len()) };
        // Where a resource or scope came to stand, by its index among the pieces.
        let mut resource_at: HashMap<usize, usize> = HashMap::with_capacity(resources.len());
        let mut scope_at: HashMap<usize, (usize, usize)> = HashMap::with_capacity(scopes.len());
        for span in spans {
            let Some((resource, scope_envelope)) = scopes.get(span.scope) else { continue };
            let Some(resource_envelope) = resources.get(*resource) else { continue };
            let (resource_index, scope_index) = *scope_at.entry(span.scope).or_insert_with(|| {
                let resource_index = *resource_at.entry(*resource).or_insert_with(|| {
                    layout.resources.push(ResourceLayout { envelope: resource_envelope, scopes: Vec::new() });
                    layout.resources.len() - 1
                });
                let scopes = &mut layout.resources[resource_index].scopes;
                scopes.push(ScopeLayout { envelope: scope_envelope, spans: Vec::new() });
                (resource_index, scopes.len() - 1)
            });
            layout.resources[resource_index].scopes[scope_index].spans.push(span);
        }
        layout
    }

    fn write(&self) -> Vec<u8> {
        let len = self.resources.iter().map(|resource| wire::field_len(1, resource.len())).sum();
        let mut out = Vec::with_capacity(len);
        for resource in &self.resources {
            wire::put_header(&mut out, 1, resource.len());
            resource.envelope.write(&mut out, |out| resource.scopes.iter().for_each(|scope| scope.write(out)));
        }
        debug_assert_eq!(out.len(), len);
        out
    }
}

impl ResourceLayout<'_, '_> {
    fn len(&self) -> usize {
        let scopes: usize = self.scopes.iter().map(|scope| wire::field_len(2, scope.len())).sum();
        self.envelope.fields.len() + scopes
    }
}

impl ScopeLayout<'_, '_> {
    fn len(&self) -> usize {
        let spans: usize = self.spans.iter().map(|span| wire::field_len(2, span.len())).sum();
        self.envelope.fields.len() + spans
    }

    fn write(&self, out: &mut Vec<u8>) {
        wire::put_header(out, 2, self.len());
        self.envelope.write(out, |out| {
            for span in &self.spans {
                wire::put_header(out, 2, span.len());
                out.extend_from_slice(&span.bytes);
                if !span.has_status {
                    out.extend_from_slice(&EMPTY_STATUS);
                }
            }
        });
    }
}
