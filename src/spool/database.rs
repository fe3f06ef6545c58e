//! The one RocksDB of the data directory: its column families, its options, and what can go wrong when it is opened.
//!
//! The `trace`, `column` and `dict` families belong to the store room; they live in the same database so that a run and
//! the cursor that releases the spool move in one atomic write.

mod manifest;
mod mend;
mod verdict;

use super::Memory;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options,
    WriteOptions,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

pub use mend::SetAside;
pub use verdict::Verdict;

pub const BATCH: &str = "batch";
pub const TRACE: &str = "trace";
pub const COLUMN: &str = "column";
pub const DICT: &str = "dict";
pub const META: &str = "meta";

/// Where the [`super::SealedAccount`] lies in `meta`; the store writes it together with the run that it counts.
pub const SEALED_KEY: &str = "sealed";

const FORMAT_KEY: &str = "format";
/// Raised when the layout changes in a way that an older binary would misread.
///
/// 1: spool alone. 2: sealed runs. 3: cursors with a stretch ahead of them, which who reads up to 2 would send and book
/// again, and runs whose segments are numbered from elsewhere. Nothing of the ones before changed, so a directory of theirs
/// becomes one of the latest when it is opened.
const FORMAT_VERSION: u32 = 3;

const MIB: usize = 1024 * 1024;
const SMALL_MEMTABLE_BYTES: usize = MIB;
/// Bounds the log that a restart replays, and the disk that logs take; a small spool has a smaller log.
const WAL_BYTES_MAX: u64 = 64 * MIB as u64;
const WAL_BYTES_MIN: u64 = 16 * MIB as u64;
/// Log files are reused: overwriting allocated blocks makes a sync cheaper than growing a file.
const WAL_FILES_REUSED: usize = 2;

/// The data directory could not be opened. The text names the directory and the remedy.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "the data directory {} is in use by another process; stop it, or choose another directory with --data",
        .0.display()
    )]
    Locked(PathBuf),
    #[error("there is no data directory {}; the place of an existing one is given with --data", .0.display())]
    Missing(PathBuf),
    #[error("the data directory {} cannot be written: {problem}; make it writable for this user, or choose another with --data", .directory.display())]
    NotWritable { directory: PathBuf, problem: String },
    #[error("the data directory {} has format {found}, this version reads up to {FORMAT_VERSION}; use a newer spanreel or another directory", .directory.display())]
    NewerFormat { directory: PathBuf, found: String },
    #[error("the data directory {} is damaged: {problem}; restore it from a copy, or move it away and start with an empty one (its traces stay in the moved one)", .directory.display())]
    Damaged { directory: PathBuf, problem: String },
    #[error(
        "the data directory {} is damaged: {file}, which holds {holds}, cannot be opened: {problem}; put that file back from \
         a copy of the directory, or move the directory away and start with an empty one (its traces stay in the moved one)",
        .directory.display()
    )]
    DamagedFile { directory: PathBuf, file: String, holds: &'static str, problem: String },
}

/// A shared handle to the open database.
#[derive(Clone)]
pub struct Database {
    db: Arc<DB>,
    directory: Arc<Path>,
    access: Access,
    set_aside: Arc<[SetAside]>,
}

/// What may be done with an open directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    /// Nothing on the disk is changed, not even what a crash left to be tidied.
    ReadOnly,
}

impl Database {
    /// Opens or creates the directory; `bytes_max` is what the spool may hold.
    pub fn open(directory: &Path, bytes_max: u64, memory: Memory) -> Result<Self, OpenError> {
        let not_writable = |problem: std::io::Error| OpenError::NotWritable {
            directory: directory.into(),
            problem: problem.to_string(),
        };
        std::fs::create_dir_all(directory).map_err(not_writable)?;
        // RocksDB's own words for a directory without permission are many; this probe gives one.
        let probe = directory.join(".writable");
        std::fs::write(&probe, b"").map_err(not_writable)?;
        std::fs::remove_file(&probe).map_err(not_writable)?;

        let (db, set_aside) = mend::open(directory, bytes_max, memory)?;
        let database = Self::of(db, directory, Access::ReadWrite, set_aside);
        database.check_format()?;
        Ok(database)
    }

    /// Opens an existing directory to look into it. What lies in its log is read, too.
    pub fn open_read_only(directory: &Path, memory: Memory) -> Result<Self, OpenError> {
        if !directory.join("CURRENT").exists() {
            return Err(OpenError::Missing(directory.into()));
        }
        // Nothing is written, so nothing is lost by looking past what is damaged.
        let db = mend::open_read_only(directory, memory, false)
            .or_else(|_| mend::open_read_only(directory, memory, true))
            .map_err(|error| OpenError::Damaged { directory: directory.into(), problem: error.to_string() })?;
        let database = Self::of(db, directory, Access::ReadOnly, Vec::new());
        database.check_format()?;
        Ok(database)
    }

    fn of(db: DB, directory: &Path, access: Access, set_aside: Vec<SetAside>) -> Self {
        Self { db: Arc::new(db), directory: directory.into(), access, set_aside: set_aside.into() }
    }

    /// Files of runs that could not be opened by this start. They are in no family any more.
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }

    /// Where the file of a run lies, if it was set aside; `key` is what all keys of the run begin with.
    pub fn place_of_set_aside(&self, family: &str, key: &[u8]) -> PathBuf {
        mend::place_of(&self.directory, family, key)
    }

    /// Removes what was set aside of a run.
    pub fn remove_set_aside(&self, key: &[u8]) {
        for family in [TRACE, COLUMN] {
            match std::fs::remove_file(self.place_of_set_aside(family, key)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "a damaged file could not be removed");
                }
                _ => {}
            }
        }
    }

    pub fn access(&self) -> Access {
        self.access
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let damaged = |error: rocksdb::Error| OpenError::Damaged {
            directory: self.directory.to_path_buf(),
            problem: error.to_string(),
        };
        let found = self.db.get_cf(self.family(META), FORMAT_KEY).map_err(damaged)?;
        match found {
            _ if self.access == Access::ReadOnly && found_is_known(found.as_deref()) => Ok(()),
            None => self.db.put_cf(self.family(META), FORMAT_KEY, FORMAT_VERSION.to_string()).map_err(damaged),
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                match found.parse::<u32>() {
                    Ok(FORMAT_VERSION) => Ok(()),
                    Ok(version) if version < FORMAT_VERSION => {
                        tracing::info!(from = version, to = FORMAT_VERSION, "the data directory is upgraded");
                        self.db.put_cf(self.family(META), FORMAT_KEY, FORMAT_VERSION.to_string()).map_err(damaged)
                    }
                    _ => Err(OpenError::NewerFormat { directory: self.directory.to_path_buf(), found }),
                }
            }
        }
    }

    /// The raw handle, for the spool and the store.
    pub fn raw(&self) -> &DB {
        &self.db
    }

    /// A family by name. Every name in this module is opened by [`Database::open`].
    #[expect(clippy::expect_used, reason = "a family that was opened cannot be missing")]
    pub fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("all families are opened together")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A copy of everything as it stands, in a directory that must not exist yet; files that no longer change are linked, so
    /// on the same disk it costs next to nothing. Blocking.
    ///
    /// # Errors
    /// The directory exists, or cannot be written.
    pub fn snapshot(&self, directory: &Path) -> Result<(), rocksdb::Error> {
        Checkpoint::new(&self.db)?.create_checkpoint(directory)
    }

    /// Free bytes on the disk that holds the directory, for this user.
    pub fn free_bytes(&self) -> std::io::Result<u64> {
        let stat = rustix::fs::statvfs(&*self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn found_is_known(format: Option<&[u8]>) -> bool {
    let version = format.and_then(|format| std::str::from_utf8(format).ok()?.parse::<u32>().ok());
    version.is_some_and(|version| version <= FORMAT_VERSION)
}

/// Writes that must survive power loss.
pub fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn options(bytes_max: u64) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size((bytes_max / 4).clamp(WAL_BYTES_MIN, WAL_BYTES_MAX));
    options.set_recycle_log_file_num(WAL_FILES_REUSED);
    options.set_max_open_files(256);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(MIB as u64);
    options.set_keep_log_file_num(2);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_max_log_file_size(MIB);
    options
}

fn families(memory: Memory) -> Vec<ColumnFamilyDescriptor> {
    // Shared by all families: what is read back is mostly read once.
    let cache = Cache::new_lru_cache(memory.block_cache_bytes);
    let family = |name: &str, memtable_bytes: usize| {
        let mut options = table(name, Some(&cache));
        options.set_write_buffer_size(memtable_bytes);
        options.set_max_write_buffer_number(2);
        // Runs are ingested as finished files, one behind the other: there is nothing to merge, ever.
        options.set_disable_auto_compactions(matches!(name, TRACE | COLUMN));
        ColumnFamilyDescriptor::new(name, options)
    };
    vec![
        ColumnFamilyDescriptor::new("default", Options::default()),
        // Values are zstd frames already; keys only grow, so compaction merely moves files down.
        family(BATCH, memory.batch_memtable_bytes),
        family(TRACE, SMALL_MEMTABLE_BYTES),
        family(COLUMN, SMALL_MEMTABLE_BYTES),
        family(DICT, SMALL_MEMTABLE_BYTES),
        family(META, SMALL_MEMTABLE_BYTES),
    ]
}

/// How table files of a family are written, for files that are made outside and ingested.
pub fn table_options(family: &str) -> Options {
    table(family, None)
}

/// Blocks of pieces: what is inflated to read one trace, about a thousand spans.
const TRACE_BLOCK_BYTES: usize = 32 * 1024;
/// Most columns are blocks of their own; the small ones share some.
const COLUMN_BLOCK_BYTES: usize = 16 * 1024;
/// One of a hundred runs is looked into in vain when a trace is looked for.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const ZSTD_LEVEL: i32 = 3;
/// RocksDB's own default for zstd's window: as large as the block.
const ZSTD_WINDOW_BITS: i32 = -14;

fn table(family: &str, cache: Option<&Cache>) -> Options {
    let mut table = BlockBasedOptions::default();
    if let Some(cache) = cache {
        table.set_block_cache(cache);
    }
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    match family {
        TRACE => {
            table.set_block_size(TRACE_BLOCK_BYTES);
            table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
            table.set_whole_key_filtering(true);
            options.set_optimize_filters_for_hits(false);
            options.set_compression_type(DBCompressionType::Zstd);
            options.set_compression_options(ZSTD_WINDOW_BITS, ZSTD_LEVEL, 0, 0);
        }
        COLUMN => table.set_block_size(COLUMN_BLOCK_BYTES),
        _ => {}
    }
    options.set_block_based_table_factory(&table);
    options
}
