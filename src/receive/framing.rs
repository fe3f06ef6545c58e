//! The one message of a unary gRPC call (gRPC over HTTP/2: "Length-Prefixed-Message").

use bytes::Bytes;
use thiserror::Error;

/// Compressed flag and length.
pub const PREFIX_LEN: usize = 5;

/// A message without its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed {
    pub is_compressed: bool,
    pub message: Bytes,
}

/// Why a body is not one message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a gRPC message begins with {PREFIX_LEN} bytes, got {0}")]
    Prefix(usize),
    #[error("a gRPC message of {announced} bytes was announced, at most {max} are taken")]
    TooLarge { announced: usize, max: usize },
    #[error("a gRPC message of {announced} bytes was announced, {came} came")]
    Length { announced: usize, came: usize },
    #[error("compressed flag {0} of a gRPC message is neither 0 nor 1")]
    Flag(u8),
}

/// Takes the prefix off a body that is one message of at most `max` bytes.
pub fn unframe(mut body: Bytes, max: usize) -> Result<Framed, FrameError> {
    let Some([flag, length @ ..]) = body.first_chunk::<PREFIX_LEN>().copied() else {
        return Err(FrameError::Prefix(body.len()));
    };
    let announced = u32::from_be_bytes(length) as usize;
    if announced > max {
        return Err(FrameError::TooLarge { announced, max });
    }
    let message = body.split_off(PREFIX_LEN);
    if message.len() != announced {
        return Err(FrameError::Length { announced, came: message.len() });
    }
    match flag {
        0 | 1 => Ok(Framed { is_compressed: flag == 1, message }),
        flag => Err(FrameError::Flag(flag)),
    }
}
