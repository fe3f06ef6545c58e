//! Opening a directory although a table file is missing or cannot be opened.
//!
//! RocksDB opens some of its files when it starts, and gives up on the first that it cannot. If that one is a run's, it is set
//! aside: moved to `damaged/` and taken out of RocksDB's list; the store finds that it is not there, and everything else is
//! served. Files of other families hold what nothing can stand in for (acknowledged spans that are not sealed, cursors and
//! accounts): there the error names the file. Files that are not opened at the start are met when they are read.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rocksdb::DB;
use rustix::fs::FlockOperation;

use super::manifest::{self, Listed};
use super::verdict::Verdict;
use super::{BATCH, COLUMN, DICT, META, Memory, OpenError, TRACE, families, options};

/// Where files lie that were set aside.
const FOLDER: &str = "damaged";
/// Of a file's first key in its name: what the keys of one run have in common.
const NAMED_BYTES: usize = 12;

/// A run's file that RocksDB could not open, and that is in its list no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub family: String,
    pub first_key: Vec<u8>,
    /// What RocksDB said of it.
    pub problem: String,
}

/// A table file in RocksDB's list.
#[derive(Debug)]
struct Table {
    /// With a slash before it.
    name: String,
    number: u64,
    family: String,
    level: u32,
    first_key: Vec<u8>,
}

/// Opens the directory for writing; also what had to be set aside for that.
pub(super) fn open(directory: &Path, bytes_max: u64, memory: Memory) -> Result<(DB, Vec<SetAside>), OpenError> {
    let mut tables: Option<Vec<Table>> = None;
    let mut set_aside: Vec<SetAside> = Vec::new();
    loop {
        let error = match DB::open_cf_descriptors(&options(bytes_max), directory, families(memory)) {
            Ok(db) => return Ok((db, set_aside)),
            Err(error) => error,
        };
        let problem = error.to_string();
        // RocksDB names its lock file; "block checksum mismatch" is another matter.
        if error.kind() == rocksdb::ErrorKind::IOError && problem.contains("/LOCK") {
            return Err(OpenError::Locked(directory.into()));
        }
        let damaged = || OpenError::Damaged { directory: directory.into(), problem: problem.clone() };
        if Verdict::of(&error) == Verdict::Innocent {
            return Err(damaged());
        }
        let tables = match &mut tables {
            Some(tables) => tables,
            None => tables.insert(list(directory, memory).map_err(|_| damaged())?),
        };
        // Each file once: what does not help the first time does not help at all.
        let Some(at) = tables.iter().position(|table| problem.contains(&table.name)) else { return Err(damaged()) };
        let table = tables.swap_remove(at);
        if ![TRACE, COLUMN].contains(&table.family.as_str()) {
            return Err(OpenError::DamagedFile {
                directory: directory.into(),
                file: table.name.trim_start_matches('/').to_owned(),
                holds: what_it_holds(&table.family),
                problem,
            });
        }
        let place = put_aside(directory, &table).map_err(|error| OpenError::Damaged {
            directory: directory.into(),
            problem: format!("{problem}; {error}"),
        })?;
        tracing::error!(
            file = table.name.trim_start_matches('/'),
            problem,
            place = %place.display(),
            "a file of a sealed run cannot be opened: it is set aside, and searches leave its run out; check the disk. A good \
             copy of the file in that place brings the run back at the next start"
        );
        set_aside.push(SetAside { family: table.family, first_key: table.first_key, problem });
    }
}

fn what_it_holds(family: &str) -> &'static str {
    match family {
        BATCH => "spans that are not sealed or not sent yet",
        META => "cursors, accounts and the list of runs",
        DICT => "the index of what is not sealed yet",
        _ => "nothing of Spanreel's",
    }
}

/// Opens the directory for reading. Files that cannot be opened are met when they are read.
pub(super) fn open_read_only(directory: &Path, memory: Memory, leniently: bool) -> Result<DB, rocksdb::Error> {
    let mut options = options(0);
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    options.set_paranoid_checks(!leniently);
    DB::open_cf_descriptors_read_only(&options, directory, families(memory), false)
}

fn list(directory: &Path, memory: Memory) -> Result<Vec<Table>, rocksdb::Error> {
    let files = open_read_only(directory, memory, true)?.live_files()?;
    let table = |file: rocksdb::LiveFile| {
        Some(Table {
            number: file.name.trim_start_matches('/').strip_suffix(".sst")?.parse().ok()?,
            name: file.name,
            family: file.column_family_name,
            level: u32::try_from(file.level).ok()?,
            first_key: file.start_key.unwrap_or_default(),
        })
    };
    Ok(files.into_iter().filter_map(table).collect())
}

fn put_aside(directory: &Path, table: &Table) -> io::Result<PathBuf> {
    let lock = OpenOptions::new().write(true).open(directory.join("LOCK"))?;
    // RocksDB's own lock is of this kind: nobody else opens the directory meanwhile. It goes with the file's handle.
    rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let folder = directory.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let place = place_of(directory, &table.family, &table.first_key);
    // Before it leaves the list: RocksDB removes what is in no list.
    match std::fs::rename(directory.join(table.name.trim_start_matches('/')), &place) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::open(&folder)?.sync_all()?;
    manifest::forget(directory, Listed { family: &table.family, level: table.level, number: table.number })?;
    Ok(place)
}

/// Where a family's file lies whose keys begin with `key`, if it was set aside.
pub(super) fn place_of(directory: &Path, family: &str, key: &[u8]) -> PathBuf {
    use std::fmt::Write as _;
    let mut name = format!("{family}-");
    for byte in key.iter().take(NAMED_BYTES) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".sst");
    directory.join(FOLDER).join(name)
}
