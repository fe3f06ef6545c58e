//! Settings of the `file_storage` extension: accepted so that configurations load unchanged; the spool does its work.

use crate::appliance::components::ExtensionSettings;
use crate::config::{Declaration, Section, Shape, Stability};
use std::path::PathBuf;

/// The `file_storage` extension.
pub const DECLARATION: Declaration<ExtensionSettings> = Declaration::new(
    "file_storage",
    Stability::Beta,
    "Accepted so that configurations load unchanged: Spanreel's spool is durable without it.",
    |section| ExtensionSettings::FileStorage(FileStorageSettings::decode(section)),
);

/// `extensions::file_storage`.
#[derive(Debug, Clone, PartialEq)]
pub struct FileStorageSettings {
    /// Where a Collector would keep its queues. Spanreel keeps everything in its data directory; said once in the log.
    pub directory: PathBuf,
}

impl FileStorageSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let directory = section.file_path("directory").unwrap_or_else(|| "/var/lib/otelcol/file_storage".into());
        for (key, shape) in [
            ("create_directory", Shape::Bool),
            ("directory_permissions", Shape::Text),
            ("timeout", Shape::Duration),
            ("fsync", Shape::Bool),
            ("max_size", Shape::Int),
            ("recreate", Shape::Bool),
            ("compaction", Shape::Map),
        ] {
            section.accept(key, shape);
        }
        let why =
            "everything is kept in Spanreel's own data directory (extensions::spanreel::data_directory), always synced";
        section.note("", format!("accepted, without effect: {why}"));
        Self { directory }
    }
}
