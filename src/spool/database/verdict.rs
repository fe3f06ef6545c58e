//! What an error of RocksDB says of the data that was read.

use rocksdb::{Error, ErrorKind};

/// Whether a read would fail the next time, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It will be the same the next time.
    Damaged,
    /// The device cannot read it. Another start, on a device that was mended, may.
    Unreadable,
    /// Nothing: files or memory were short, say.
    Innocent,
}

impl Verdict {
    #[must_use]
    pub fn of(error: &Error) -> Self {
        // RocksDB has no codes for what the system said, only its words.
        let says = |words: &str| error.as_ref().contains(words);
        match error.kind() {
            ErrorKind::Corruption => Self::Damaged,
            // A table file that is not there, or shorter than it was.
            ErrorKind::IOError if says("No such file") || says("truncated") => Self::Damaged,
            ErrorKind::IOError if says("Input/output error") => Self::Unreadable,
            _ => Self::Innocent,
        }
    }
}
