//! The tail: traces straight from the spool's batches.

use super::assemble::{AssembleLimits, Completeness};
use crate::otlp::TraceId;
use crate::otlp::view::retain_spans;
use crate::otlp::wire::Fields;
use crate::query::{FoundTrace, SourceError, TraceSource};
use crate::spool::{Batch, ReadError, Spool};
use bytes::Bytes;

/// Reads the spool. Clones share it.
#[derive(Clone)]
pub struct Tail {
    spool: Spool,
}

impl Tail {
    pub fn new(spool: Spool) -> Self {
        Self { spool }
    }
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> Self {
        Self::Read(error.to_string())
    }
}

impl TraceSource for Tail {
    fn trace(&self, id: TraceId, limits: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        let mut found = FoundTrace { fragments: Vec::new(), completeness: Completeness::Complete, inspected_bytes: 0 };
        let mut fragment_bytes = 0;
        for seq in self.spool.find(id.fingerprint())? {
            // `None`: the budget dropped it since the index was asked.
            let Some(batch) = self.spool.batch(seq)? else { continue };
            let Some(request) = inflate(&batch) else { continue };
            found.inspected_bytes += request.len() as u64;
            let fragment = retain_spans(&request, |span| trace_id(span) == Some(id));
            if fragment.is_empty() {
                continue;
            }
            fragment_bytes += fragment.len();
            found.fragments.push(fragment.into());
            // Repeated spans and envelopes shrink the whole, so some excess is needed to be sure of it.
            if fragment_bytes > limits.trace_bytes_max.saturating_mul(2) {
                found.completeness = Completeness::Truncated;
                break;
            }
        }
        Ok(found)
    }
}

fn trace_id(span: &[u8]) -> Option<TraceId> {
    Fields::new(span).map_while(Result::ok).find_map(|field| TraceId::from_wire(field.bytes(1)?))
}

/// One damaged batch must not hide the rest of a trace: it is reported and passed over.
fn inflate(batch: &Batch) -> Option<Bytes> {
    match zstd::bulk::decompress(&batch.frame, batch.header.raw_bytes as usize) {
        Ok(request) => Some(request.into()),
        Err(error) => {
            tracing::error!(batch = batch.seq.0, %error, "a stored batch cannot be inflated; its spans are not shown");
            None
        }
    }
}
