//! Borrowed views of a request: walking its spans, and cutting a request down to some of them.
//!
//! Everything here works on bytes that [`super::scan::scan`] accepted; on others it stops early instead of failing.

use super::scan::LEGACY_SCOPE_SPANS;
use super::wire::{Field, Fields, SoundFields, put_bytes};

/// Calls `look(resource_spans, scope_spans, span)` for every span, with the bytes of the three messages.
pub fn for_each_span<'a>(request: &'a [u8], mut look: impl FnMut(&'a [u8], &'a [u8], &'a [u8])) {
    for resource_spans in messages(request, 1) {
        for scope_spans in messages(resource_spans, 2) {
            for span in messages(scope_spans, 2) {
                look(resource_spans, scope_spans, span);
            }
        }
    }
}

/// The length-delimited fields with this number.
pub fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    SoundFields::new(message).filter_map(
        #[inline(always)]
        move |field| field.bytes(number),
    )
}

/// The request with only those spans that `keep` wants. Spans, resources, scopes and unknown fields stay verbatim;
/// envelopes without spans go.
pub fn retain_spans(request: &[u8], mut keep: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    rebuild(request, 1, &mut |resource_spans| {
        let kept = rebuild(resource_spans, 2, &mut |scope_spans| {
            let kept = rebuild(scope_spans, 2, &mut |span| keep(span).then(|| span.to_vec()));
            has_field(&kept, 2).then_some(kept)
        });
        has_field(&kept, 2).then_some(kept)
    })
}

/// The request with deprecated scopes as scope spans in those resource spans that have no others; all else verbatim.
pub fn promote_legacy_scopes(request: &[u8]) -> Vec<u8> {
    rebuild(request, 1, &mut |resource_spans| {
        if has_field(resource_spans, 2) {
            return Some(resource_spans.to_vec());
        }
        let mut promoted = Vec::with_capacity(resource_spans.len());
        for field in Fields::new(resource_spans).map_while(Result::ok) {
            match field.bytes(LEGACY_SCOPE_SPANS) {
                Some(scope_spans) => put_bytes(&mut promoted, 2, scope_spans),
                None => promoted.extend_from_slice(field.raw),
            }
        }
        Some(promoted)
    })
}

/// The message with each field `number` replaced by what `change` makes of it; the others verbatim.
fn rebuild(message: &[u8], number: u32, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for field in Fields::new(message).map_while(Result::ok) {
        match field.bytes(number) {
            Some(inner) => {
                if let Some(changed) = change(inner) {
                    put_bytes(&mut out, number, &changed);
                }
            }
            None => out.extend_from_slice(field.raw),
        }
    }
    out
}

fn has_field(message: &[u8], number: u32) -> bool {
    Fields::new(message).map_while(Result::ok).any(|field: Field<'_>| field.number == number)
}
