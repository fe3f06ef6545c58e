//! The high-water mark: how far acknowledged data reached, written beside the database.
//!
//! RocksDB recovers a damaged log up to the damage and says nothing. Comparing what it found with this mark turns a
//! silent loss into a loud one. The mark is written after each sync and not synced itself: it survives `kill -9`, and
//! after a power cut it may be old, but it never claims more than was durable.
//!
//! ```text
//! high-water   end u64, stored spans of all pipelines u64 (little endian)
//! ```

use super::Seq;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FILE_NAME: &str = "high-water";

#[derive(Debug)]
pub(super) struct HighWater {
    /// `None`: nothing is acknowledged here, so there is nothing to mark.
    file: Option<File>,
}

/// What the mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The first number that was not stored, or 0 in a new directory.
    pub end: u64,
    pub stored_spans: u64,
}

impl HighWater {
    pub fn open(directory: &Path) -> io::Result<(Self, Mark)> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(directory.join(FILE_NAME))?;
        let mut bytes = [0; 16];
        // A new file is empty: no mark.
        let read = file.read_at(&mut bytes, 0)?;
        let half =
            |at: usize| bytes.get(at..at + 8).and_then(|half| half.try_into().ok()).map_or(0, u64::from_le_bytes);
        let mark = if read == bytes.len() { Mark { end: half(0), stored_spans: half(8) } } else { Mark::default() };
        Ok((Self { file: Some(file) }, mark))
    }

    /// For a directory that is only read.
    pub fn unmarked() -> Self {
        Self { file: None }
    }

    /// A mark that cannot be written (full disk) only makes the next one older.
    pub fn record(&self, end: Seq, stored_spans: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&end.0.to_le_bytes());
        bytes[8..].copy_from_slice(&stored_spans.to_le_bytes());
        if let Some(file) = &self.file
            && let Err(error) = file.write_at(&bytes, 0)
        {
            tracing::debug!(%error, "the high-water mark could not be written");
        }
    }
}
