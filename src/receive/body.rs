//! Reading a request body: as much as fits, as long as it keeps coming.

use super::Receiver;
use super::admission::{NoRoom, Reservation};
use super::answer::Refusal;
use super::inflate::{Encoding, InflateError, inflate};
use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::time::Duration;

/// A client that sends nothing for this long has gone away.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Reserved for a body whose length is not declared; it is raised as the body grows.
const UNDECLARED_BYTES: usize = 64 * 1024;
/// What a client that met a full budget is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A body in memory, with the reservation that pays for it.
pub struct HeldBody {
    pub bytes: Bytes,
    pub room: Reservation,
}

/// Reads a whole body of at most `max` bytes on the wire.
pub async fn read(
    receiver: &Receiver,
    mut body: Incoming,
    headers: &HeaderMap,
    max: usize,
) -> Result<HeldBody, Refusal> {
    let too_large = || Refusal::TooLarge(format!("the request body is larger than {max} bytes"));
    let declared = declared_len(headers);
    if declared.is_some_and(|len| len > max) {
        return Err(too_large());
    }
    let mut room = reserve(receiver, declared.unwrap_or(UNDECLARED_BYTES.min(max))).await?;
    let mut bytes = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(data) = next_data(&mut body).await? {
        let len = first.as_ref().map_or(bytes.len(), Bytes::len) + data.len();
        if len > max {
            return Err(too_large());
        }
        if declared.is_none_or(|declared| len > declared) {
            room.try_raise(len).map_err(|NoRoom| overloaded())?;
        }
        // A body in one piece is passed on as it came, without a copy.
        if bytes.is_empty() && first.is_none() {
            if body.is_end_stream() {
                return Ok(HeldBody { bytes: data, room });
            }
            first = Some(data);
            continue;
        }
        if let Some(first) = first.take() {
            bytes.reserve(declared.unwrap_or(len).max(len));
            bytes.extend_from_slice(&first);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(HeldBody { bytes: first.unwrap_or_else(|| bytes.freeze()), room })
}

/// The next piece of data; trailers are skipped.
async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = tokio::time::timeout(SILENCE_MAX, body.frame())
            .await
            .map_err(|_| Refusal::BadData(format!("no data for {} s", SILENCE_MAX.as_secs())))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Refusal::BadData(format!("the body broke off: {error}"))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Decompresses a held body to at most `max` bytes.
pub fn decompress(encoding: Encoding, held: HeldBody, max: usize) -> Result<HeldBody, Refusal> {
    let HeldBody { bytes, mut room } = held;
    match inflate(encoding, bytes, max, &mut room) {
        Ok(bytes) => Ok(HeldBody { bytes, room }),
        Err(InflateError::NoRoom) => Err(overloaded()),
        Err(error @ InflateError::TooLarge { .. }) => Err(Refusal::TooLarge(error.to_string())),
        Err(error @ InflateError::Corrupt { .. }) => Err(Refusal::BadData(error.to_string())),
    }
}

async fn reserve(receiver: &Receiver, bytes: usize) -> Result<Reservation, Refusal> {
    receiver.admission.reserve(bytes).await.map_err(|NoRoom| overloaded())
}

pub(super) fn overloaded() -> Refusal {
    Refusal::Unavailable { message: "too many bytes in flight".to_owned(), retry_after: RETRY_AFTER }
}

fn declared_len(headers: &HeaderMap) -> Option<usize> {
    headers.get(::http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
