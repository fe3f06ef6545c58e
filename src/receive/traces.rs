//! One trace request, whatever protocol brought it: scan, take out what breaks the specification, store, answer.

use super::Receiver;
use super::answer::{Accepted, Refusal};
use crate::otlp::Signal;
use crate::otlp::scan::{is_valid, scan};
use crate::otlp::view::{promote_legacy_scopes, retain_spans};
use crate::process::Client;
use bytes::Bytes;

pub async fn accept(receiver: &Receiver, client: &Client, request: Bytes) -> Result<Accepted, Refusal> {
    let scanned =
        scan(&request).map_err(|error| Refusal::BadData(format!("not an ExportTraceServiceRequest: {error}")))?;
    let rejected = scanned.invalid;
    if scanned.spans == 0 && rejected == 0 {
        return Ok(Accepted::default());
    }
    let request = if scanned.legacy_scopes { promote_legacy_scopes(&request).into() } else { request };
    let request = if rejected > 0 { retain_spans(&request, is_valid).into() } else { request };
    let spans = scanned.spans;
    let stored = receiver.sink.store(request, scanned, client.clone()).await;
    receiver.metrics.count_items(&receiver.name, Signal::Traces, stored.is_ok(), spans);
    stored?;
    if rejected == 0 {
        return Ok(Accepted::default());
    }
    Ok(Accepted {
        rejected_spans: rejected,
        message: format!(
            "{rejected} spans refused: a trace id must be 16 bytes, a span id 8 bytes, neither all zero; \
             parent and link ids of these lengths or empty"
        ),
    })
}
