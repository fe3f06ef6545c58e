//! What was decided about the traces of one batch, and how it is kept.
//!
//! ```text
//! spans that go u32 LE, then a bit per trace in the order of their first spans, lowest bit first: 1 is kept
//! ```
//! A batch that goes out whole has none.

use crate::otlp::TraceId;
use crate::otlp::view::{for_each_span, retain_spans};
use crate::otlp::wire::Fields;
use crate::spool::Seq;
use std::collections::HashMap;

const HEAD_LEN: usize = 4;

/// The verdict on one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Spans of traces that are not kept.
    pub sampled_out: u32,
    kept: Vec<u8>,
}

impl Verdict {
    /// From the traces of a batch in the order of their first spans: whether each is kept, and its spans in the batch.
    pub(super) fn of(traces: impl Iterator<Item = (bool, u64)>) -> Self {
        let mut verdict = Self { sampled_out: 0, kept: Vec::new() };
        for (index, (is_kept, spans)) in traces.enumerate() {
            if index % 8 == 0 {
                verdict.kept.push(0);
            }
            if let Some(byte) = verdict.kept.last_mut().filter(|_| is_kept) {
                *byte |= 1 << (index % 8);
            }
            if !is_kept {
                verdict.sampled_out += u32::try_from(spans).unwrap_or(u32::MAX);
            }
        }
        verdict
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.sampled_out.to_le_bytes(), self.kept.as_slice()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, kept) = bytes.split_first_chunk::<HEAD_LEN>()?;
        Some(Self { sampled_out: u32::from_le_bytes(*head), kept: kept.to_vec() })
    }

    /// What of the batch goes out. Spans stay verbatim.
    pub(super) fn apply(&self, request: &[u8]) -> Vec<u8> {
        let mut places: HashMap<TraceId, usize, foldhash::fast::RandomState> = HashMap::default();
        for_each_span(request, |_, _, span| {
            if let Some(id) = trace_id(span) {
                let next = places.len();
                places.entry(id).or_insert(next);
            }
        });
        retain_spans(request, |span| {
            let place = trace_id(span).and_then(|id| places.get(&id));
            place.is_none_or(|place| self.kept.get(place / 8).is_none_or(|byte| byte & (1 << (place % 8)) != 0))
        })
    }
}

fn trace_id(span: &[u8]) -> Option<TraceId> {
    Fields::new(span).map_while(Result::ok).find_map(|field| TraceId::from_wire(field.bytes(1)?))
}

/// The note of the verdict on a batch.
pub(super) fn verdict_key(seq: Seq) -> Vec<u8> {
    [b"v", seq.key().as_slice()].concat()
}

/// The batch that a verdict's key names.
pub(super) fn seq_of_key(key: &[u8]) -> Option<Seq> {
    key.strip_prefix(b"v")?.try_into().ok().map(|bytes| Seq(u64::from_be_bytes(bytes)))
}
