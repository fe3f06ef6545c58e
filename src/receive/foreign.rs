//! Requests in other formats than OTLP: converted at the door, from there on like any other.

use super::admission::NoRoom;
use super::answer::{Accepted, Refusal};
use super::body::{HeldBody, overloaded, work};
use super::{Receiver, jaeger, traces, zipkin};
use crate::process::Client;

/// The request may take twice the body, and this: the formats are about as long as OTLP, short spans are shorter.
const CONVERTED_BYTES_MIN: usize = 4 * 1024;

/// Bytes that the conversion of a body of this length may result in.
pub fn converted_bytes_max(body_len: usize) -> usize {
    body_len.saturating_mul(2).saturating_add(CONVERTED_BYTES_MIN)
}

/// Bytes that a body of this length takes while it is converted: its own, the parts of the result, and then the whole.
pub fn bytes_in_all(body_len: usize) -> usize {
    converted_bytes_max(body_len).saturating_mul(2).saturating_add(body_len)
}

/// Converts a body with `convert`, which is given the longest result that it may have, and stores it.
pub async fn accept<E: Into<Refusal> + Send + 'static>(
    receiver: &Receiver,
    client: &Client,
    mut held: HeldBody,
    convert: impl FnOnce(&[u8], usize) -> Result<Vec<u8>, E> + Send + 'static,
) -> Result<Accepted, Refusal> {
    held.room.raise(bytes_in_all(held.bytes.len())).await.map_err(|NoRoom| overloaded())?;
    let (converted, mut room) = work(held, |body| convert(body, converted_bytes_max(body.len()))).await;
    let request = converted.map_err(E::into)?;
    room.lower(request.len());
    traces::accept(receiver, client, request.into()).await
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
