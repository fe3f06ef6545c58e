//! Settings of the `file_storage` extension: accepted so that configurations load unchanged; the spool does its work.

use std::path::PathBuf;

/// `extensions::file_storage`.
#[derive(Debug, Clone, PartialEq)]
pub struct FileStorageSettings {
    /// Where a Collector would keep its queues. Spanreel keeps everything in its data directory; said once in the log.
    pub directory: PathBuf,
}
