//! One batch: its number, its fixed header, its frame.
//!
//! ```text
//! offset  0      1..4      4..8        8..12   12..14     14..16    16..24          24..32     32..40     40..48
//!         version signal   raw bytes   spans   pipeline   reserved  spans before    received   min start  max end
//!         then: one zstd frame of `raw bytes` bytes, an ExportTraceServiceRequest
//! ```
//! Integers are little endian; times are Unix nanoseconds. Version 1 holds spans, and zeros in place of the signal;
//! version 2 says in its first byte which signal it holds, and counts that signal's items as spans.

use crate::otlp::Signal;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A batch's place in the spool. Numbers start at 1 and have no holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    pub const FIRST: Seq = Seq(1);

    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The key in the `batch` family: big endian, so that keys sort by number.
    pub fn key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// A pipeline as the spool knows it: a small number, bound to the pipeline's name for the life of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PipelineId(pub u16);

/// From the earliest span start to the latest span end, Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    pub min_start: u64,
    pub max_end: u64,
}

impl TimeRange {
    /// Holds nothing; the neutral element of [`TimeRange::join`].
    pub const EMPTY: TimeRange = TimeRange { min_start: u64::MAX, max_end: 0 };

    pub fn join(self, other: TimeRange) -> TimeRange {
        TimeRange { min_start: self.min_start.min(other.min_start), max_end: self.max_end.max(other.max_end) }
    }
}

/// What is known of a batch without inflating its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the inflated frame, at most [`Header::RAW_BYTES_MAX`] unless a single request was larger.
    pub raw_bytes: u32,
    /// What the frame holds.
    pub signal: Signal,
    /// Spans, data points or log records, by signal.
    pub spans: u32,
    pub pipeline: PipelineId,
    /// Spans of the same pipeline in all batches before this one, ever: backlog sizes are differences of these.
    pub spans_before: u64,
    /// When the batch was made durable, Unix nanoseconds.
    pub received: u64,
    pub time: TimeRange,
}

impl Header {
    /// Of batches of spans.
    pub const VERSION: u8 = 1;
    /// Of batches of another signal: who does not know them must not take them for spans.
    pub const VERSION_OF_SIGNALS: u8 = 2;
    pub const LEN: usize = 48;
    /// Requests are joined up to this size, so that one batch, or two, stay below the 4 MiB that receivers accept.
    pub const RAW_BYTES_MAX: usize = 2 * 1024 * 1024 - 16 * 1024;

    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        (out[0], out[1]) = match self.signal {
            Signal::Traces => (Self::VERSION, 0),
            signal => (Self::VERSION_OF_SIGNALS, signal.code()),
        };
        out[4..8].copy_from_slice(&self.raw_bytes.to_le_bytes());
        out[8..12].copy_from_slice(&self.spans.to_le_bytes());
        out[12..14].copy_from_slice(&self.pipeline.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.spans_before.to_le_bytes());
        out[24..32].copy_from_slice(&self.received.to_le_bytes());
        out[32..40].copy_from_slice(&self.time.min_start.to_le_bytes());
        out[40..48].copy_from_slice(&self.time.max_end.to_le_bytes());
        out
    }

    /// `None` if the bytes are no header of a known version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.get(..Self::LEN)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let signal = match bytes[0] {
            Self::VERSION => Signal::Traces,
            Self::VERSION_OF_SIGNALS => Signal::from_code(bytes[1])?,
            _ => return None,
        };
        Some(Self {
            raw_bytes: u32_at(4),
            signal,
            spans: u32_at(8),
            pipeline: PipelineId(u16::from_le_bytes([bytes[12], bytes[13]])),
            spans_before: u64_at(16),
            received: u64_at(24),
            time: TimeRange { min_start: u64_at(32), max_end: u64_at(40) },
        })
    }
}

/// A batch as read from disk.
#[derive(Debug, Clone)]
pub struct Batch {
    pub seq: Seq,
    pub header: Header,
    /// One zstd frame; inflates to `header.raw_bytes` bytes of the signal's request.
    pub frame: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_went() {
        let header = Header {
            signal: Signal::Traces,
            raw_bytes: 1,
            spans: 0x0203_0405,
            pipeline: PipelineId(6),
            spans_before: 0x0708_090a_0b0c_0d0e,
            received: 15,
            time: TimeRange { min_start: 16, max_end: u64::MAX },
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(Header::decode(&header.encode()[..47]), None);
        let mut newer = header.encode();
        newer[0] = Header::VERSION_OF_SIGNALS + 1;
        assert_eq!(Header::decode(&newer), None);
        for signal in Signal::ALL {
            let header = Header { signal, ..header };
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
        let mut unknown = Header { signal: Signal::Logs, ..header }.encode();
        unknown[1] = 3;
        assert_eq!(Header::decode(&unknown), None);
    }
}
