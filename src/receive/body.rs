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
use tokio::time::Instant;

/// A body has this long to arrive, and a second more for every [`BYTES_PER_SECOND_MIN`] that came: a client that drips
/// must not hold room for long.
const ARRIVAL_GRACE: Duration = Duration::from_secs(15);
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Reserved before anything has come, whatever length is declared: a declaration costs the client nothing, and those who
/// say no more must not hold the room that others need. Raised as the body grows.
const FIRST_BYTES: usize = 4 * 1024;
/// Up to this length a body is converted at once: that takes a millisecond, and handing it over is not free either.
const WORKED_IN_PLACE_BYTES_MAX: usize = 64 * 1024;
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
    let mut reserved = declared.unwrap_or(max).min(FIRST_BYTES);
    let mut room = reserve(receiver, reserved).await?;
    let started = Instant::now();
    let mut bytes = BytesMut::new();
    let mut first: Option<Bytes> = None;
    let mut len = 0;
    while let Some(data) = next_data(&mut body, started, len).await? {
        len += data.len();
        if len > max {
            return Err(too_large());
        }
        if len > reserved {
            let is_first = bytes.is_empty() && first.is_none();
            reserved = (len * 2).min(declared.unwrap_or(max)).max(len);
            // Who holds next to nothing may wait for room as long as one who just came.
            let raised = if is_first { room.raise_from_little(reserved).await } else { room.raise(reserved).await };
            raised.map_err(|NoRoom| overloaded())?;
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
            bytes.extend_from_slice(&first);
        }
        if bytes.capacity() < len {
            bytes.reserve(reserved - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(HeldBody { bytes: first.unwrap_or_else(|| bytes.freeze()), room })
}

/// The next piece of data; trailers are skipped. `len` bytes have come since `started`.
async fn next_data(body: &mut Incoming, started: Instant, len: usize) -> Result<Option<Bytes>, Refusal> {
    let deadline = started + ARRIVAL_GRACE + Duration::from_secs(len as u64 / BYTES_PER_SECOND_MIN);
    loop {
        let frame = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| {
            Refusal::BadData(format!("the body arrives too slowly: {len} bytes in {} s", started.elapsed().as_secs()))
        })?;
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

/// Works on a held body where that keeps no other connection waiting. What it takes is paid for until the work is done,
/// also if the client goes away meanwhile.
pub async fn work<T: Send + 'static>(
    held: HeldBody,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> (T, Reservation) {
    let HeldBody { bytes, room } = held;
    if bytes.len() <= WORKED_IN_PLACE_BYTES_MAX {
        return (work(&bytes), room);
    }
    match tokio::task::spawn_blocking(move || (work(&bytes), room)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
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

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::*;

    /// On one thread: done in place, the work would wait for what comes after it.
    #[tokio::test]
    async fn a_large_body_is_worked_on_beside_the_connections() {
        let (tell, told) = std::sync::mpsc::channel();
        let room = Admission::new(1 << 20).reserve(1).await.unwrap();
        let held = HeldBody { bytes: vec![0; WORKED_IN_PLACE_BYTES_MAX + 1].into(), room };
        let worked = work(held, move |body| (body.len(), told.recv_timeout(Duration::from_secs(60)).is_ok()));
        let other = async { tell.send(()).unwrap() };
        let ((done, _), ()) = tokio::join!(worked, other);
        assert_eq!(done, (WORKED_IN_PLACE_BYTES_MAX + 1, true));
    }
}
