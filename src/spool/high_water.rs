//! The high-water mark: how far acknowledged data reached, written beside the database.
//!
//! RocksDB recovers a damaged log up to the damage and says nothing. Comparing what it found with this mark turns a
//! silent loss into a loud one. The mark is written after each sync and not synced itself: it survives `kill -9`, and
//! after a power cut it may be old, but it never claims more than was durable.
//!
//! ```text
//! high-water   end u64, stored spans of all pipelines u64, a check of both u64 (little endian)
//! ```
//!
//! Earlier versions wrote it without the check. A mark that does not pass its check says nothing; it is not believed and replaced by the next one.

use super::Seq;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const FILE_NAME: &str = "high-water";
const LEN: usize = 24;
/// Of a mark without a check.
const LEN_UNCHECKED: usize = 16;
/// Zeros, which a disk may give in place of anything, must not pass.
const CHECK_OF_ZEROS: u64 = 0x7370_616e_7265_656c;

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
        let mark = read(&file)?;
        Ok((Self { file: Some(file) }, mark))
    }

    /// What the mark says now.
    pub fn mark(&self) -> io::Result<Mark> {
        self.file.as_ref().map_or(Ok(Mark::default()), read)
    }

    /// For a directory that is only read.
    pub fn unmarked() -> Self {
        Self { file: None }
    }

    /// A mark that cannot be written (full disk) only makes the next one older.
    pub fn record(&self, end: Seq, stored_spans: u64) {
        if let Some(file) = &self.file
            && let Err(error) = file.write_at(&Mark { end: end.0, stored_spans }.bytes(), 0)
        {
            tracing::debug!(%error, "the high-water mark could not be written");
        }
    }
}

impl Mark {
    fn bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.end.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.stored_spans.to_le_bytes());
        bytes[16..].copy_from_slice(&self.check().to_le_bytes());
        bytes
    }

    /// Any one damaged byte changes it, or differs from it.
    fn check(self) -> u64 {
        self.end.rotate_left(32) ^ self.stored_spans.rotate_left(16) ^ CHECK_OF_ZEROS
    }

    /// Beside a copy of the database.
    pub fn write_beside(self, directory: &Path) -> io::Result<()> {
        let mut file = File::create_new(directory.join(FILE_NAME))?;
        file.write_all(&self.bytes())?;
        file.sync_all()
    }
}

/// A new file is empty: no mark.
fn read(file: &File) -> io::Result<Mark> {
    let mut bytes = [0; LEN];
    let read = file.read_at(&mut bytes, 0)?;
    if read == 0 {
        return Ok(Mark::default());
    }
    let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
    let mark = Mark { end: word(0), stored_spans: word(8) };
    let is_whole = read == LEN_UNCHECKED || (read == LEN && word(16) == mark.check());
    if !is_whole {
        tracing::error!(
            file = FILE_NAME,
            "damaged: whether acknowledged spans are missing cannot be told this time; check the disk"
        );
        return Ok(Mark::default());
    }
    Ok(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_an_earlier_version_is_believed_and_a_damaged_one_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        let mark = Mark { end: 7, stored_spans: 9 };
        let path = directory.path().join(FILE_NAME);
        for (len, expected) in [(0, Mark::default()), (15, Mark::default()), (LEN_UNCHECKED, mark), (LEN, mark)] {
            std::fs::write(&path, &mark.bytes()[..len]).unwrap();
            assert_eq!(HighWater::open(directory.path()).unwrap().1, expected, "{len} bytes");
        }
        let mut bytes = mark.bytes();
        bytes[3] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(HighWater::open(directory.path()).unwrap().1, Mark::default());
    }
}
