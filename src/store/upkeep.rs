//! What the store does for whoever looks after it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::runs::{Runs, Verification};
use crate::otlp::TraceId;
use crate::query::Upkeep;
use crate::spool::{SnapshotError, Spool};

/// Runs and spool together, as one looks after them.
pub struct Keeper {
    pub spool: Spool,
    pub runs: Runs,
    /// Files of others in the data directory, which belong to a copy of it.
    pub beside: &'static [&'static str],
}

impl Keeper {
    fn copy_to(&self, directory: &Path) -> Result<(), SnapshotError> {
        self.spool.snapshot_to(directory)?;
        for name in self.beside {
            // Permissions are copied, too: some may be read by this user alone.
            match std::fs::copy(self.spool.database().directory().join(name), directory.join(name)) {
                Ok(_) => File::open(directory.join(name))?.sync_all()?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Upkeep for Keeper {
    fn pin(&self, trace: TraceId) -> Result<(), String> {
        self.runs.pin(trace).map_err(|error| error.to_string())
    }

    fn unpin(&self, trace: TraceId) -> Result<(), String> {
        self.runs.unpin(trace).map_err(|error| error.to_string())
    }

    fn pinned(&self) -> Vec<TraceId> {
        self.runs.pinned()
    }

    fn verify(&self, go_on: &dyn Fn() -> bool) -> Result<Verification, String> {
        self.runs.verify(&self.spool, go_on).map_err(|error| error.to_string())
    }

    fn snapshot(&self, directory: &Path) -> Result<(), String> {
        // RocksDB's words for a directory that exists name it, but not the remedy.
        if directory.exists() {
            return Err(format!("{} exists already; a snapshot needs a new directory", directory.display()));
        }
        self.copy_to(directory).map_err(|error| {
            // It was not there before: what is left of it is half a copy.
            let _ = std::fs::remove_dir_all(directory);
            format!("{}: {error}", directory.display())
        })
    }
}
