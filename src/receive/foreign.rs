//! Requests in other formats than OTLP: converted at the door, from there on like any other.

use super::admission::NoRoom;
use super::answer::{Accepted, Refusal};
use super::body::{HeldBody, overloaded};
use super::{Receiver, jaeger, traces, zipkin};
use std::net::IpAddr;

/// The request may take twice the body, and this: the formats are about as long as OTLP, short spans are shorter.
const CONVERTED_BYTES_MIN: usize = 64 * 1024;

/// Bytes that the conversion of a body of this length may result in.
pub fn converted_bytes_max(body_len: usize) -> usize {
    body_len.saturating_mul(2).saturating_add(CONVERTED_BYTES_MIN)
}

/// Converts a body with `convert`, which is given the longest result that it may have, and stores it.
pub async fn accept<E: Into<Refusal>>(
    receiver: &Receiver,
    peer: IpAddr,
    held: HeldBody,
    convert: impl FnOnce(&[u8], usize) -> Result<Vec<u8>, E>,
) -> Result<Accepted, Refusal> {
    let HeldBody { bytes, mut room } = held;
    let max = converted_bytes_max(bytes.len());
    // Its parts, and then the whole.
    let in_all = max.saturating_mul(2).saturating_add(bytes.len());
    room.raise(in_all).await.map_err(|NoRoom| overloaded())?;
    let request = convert(&bytes, max).map_err(E::into)?;
    drop(bytes);
    traces::accept(receiver, peer, request.into()).await
}

impl From<zipkin::ConvertError> for Refusal {
    fn from(error: zipkin::ConvertError) -> Self {
        match error {
            zipkin::ConvertError::TooLong(_) => Self::TooLarge(error.to_string()),
            _ => Self::BadData(error.to_string()),
        }
    }
}

impl From<jaeger::ConvertError> for Refusal {
    fn from(error: jaeger::ConvertError) -> Self {
        match error {
            jaeger::ConvertError::TooLong(_) => Self::TooLarge(error.to_string()),
            _ => Self::BadData(error.to_string()),
        }
    }
}
