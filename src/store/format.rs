//! How spans lie in a sealed run, byte by byte. Pure functions of slices: nothing here touches the disk.
//!
//! ```text
//! trace    hour, run, segment, trace id ─▶ piece: what is left of the trace's spans, see `piece`
//! column   hour, run, segment, kind, ...─▶ chunk: version, method, one column or a slice of it
//!            ids, starts, durations, parents   by slices of 8192 rows, so that a trace is read without the whole column
//!            codes, dictionaries, traces, ...  whole
//!            words                             by pages of 256: byte strings that many spans share
//! ```
//!
//! A fact is stored once: span ids, times and parents lie in columns alone, and a piece holds what no column has. A span
//! comes back byte for byte; where taking it apart and putting it together would give other bytes, it is kept whole.
//!
//! Invariants: what an encoder wrote its decoder reads; any other bytes are refused or decoded to something, without a
//! panic, and without allocating more than their length, or the number of rows that the caller expects, justifies.
//! Checksums are RocksDB's, per block of a table file.

pub mod chunk;
pub mod codes;
pub mod columns;
pub mod dictionary;
pub mod envelopes;
pub mod key;
pub mod numbers;
pub mod piece;
pub mod placed;
mod span;
pub mod words;

pub use span::{Counter, Known, Writer};

use thiserror::Error;

/// Bytes of a run are not what they should be: a damaged disk, or a version that this one does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("a chunk of format {0}, which this version does not know")]
    Version(u8),
    #[error("damaged {0}")]
    Damaged(&'static str),
}

/// Reads a slice from its front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        match self.bytes {
            // Most are short.
            [byte @ ..0x80, rest @ ..] => {
                self.bytes = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (index, byte) in self.bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
            value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
            if *byte < 0x80 {
                self.bytes = &self.bytes[index + 1..];
                return Some(value);
            }
        }
        None
    }

    /// A varint that counts or measures something in memory.
    pub fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// A length, and so many bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.length()?;
        self.take(len)
    }

    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }
}

const VARINT_BYTES_MAX: usize = 10;

/// A length, and the bytes.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    crate::otlp::wire::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
