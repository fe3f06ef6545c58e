//! The shell of everything in the `column` family: a version, and zstd where it pays.
//!
//! ```text
//! version u8   method u8   0: payload
//!                          1: raw length varint, zstd frame
//! ```

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use super::{FormatError, Reader};
use crate::otlp::wire::{put_varint, varint_len};

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// zstd's default: columns are packed before, so compressing them is little beside the rest of sealing.
const ZSTD_LEVEL: i32 = 3;
/// Compressed bytes must be fewer by this share, or they are not worth inflating at each read.
const GAIN_MIN: usize = 16;
/// A frame that claims to hold more than this many times its own bytes is not read: see [`Packer::pack`].
const RATIO_MAX: usize = 1024;
/// Below this the ratio is not asked: a constant column is a few bytes.
const RAW_BYTES_FREE: usize = 256 * 1024;

/// Makes chunks; keeps what zstd needs between them.
pub struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    frame: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        // Without a compressor (no memory for it) chunks are plain.
        Self { compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(), frame: Vec::new() }
    }
}

impl Packer {
    pub fn pack(&mut self, raw: &[u8]) -> Vec<u8> {
        if self.compress(raw) {
            let mut out = Vec::with_capacity(2 + varint_len(raw.len() as u64) + self.frame.len());
            out.extend_from_slice(&[VERSION, ZSTD]);
            put_varint(&mut out, raw.len() as u64);
            out.extend_from_slice(&self.frame);
            return out;
        }
        Self::plain(raw)
    }

    /// Without trying to compress.
    pub fn plain(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + raw.len());
        out.extend_from_slice(&[VERSION, PLAIN]);
        out.extend_from_slice(raw);
        out
    }

    fn compress(&mut self, raw: &[u8]) -> bool {
        let Some(compressor) = &mut self.compressor else { return false };
        self.frame.clear();
        self.frame.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        compressor
            .compress_to_buffer(raw, &mut self.frame)
            .is_ok_and(|len| len + len / GAIN_MIN < raw.len() && inflates_to(len, raw.len()))
    }
}

/// Whether a frame of `len` bytes may hold `raw_len`.
fn inflates_to(len: usize, raw_len: usize) -> bool {
    raw_len <= RAW_BYTES_FREE || raw_len / RATIO_MAX <= len
}

/// Opens chunks; shared by all readers of a store.
#[derive(Default)]
pub struct Unpacker {
    /// Contexts that nobody uses now: making one costs more than inflating a small chunk.
    idle: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

/// Contexts kept while nobody uses them, about 150 KiB each.
const IDLE_MAX: usize = 4;

impl Unpacker {
    /// The payload of a chunk.
    ///
    /// # Errors
    /// The chunk is damaged or newer than this version.
    pub fn unpack<'a>(&self, chunk: &'a [u8]) -> Result<Cow<'a, [u8]>, FormatError> {
        let damaged = FormatError::Damaged("chunk");
        match chunk {
            [VERSION, PLAIN, payload @ ..] => Ok(Cow::Borrowed(payload)),
            [VERSION, ZSTD, rest @ ..] => {
                let mut reader = Reader::new(rest);
                let raw_len = reader.length().ok_or(damaged)?;
                if !inflates_to(reader.left(), raw_len) {
                    return Err(damaged);
                }
                let raw = self.inflate(reader.rest(), raw_len).ok_or(damaged)?;
                if raw.len() == raw_len { Ok(Cow::Owned(raw)) } else { Err(damaged) }
            }
            [VERSION, ..] | [] => Err(damaged),
            [version, ..] => Err(FormatError::Version(*version)),
        }
    }

    fn inflate(&self, frame: &[u8], raw_len: usize) -> Option<Vec<u8>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = match idle {
            Some(context) => context,
            None => zstd::bulk::Decompressor::new().ok()?,
        };
        let raw = context.decompress(frame, raw_len);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(context);
        }
        raw.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_payload_comes_back(payload: Vec<u8>, repeated in 0..2000usize) {
            let raw = payload.repeat(repeated.min(100_000 / payload.len().max(1)));
            let mut packer = Packer::default();
            let unpacker = Unpacker::default();
            for chunk in [packer.pack(&raw), Packer::plain(&raw)] {
                prop_assert_eq!(&*unpacker.unpack(&chunk).unwrap(), &raw[..]);
            }
        }

        #[test]
        fn any_bytes_are_opened_or_refused(mut bytes: Vec<u8>, method in 0u8..3) {
            bytes.splice(0..0, [VERSION, method]);
            if let Ok(payload) = Unpacker::default().unpack(&bytes) {
                prop_assert!(payload.len() <= RAW_BYTES_FREE.max(bytes.len() * (RATIO_MAX + 1)));
            }
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        assert_eq!(Unpacker::default().unpack(&[VERSION + 1, 0]), Err(FormatError::Version(VERSION + 1)));
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_inflated() {
        let mut chunk = vec![VERSION, ZSTD];
        put_varint(&mut chunk, 1 << 40);
        chunk.extend_from_slice(&[0; 100]);
        assert_eq!(Unpacker::default().unpack(&chunk), Err(FormatError::Damaged("chunk")));
    }
}
