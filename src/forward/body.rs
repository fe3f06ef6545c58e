//! Request bodies: stored frames passed through as they are, or inflated and encoded anew.
//!
//! Two facts make the common case free: protobuf messages with a repeated top field concatenate, and zstd frames
//! concatenate. So the frames of consecutive batches, end to end, are one zstd body of one request, and a body is a
//! list of slices that are written one after the other: no copy, no inflation.

use super::settings::Compression;
use crate::otlp::items::request_of;
use crate::otlp::{self, Signal};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

/// zstd level of what is encoded anew: 1 is what the spool uses; higher levels buy 5 % for several times the CPU.
const ZSTD_LEVEL: i32 = 1;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Zstd,
    Gzip,
    Snappy,
    Identity,
    Zlib,
    Deflate,
    SnappyFramed,
    Lz4,
}

impl Codec {
    /// The name in `grpc-encoding` and `Content-Encoding`; `None` where the header is left out.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::Snappy => Some("snappy"),
            Self::Identity => None,
            Self::Zlib => Some("zlib"),
            Self::Deflate => Some("deflate"),
            Self::SnappyFramed => Some("x-snappy-framed"),
            Self::Lz4 => Some("lz4"),
        }
    }
}

/// What a destination's bodies are made of: protobuf or JSON, and which dialect of snappy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OTLP/gRPC; snappy is the framed format, as in the Collector's gRPC codec.
    Grpc,
    /// OTLP/HTTP with protobuf; snappy is the raw block format.
    HttpProtobuf,
    HttpJson,
    /// Protobuf, never compressed: for exporters that look inside.
    Plain,
}

/// The codec in use: as configured, or the best one that the destination has not refused yet.
#[derive(Debug)]
pub(super) struct CodecChoice {
    is_auto: bool,
    /// Index into [`CodecChoice::ORDER`].
    current: AtomicU8,
}

impl CodecChoice {
    /// Best first. Those behind none at all are only used when asked for.
    const ORDER: [Codec; 8] = [
        Codec::Zstd,
        Codec::Gzip,
        Codec::Identity,
        Codec::Snappy,
        Codec::Zlib,
        Codec::Deflate,
        Codec::SnappyFramed,
        Codec::Lz4,
    ];

    pub(super) fn new(compression: Compression) -> Self {
        let current = match compression {
            Compression::Auto | Compression::Zstd => 0,
            Compression::Gzip => 1,
            Compression::None => 2,
            Compression::Snappy => 3,
            Compression::Zlib => 4,
            Compression::Deflate => 5,
            Compression::SnappyFramed => 6,
            Compression::Lz4 => 7,
        };
        Self { is_auto: compression == Compression::Auto, current: AtomicU8::new(current) }
    }

    pub(super) fn current(&self) -> Codec {
        let index = usize::from(self.current.load(Ordering::Relaxed));
        Self::ORDER.get(index).copied().unwrap_or(Codec::Identity)
    }

    /// The destination refused `refused`. `Some`: what to use from now on, and whether this call made the change.
    /// `None`: nothing is left to try.
    pub(super) fn lower(&self, refused: Codec) -> Option<(Codec, bool)> {
        let next = match refused {
            Codec::Zstd => 1,
            Codec::Gzip => 2,
            _ => return None,
        };
        if !self.is_auto {
            return None;
        }
        let is_changed = self.current.fetch_max(next, Ordering::Relaxed) < next;
        Some((self.current(), is_changed))
    }
}

/// One request's body, ready to be sent any number of times.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) codec: Codec,
    pub(super) segments: Vec<Bytes>,
    pub(super) spans: u64,
}

impl Body {
    /// Bytes that are compressed already.
    pub(super) fn of_block(block: Bytes, codec: Codec) -> Self {
        Self { codec, segments: vec![block], spans: 0 }
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }
}

/// A body could not be made of what was read from disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("a stored frame does not inflate to the {expected} bytes that its header promises: {problem}")]
    Frame { expected: usize, problem: String },
    #[error("the stored request is not well-formed: {0}")]
    Json(#[from] otlp::wire::WireError),
    #[error("compressing failed: {0}")]
    Compress(#[from] std::io::Error),
}

/// Inflates one stored frame. Blocking: call it off the async workers.
///
/// # Errors
/// [`BodyError::Frame`] if the frame is broken or is not as long as its header says.
pub(super) fn inflate(frame: &[u8], raw_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let broken = |problem: String| BodyError::Frame { expected: raw_bytes, problem };
    // The header's length bounds what is allocated and inflated.
    let raw = zstd::bulk::decompress(frame, raw_bytes).map_err(|error| broken(error.to_string()))?;
    if raw.len() == raw_bytes { Ok(raw) } else { Err(broken(format!("it has {} bytes", raw.len()))) }
}

/// Encodes a protobuf request of a signal. Blocking: call it off the async workers.
///
/// # Errors
/// [`BodyError::Json`] if the request cannot be written as JSON.
pub(super) fn encode(
    raw: Bytes,
    signal: Signal,
    spans: u64,
    dialect: Dialect,
    codec: Codec,
) -> Result<Body, BodyError> {
    let plain = match dialect {
        Dialect::HttpJson => otlp::json::message_to_json(request_of(signal), &raw)?.into(),
        _ => raw,
    };
    let encoded = match (codec, dialect) {
        (Codec::Identity, _) => plain,
        (Codec::Zstd, _) => zstd_frame(&plain)?,
        (Codec::Gzip, _) => {
            let out = Vec::with_capacity(plain.len() / 4);
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            encoder.write_all(&plain)?;
            encoder.finish()?.into()
        }
        (Codec::Zlib | Codec::Deflate, _) => {
            let out = Vec::with_capacity(plain.len() / 4);
            let mut encoder = flate2::write::ZlibEncoder::new(out, flate2::Compression::fast());
            encoder.write_all(&plain)?;
            encoder.finish()?.into()
        }
        (Codec::Lz4, _) => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(plain.len() / 2));
            encoder.write_all(&plain)?;
            encoder.finish().map_err(std::io::Error::other)?.into()
        }
        (Codec::SnappyFramed, _) | (Codec::Snappy, Dialect::Grpc) => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::with_capacity(plain.len() / 2));
            encoder.write_all(&plain)?;
            encoder.into_inner().map_err(|error| std::io::Error::other(error.to_string()))?.into()
        }
        (Codec::Snappy, _) => snap::raw::Encoder::new().compress_vec(&plain).map_err(std::io::Error::other)?.into(),
    };
    Ok(Body { codec, segments: vec![encoded], spans })
}

/// One zstd frame of a request.
pub(super) fn zstd_frame(raw: &[u8]) -> Result<Bytes, std::io::Error> {
    zstd::bulk::compress(raw, ZSTD_LEVEL).map(Bytes::from)
}

/// Slices written one after the other: the body that hyper sends.
#[derive(Debug)]
pub(super) struct Segments {
    rest: std::vec::IntoIter<Bytes>,
    bytes_left: u64,
}

impl Segments {
    pub(super) fn new(segments: Vec<Bytes>) -> Self {
        let bytes_left = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { rest: segments.into_iter(), bytes_left }
    }
}

impl http_body::Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let segment = self.rest.next();
        self.bytes_left -= segment.as_ref().map_or(0, |segment| segment.len() as u64);
        Poll::Ready(segment.map(|segment| Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_codec_comes_back_as_it_went() {
        let raw = Bytes::from(b"span ".repeat(1000));
        for (dialect, codec) in [
            (Dialect::Grpc, Codec::Zstd),
            (Dialect::Grpc, Codec::Gzip),
            (Dialect::Grpc, Codec::Snappy),
            (Dialect::Grpc, Codec::Identity),
            (Dialect::HttpProtobuf, Codec::Snappy),
            (Dialect::HttpProtobuf, Codec::SnappyFramed),
            (Dialect::HttpProtobuf, Codec::Zlib),
            (Dialect::HttpProtobuf, Codec::Deflate),
            (Dialect::HttpProtobuf, Codec::Lz4),
        ] {
            let body = encode(raw.clone(), Signal::Traces, 1, dialect, codec).unwrap();
            let encoded = body.segments.concat();
            let mut back = Vec::new();
            match (codec, dialect) {
                (Codec::Zstd, _) => back = inflate(&encoded, raw.len()).unwrap(),
                (Codec::Gzip, _) => {
                    flate2::read::GzDecoder::new(&*encoded).read_to_end(&mut back).unwrap();
                }
                (Codec::Zlib | Codec::Deflate, _) => {
                    flate2::read::ZlibDecoder::new(&*encoded).read_to_end(&mut back).unwrap();
                }
                (Codec::Lz4, _) => {
                    lz4_flex::frame::FrameDecoder::new(&*encoded).read_to_end(&mut back).unwrap();
                }
                (Codec::SnappyFramed, _) | (Codec::Snappy, Dialect::Grpc) => {
                    snap::read::FrameDecoder::new(&*encoded).read_to_end(&mut back).unwrap();
                }
                (Codec::Snappy, _) => back = snap::raw::Decoder::new().decompress_vec(&encoded).unwrap(),
                (Codec::Identity, _) => back = encoded,
            }
            assert_eq!(back, raw, "{dialect:?} {codec:?}");
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_length_is_damaged() {
        let frame = zstd_frame(&[7; 100]).unwrap();
        assert!(inflate(&frame, 100).is_ok());
        assert!(inflate(&frame, 99).is_err());
        assert!(inflate(&frame, 101).is_err());
        assert!(inflate(&frame[..frame.len() - 1], 100).is_err());
    }

    #[test]
    fn refused_codecs_are_not_tried_again() {
        let choice = CodecChoice::new(Compression::Auto);
        assert_eq!(choice.lower(Codec::Zstd), Some((Codec::Gzip, true)));
        // A second request that was under way with zstd hears of it too, but changes nothing.
        assert_eq!(choice.lower(Codec::Zstd), Some((Codec::Gzip, false)));
        assert_eq!(choice.lower(Codec::Gzip), Some((Codec::Identity, true)));
        assert_eq!(choice.lower(Codec::Zstd), Some((Codec::Identity, false)));
        assert_eq!(choice.lower(Codec::Identity), None);
        assert_eq!(CodecChoice::new(Compression::Zstd).lower(Codec::Zstd), None);
    }
}
