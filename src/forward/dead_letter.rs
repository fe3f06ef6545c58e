//! One more try for what a destination refused for good.

use super::link::{Link, Transport, Verdict};
use super::request::{Part, Piece};
use crate::otlp::Signal;
use crate::spool::Seq;
use bytes::Bytes;
use std::io::Read;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A person waits for it: a destination that is away is told so, not waited for.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// A dead letter's protobuf. Whatever was parked was smaller: a request's largest piece.
const RAW_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A dead letter on its way.
#[derive(Debug, Clone)]
pub struct DeadFrame {
    pub signal: Signal,
    pub seq: Seq,
    /// Spans, data points or log records.
    pub spans: u64,
    /// Protobuf.
    pub request: Bytes,
}

/// The protobuf in zstd frames that stand end to end. Blocking.
///
/// # Errors
/// They do not inflate, or to more than was ever parked.
pub fn inflate(frames: &[u8]) -> std::io::Result<Bytes> {
    let mut raw = Vec::new();
    let read = zstd::stream::read::Decoder::new(frames)?.take(RAW_BYTES_MAX + 1).read_to_end(&mut raw)?;
    if read as u64 > RAW_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {RAW_BYTES_MAX} bytes")));
    }
    Ok(raw.into())
}

pub(super) async fn retry<T: Transport>(link: &Link<T>, letter: DeadFrame) -> Result<u64, String> {
    let piece = Piece::Part(Part { signal: letter.signal, seq: letter.seq, raw: letter.request, spans: letter.spans });
    let shutdown = CancellationToken::new();
    // Behind everything that is new: a closed gate lets the oldest through first.
    let attempt = link.attempt(Seq(u64::MAX), &shutdown, &piece);
    match tokio::time::timeout(RETRY_WAIT_MAX, attempt).await {
        Ok(Some(Verdict::Delivered { rejected_spans })) => Ok(rejected_spans),
        Ok(Some(
            Verdict::TooLarge { why }
            | Verdict::TooMuch { why }
            | Verdict::Refused { why }
            | Verdict::Internal { why }
            | Verdict::GivenUp { why }
            | Verdict::Damaged { why },
        )) => Err(why),
        Ok(None) => Err("Spanreel is stopping".to_owned()),
        Err(_) => Err(format!("the destination is {}; try again when it takes requests", link.status().state)),
    }
}
