//! Length-prefixed messages (gRPC over HTTP/2).

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::status::{Code, Status};
use crate::query::admission::{Answer, Room};
use crate::query::body::PIECE_BYTES;
use crate::query::call::QUERY_BYTES_MAX;
use crate::query::negotiation::{PARTIAL_HEADER, partial_header};
use crate::query::upstream::Away;
use crate::receive::framing::{self, FrameError, Framed, PREFIX_LEN};

/// A request is a query and little else.
const REQUEST_BYTES_MAX: usize = 2 * QUERY_BYTES_MAX;

/// A client that takes longer to send its query has gone.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(30);

/// How the messages of a request are compressed, if their flags say that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    /// Nothing that is understood here, or none.
    Other,
}

impl Compression {
    pub fn of(headers: &HeaderMap) -> Self {
        let is_gzip = headers.get("grpc-encoding").is_some_and(|encoding| encoding.as_bytes() == b"gzip");
        if is_gzip { Self::Gzip } else { Self::Other }
    }
}

/// Reads the one message of a request.
pub async fn read(body: Body, compression: Compression) -> Result<Bytes, Status> {
    let collected = Limited::new(body, PREFIX_LEN + REQUEST_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(REQUEST_WAIT_MAX, collected).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(Status::new(Code::Canceled, "the request was cut off".to_owned())),
        Err(_) => return Err(Status::new(Code::Canceled, "the request did not come to its end".to_owned())),
    };
    unframe(bytes, compression)
}

fn unframe(bytes: Bytes, compression: Compression) -> Result<Bytes, Status> {
    match framing::unframe(bytes, REQUEST_BYTES_MAX) {
        Ok(Framed { is_compressed: false, message }) => Ok(message),
        Ok(Framed { message, .. }) if compression == Compression::Gzip => inflate(&message),
        Ok(_) => Err(Status::new(
            Code::Unimplemented,
            "of compressed gRPC messages only those with gzip are taken".to_owned(),
        )),
        Err(FrameError::TooLarge { .. }) => Err(too_large()),
        Err(malformed) => Err(Status::new(Code::InvalidArgument, malformed.to_string())),
    }
}

fn inflate(message: &[u8]) -> Result<Bytes, Status> {
    let mut inflated = Vec::new();
    let read = MultiGzDecoder::new(message).take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut inflated);
    match read {
        Ok(_) if inflated.len() > REQUEST_BYTES_MAX => Err(too_large()),
        Ok(_) => Ok(inflated.into()),
        Err(error) => Err(Status::new(Code::InvalidArgument, format!("the gRPC message cannot be inflated: {error}"))),
    }
}

fn too_large() -> Status {
    let text = format!("grpc: received message larger than max {REQUEST_BYTES_MAX}");
    Status::new(Code::ResourceExhausted, text)
}

/// A message with its prefix, in pieces: a client that takes little at a time then keeps a piece in the buffers of its
/// connection, and not all of it.
pub fn frame(message: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    // Messages are cut long before this.
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let (first, rest) = message.split_at(message.len().min(PIECE_BYTES - PREFIX_LEN));
    let mut begun = Vec::with_capacity(PREFIX_LEN + first.len());
    begun.push(0);
    begun.extend_from_slice(&len.to_be_bytes());
    begun.extend_from_slice(first);
    std::iter::once(begun).chain(rest.chunks(PIECE_BYTES).map(<[u8]>::to_vec))
}

/// The last messages of an answer, with the room they take.
#[derive(Debug)]
pub struct Messages {
    messages: Vec<Vec<u8>>,
    missing: Option<Away>,
    room: Option<Room>,
}

impl Messages {
    pub fn new(messages: Vec<Vec<u8>>) -> Self {
        Self { messages, missing: None, room: None }
    }

    /// What the messages have no place for: who does not answer, though something may be there.
    pub fn missing(self, missing: Option<Away>) -> Self {
        Self { missing, ..self }
    }

    /// Trailers beside the status.
    pub fn put_trailers(&self, trailers: &mut HeaderMap) {
        if let Some(away) = &self.missing {
            trailers.insert(PARTIAL_HEADER, partial_header(away));
        }
    }

    /// The messages, and the room that they take.
    pub fn into_parts(self) -> (Vec<Vec<u8>>, Option<Room>) {
        (self.messages, self.room)
    }
}

impl Answer for Messages {
    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| PREFIX_LEN + message.len()).sum()
    }

    fn hold(&mut self, room: Room) {
        self.room = Some(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn deflated(message: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(message).unwrap();
        let packed = encoder.finish().unwrap();
        let len = u32::try_from(packed.len()).unwrap().to_be_bytes();
        [&[1], &len[..], &packed].concat().into()
    }

    #[test]
    fn a_small_message_does_not_become_a_large_one() {
        let error = unframe(deflated(&vec![b' '; REQUEST_BYTES_MAX + 1]), Compression::Gzip).unwrap_err();
        assert_eq!(error, too_large());
        assert!(unframe(deflated(&vec![b' '; REQUEST_BYTES_MAX]), Compression::Gzip).is_ok());
        assert!(unframe(deflated(b"x"), Compression::Other).is_err());
    }

    fn whole(message: &[u8]) -> Bytes {
        frame(message).collect::<Vec<_>>().concat().into()
    }

    #[test]
    fn a_long_message_comes_in_pieces() {
        let message: Vec<u8> = (0..3 * PIECE_BYTES).map(|at| at as u8).collect();
        let pieces: Vec<Vec<u8>> = frame(&message).collect();
        assert!(pieces.len() == 4 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat()[PREFIX_LEN..], message);
    }

    proptest! {
        #[test]
        fn what_was_compressed_is_read_back(message: Vec<u8>) {
            prop_assert_eq!(unframe(deflated(&message), Compression::Gzip).unwrap(), Bytes::from(message));
        }

        #[test]
        fn what_is_framed_is_read_back(message: Vec<u8>) {
            prop_assert_eq!(unframe(whole(&message), Compression::Other).unwrap(), Bytes::from(message));
        }

        #[test]
        fn a_truncated_frame_is_refused(message: Vec<u8>, missing: proptest::sample::Index) {
            let whole = whole(&message);
            let cut = whole.slice(..missing.index(whole.len()));
            prop_assert!(unframe(cut, Compression::Other).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (unframe(bytes.clone().into(), Compression::Other), unframe(bytes.into(), Compression::Gzip));
        }
    }
}
