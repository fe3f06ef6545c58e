//! The spool: the only queue, on disk. An append that returned `Ok` survives `kill -9` and power loss.
//!
//! In: whole OTLP requests with the little that the scan learned about them. Out: batches, each one zstd frame of joined
//! requests, in the order of their sequence numbers, to any number of consumers with a durable cursor each.
//!
//! ```text
//! append ─▶ committer thread: join (<= 2 MiB raw) ─▶ zstd ─▶ one write ─▶ one fsync ─▶ answer all that waited
//!
//! batch   seq u64 (big endian)  ─▶ header (48 bytes), zstd frame
//! meta    "cursor/<consumer>", "ledger", "pipelines", "parked/...", "format"
//! ```
//!
//! Invariants: sequence numbers have no holes below the newest; a batch holds requests of one pipeline; cursors and the
//! ledger move in the same write as what they account for; reading starts at a stored cursor, never at the first key
//! (deleted keys would be walked). The room must not know what a span contains: trace keys are opaque to it.

pub mod batch;
pub mod consumer;

pub use batch::{Batch, Header, PipelineId, Seq, TimeRange};
pub use consumer::{Backlog, Chunk, Consumer, LossReason, Outcome, Parked, ReadLimits};

/// The spool could not be read or moved on; the text says what the disk said.
#[derive(Debug, thiserror::Error)]
#[error("the spool cannot be read: {0}")]
pub struct ReadError(#[from] rocksdb::Error);
