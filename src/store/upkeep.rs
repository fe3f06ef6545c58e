//! What the store does for whoever looks after it.

use std::path::Path;

use super::runs::{Runs, Verification};
use crate::otlp::TraceId;
use crate::query::Upkeep;
use crate::spool::Spool;

/// Runs and spool together, as one looks after them.
pub struct Keeper {
    pub spool: Spool,
    pub runs: Runs,
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
        self.spool.database().snapshot(directory).map_err(|error| error.to_string())
    }
}
