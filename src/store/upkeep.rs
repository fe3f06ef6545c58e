//! What the store does for whoever looks after it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::assemble::AssembleLimits;
use super::runs::{Runs, Verification, VerifyProgress};
use super::{Store, TailSettings};
use crate::otlp::TraceId;
use crate::query::{TraceSource, Upkeep, UpkeepError};
use crate::spool::{SnapshotError, Spool};

/// Runs and spool together, as one looks after them.
pub struct Keeper {
    pub spool: Spool,
    pub runs: Runs,
    /// Files of others in the data directory, which belong to a copy of it.
    pub beside: &'static [&'static str],
}

impl Keeper {
    /// Whether spans of a trace are stored.
    fn holds(&self, trace: TraceId) -> Result<bool, UpkeepError> {
        let store = Store::new(self.spool.clone(), Arc::new(self.runs.clone()), TailSettings::default());
        // A few bytes of it are enough.
        let found = store.trace(trace, &AssembleLimits { trace_bytes_max: 1 }).map_err(failed)?;
        Ok(!found.fragments.is_empty())
    }

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

fn failed(error: impl std::fmt::Display) -> UpkeepError {
    UpkeepError::Failed(error.to_string())
}

impl Upkeep for Keeper {
    fn pin(&self, trace: TraceId) -> Result<(), UpkeepError> {
        if !self.holds(trace)? {
            return Err(UpkeepError::NoTrace(trace));
        }
        self.runs.pin(trace).map_err(failed)
    }

    fn unpin(&self, trace: TraceId) -> Result<(), UpkeepError> {
        if !self.runs.pinned().contains(&trace) {
            return Err(UpkeepError::NotPinned(trace));
        }
        self.runs.unpin(trace).map_err(failed)
    }

    fn pinned(&self) -> Vec<TraceId> {
        self.runs.pinned()
    }

    fn verify(&self, go_on: &dyn Fn(VerifyProgress) -> bool) -> Result<Verification, String> {
        self.runs.verify(&self.spool, go_on).map_err(|error| error.to_string())
    }

    fn snapshot(&self, directory: &Path) -> Result<(), UpkeepError> {
        // RocksDB's words for a directory that exists name it, but not the remedy.
        if directory.exists() {
            return Err(UpkeepError::Exists(directory.to_owned()));
        }
        self.copy_to(directory).map_err(|error| {
            // It was not there before: what is left of it is half a copy.
            let _ = std::fs::remove_dir_all(directory);
            UpkeepError::Failed(format!("{}: {error}", directory.display()))
        })
    }
}
