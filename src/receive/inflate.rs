//! Content encodings of request bodies, with the size limit enforced before memory is taken.

use super::admission::Reservation;
use bytes::Bytes;
use std::cell::RefCell;
use std::io::Read;
use thiserror::Error;

/// zstd windows beyond 8 MiB are refused (RFC 8878 asks decoders for 8 MiB; a tiny frame may demand gigabytes).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Output grows in steps of this size where its length is not known beforehand.
const STEP_BYTES: usize = 64 * 1024;
/// The first bytes of a framed snappy stream; a block has none.
const SNAPPY_FRAMED_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// A supported content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
    /// The zlib format, as HTTP means it.
    Deflate,
    /// Block or framed, told apart by the framing magic.
    Snappy,
    /// Frames.
    Lz4,
}

/// Names as clients may be told them.
pub const SUPPORTED: &str = "identity, gzip, zstd, deflate, snappy, lz4";

#[derive(Debug, Error)]
pub enum InflateError {
    #[error("the body is larger than {max} bytes after decompression")]
    TooLarge { max: usize },
    #[error("the body is not valid {encoding}: {problem}")]
    Corrupt { encoding: &'static str, problem: String },
    #[error("no memory for the body right now")]
    NoRoom,
}

impl Encoding {
    /// From `Content-Encoding` or `grpc-encoding`, in any case (RFC 9110, 8.4.1); `None` for one that is not supported.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" | "none" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "deflate" | "zlib" => Some(Self::Deflate),
            "snappy" | "x-snappy-framed" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
        }
    }

    fn corrupt(self, problem: impl ToString) -> InflateError {
        InflateError::Corrupt { encoding: self.name(), problem: problem.to_string() }
    }
}

/// Decompresses `body` to at most `max` bytes; what is allocated is reserved first.
pub fn inflate(encoding: Encoding, body: Bytes, max: usize, room: &mut Reservation) -> Result<Bytes, InflateError> {
    let wire_len = body.len();
    match encoding {
        Encoding::Identity if wire_len > max => Err(InflateError::TooLarge { max }),
        Encoding::Identity => Ok(body),
        Encoding::Gzip => {
            let size = gzip_size_hint(&body).filter(|size| *size <= max);
            read_all(encoding, flate2::bufread::MultiGzDecoder::new(&*body), wire_len, size, max, room)
        }
        Encoding::Deflate => read_all(encoding, flate2::bufread::ZlibDecoder::new(&*body), wire_len, None, max, room),
        Encoding::Zstd => inflate_zstd(&body, max, room),
        Encoding::Lz4 => read_all(encoding, lz4_flex::frame::FrameDecoder::new(&*body), wire_len, None, max, room),
        Encoding::Snappy if body.starts_with(SNAPPY_FRAMED_MAGIC) => {
            read_all(encoding, snap::read::FrameDecoder::new(&*body), wire_len, None, max, room)
        }
        Encoding::Snappy => {
            let size = snap::raw::decompress_len(&body).map_err(|error| encoding.corrupt(error))?;
            let mut out = sized(size, wire_len, max, room)?;
            snap::raw::Decoder::new().decompress(&body, &mut out).map_err(|error| encoding.corrupt(error))?;
            Ok(out.into())
        }
    }
}

/// A zeroed buffer of a size that the sender declared.
fn sized(size: usize, wire_len: usize, max: usize, room: &mut Reservation) -> Result<Vec<u8>, InflateError> {
    if size > max {
        return Err(InflateError::TooLarge { max });
    }
    room.try_raise(wire_len + size).map_err(|_| InflateError::NoRoom)?;
    Ok(vec![0; size])
}

fn inflate_zstd(body: &Bytes, max: usize, room: &mut Reservation) -> Result<Bytes, InflateError> {
    thread_local! {
        /// Contexts are reused: making one costs more than inflating a small body.
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let encoding = Encoding::Zstd;
    // One frame of known size is the common case. Several frames, or an unknown size, are read as a stream.
    let whole = zstd::zstd_safe::find_frame_compressed_size(body).is_ok_and(|len| len == body.len());
    if let (true, Ok(Some(size))) = (whole, zstd::zstd_safe::get_frame_content_size(body)) {
        let size = usize::try_from(size).map_err(|_| InflateError::TooLarge { max })?;
        let mut out = sized(size, body.len(), max, room)?;
        let written = DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Some(zstd::bulk::Decompressor::new()?);
            }
            slot.as_mut().map_or(Ok(0), |decompressor| decompressor.decompress_to_buffer(body, out.as_mut_slice()))
        });
        let written = written.map_err(|error| encoding.corrupt(error))?;
        out.truncate(written);
        return Ok(out.into());
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&**body).map_err(|error| encoding.corrupt(error))?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| encoding.corrupt(error))?;
    read_all(encoding, decoder, body.len(), None, max, room)
}

/// Reads to the end, growing step by step within limit and reservation.
fn read_all(
    encoding: Encoding,
    mut decoder: impl Read,
    wire_len: usize,
    size_hint: Option<usize>,
    max: usize,
    room: &mut Reservation,
) -> Result<Bytes, InflateError> {
    let mut out: Vec<u8> = Vec::new();
    let mut filled = 0;
    loop {
        if filled == out.len() {
            // Doubling keeps copies few; one byte beyond the limit shows that there is more.
            let grown = match size_hint {
                Some(size) if filled == 0 => size + 1,
                _ => (out.len() * 2).max(STEP_BYTES),
            };
            let grown = grown.min(max + 1);
            if grown == filled {
                return Err(InflateError::TooLarge { max });
            }
            room.try_raise(wire_len + grown).map_err(|_| InflateError::NoRoom)?;
            out.reserve_exact(grown - filled);
            out.resize(grown, 0);
        }
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(encoding.corrupt(error)),
        }
    }
    if filled > max {
        return Err(InflateError::TooLarge { max });
    }
    out.truncate(filled);
    Ok(out.into())
}

/// The last four bytes of a gzip member say its size; only a hint, as members can follow one another.
fn gzip_size_hint(body: &[u8]) -> Option<usize> {
    let tail: [u8; 4] = body.get(body.len().checked_sub(4)?..)?.try_into().ok()?;
    Some(u32::from_le_bytes(tail) as usize)
}

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::*;
    use std::io::Write;

    const ALL: [Encoding; 6] =
        [Encoding::Identity, Encoding::Gzip, Encoding::Zstd, Encoding::Deflate, Encoding::Snappy, Encoding::Lz4];

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Encoding::from_name("GZIP"), Some(Encoding::Gzip));
        assert_eq!(Encoding::from_name(" X-Gzip "), Some(Encoding::Gzip));
        assert_eq!(Encoding::from_name("Br"), None);
    }

    fn deflate(encoding: Encoding, raw: &[u8]) -> Bytes {
        match encoding {
            Encoding::Identity => raw.to_vec(),
            Encoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(raw).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(raw).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::bulk::compress(raw, 1).unwrap(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(raw).unwrap(),
            Encoding::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(raw).unwrap();
                encoder.finish().unwrap()
            }
        }
        .into()
    }

    async fn room() -> Reservation {
        Admission::new(64 << 20).reserve(1).await.unwrap()
    }

    #[tokio::test]
    async fn every_encoding_gives_the_bytes_back_up_to_the_limit() {
        for size in [0, 1, 1000, 300_000] {
            let raw: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            for encoding in ALL {
                let body = deflate(encoding, &raw);
                let out = inflate(encoding, body.clone(), size, &mut room().await).unwrap();
                assert_eq!(out, raw, "{encoding:?}");
                if size > 0 {
                    let error = inflate(encoding, body, size - 1, &mut room().await).unwrap_err();
                    assert!(matches!(error, InflateError::TooLarge { .. }), "{encoding:?} {size}: {error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn joined_frames_and_framed_snappy_are_read() {
        let two = [deflate(Encoding::Zstd, b"one"), deflate(Encoding::Zstd, b"two")].concat();
        assert_eq!(inflate(Encoding::Zstd, two.into(), 6, &mut room().await).unwrap(), "onetwo");
        let two = [deflate(Encoding::Gzip, b"one"), deflate(Encoding::Gzip, b"two")].concat();
        assert_eq!(inflate(Encoding::Gzip, two.into(), 6, &mut room().await).unwrap(), "onetwo");
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        framed.write_all(b"framed").unwrap();
        let framed = framed.into_inner().unwrap();
        assert_eq!(inflate(Encoding::Snappy, framed.into(), 6, &mut room().await).unwrap(), "framed");
    }

    #[tokio::test]
    async fn bombs_and_truncation_are_refused_without_the_memory() {
        let admission = Admission::new(1 << 20);
        for encoding in ALL.into_iter().skip(1) {
            let bomb = deflate(encoding, &vec![0; 50 << 20]);
            if bomb.len() < 1 << 20 {
                let mut room = admission.reserve(bomb.len()).await.unwrap();
                assert!(inflate(encoding, bomb, 4 << 20, &mut room).is_err(), "{encoding:?}");
            }
            let mut cut = deflate(encoding, &[7; 5000]).to_vec();
            cut.truncate(cut.len() / 2);
            let error = inflate(encoding, cut.into(), 1 << 20, &mut room().await).unwrap_err();
            assert!(matches!(error, InflateError::Corrupt { .. }), "{encoding:?}: {error}");
        }
    }
}
