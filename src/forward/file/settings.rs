//! Settings of the `file` exporter, with the Collector's names and defaults (contrib).

use crate::config::{Declaration, Section, Shape, Stability, WhenNull};
use crate::forward::settings::ExporterSettings;
use crate::otlp::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// The `file` exporter.
pub const DECLARATION: Declaration<ExporterSettings> = Declaration::new(
    "file",
    Stability::Alpha,
    "Writes what passes into a file, one request of OTLP JSON a line.",
    |section| ExporterSettings::File(FileSettings::decode(section)),
)
.serving(&Signal::ALL);

/// What a request becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line.
    #[default]
    Json,
    /// A length (32 bits, big endian), and so many bytes of protobuf.
    Proto,
}

/// `exporters::file`.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSettings {
    pub path: PathBuf,
    pub format: Format,
    /// `compression: zstd`: each request is a frame of its own behind its length, whatever the format.
    pub is_compressed: bool,
    pub rotation: Option<Rotation>,
    /// Go on behind what is there; otherwise a file without rotation begins anew with the process.
    pub append: bool,
    /// How long bytes may wait in memory; default 1 s. Here they never do.
    pub flush_interval: Duration,
}

/// `exporters::file::rotation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Default 100.
    pub max_megabytes: u64,
    /// Older files go; 0, the default: none by age.
    pub max_days: u32,
    /// More files go, the oldest first; default 100, 0: none by number.
    pub max_backups: u32,
}

impl FileSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let path = section.required_text("path", "e.g. path: /var/lib/spanreel/traces.jsonl");
        let words = [("json", Format::Json), ("proto", Format::Proto)];
        let settings = Self {
            path: PathBuf::from(path),
            format: section.word("format", &words, Format::Json),
            is_compressed: section.word("compression", &[("", false), ("none", false), ("zstd", true)], false),
            rotation: section.optional("rotation", WhenNull::On, Rotation::decode),
            append: section.bool("append", false),
            flush_interval: section.duration("flush_interval", Duration::from_secs(1)),
        };
        if settings.append && settings.is_compressed {
            section.error("append", "must not be set together with compression", "remove one of them");
        }
        if settings.append && settings.rotation.is_some() {
            section.error(
                "append",
                "must not be set together with rotation",
                "a file with rotation is always appended to",
            );
        }
        section.unsupported("group_by", "all requests go into one file", "remove it, or use one exporter per file");
        section.unsupported("encoding", "there are no encoding extensions", "use format: json or format: proto");
        for key in ["create_directory", "directory_permissions"] {
            section.unsupported(key, "directories are not made", "make the directory before");
        }
        settings
    }
}

impl Rotation {
    fn decode(section: &mut Section<'_>) -> Self {
        let rotation = Self {
            max_megabytes: section.u64("max_megabytes", 100),
            max_days: section.u32("max_days", 0),
            max_backups: section.u32("max_backups", 100),
        };
        section.inert("localtime", Shape::Bool, "the times in file names are UTC");
        if rotation.max_megabytes == 0 || rotation.max_megabytes > MEGABYTES_MAX {
            section.error("max_megabytes", format!("must be from 1 to {MEGABYTES_MAX}"), "100 is the default");
        }
        rotation
    }
}

/// An exabyte: more is a slip.
const MEGABYTES_MAX: u64 = 1_000_000_000_000;
