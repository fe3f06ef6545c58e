//! Runs of which a file is not there: it could not be opened by this start or an earlier one, and was set aside
//! ([`crate::spool::database`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use rocksdb::IngestExternalFileOptions;

use super::RunsError;
use super::disk::{Disk, Run};
use super::record::{RunRecord, encode, run_key};
use crate::spool::Database;
use crate::spool::database::{COLUMN, META, TRACE, Verdict};

/// The first and the last key of each table file of a family.
type Files = BTreeMap<Vec<u8>, Vec<u8>>;

fn files_of(database: &Database, family: &str) -> Result<Files, rocksdb::Error> {
    let files = database.raw().live_files()?.into_iter().filter(|file| file.column_family_name == family);
    Ok(files.filter_map(|file| Some((file.start_key?, file.end_key?))).collect())
}

fn holds(files: &Files, run: &RunRecord) -> bool {
    let (first, last) = run.key().from_segment(run.first_segment());
    files.range(..=last).next_back().is_some_and(|(_, end)| *end >= first)
}

/// Removes what runs were made of before they were thinned: a process that ended kept it for queries that had begun.
pub(super) fn remove_replaced(database: &Database, records: &[RunRecord]) -> Result<(), rocksdb::Error> {
    if records.iter().all(|run| run.first_segment() == 0) {
        return Ok(());
    }
    for family in [TRACE, COLUMN] {
        let files = files_of(database, family)?;
        for run in records.iter().filter(|run| run.first_segment() != 0) {
            let (first, last) = run.key().from_segment(0);
            if files.range(first.clone()..=last.clone()).next().is_some() {
                database.raw().delete_file_in_range_cf(database.family(family), first.as_slice(), last.as_slice())?;
            }
        }
    }
    Ok(())
}

/// Takes back files that were set aside and can be opened now: the device was mended, or somebody put a good copy there.
/// What cannot be opened stays where it is.
pub(super) fn take_back(database: &Database, records: &mut [RunRecord]) -> Result<(), RunsError> {
    for record in records.iter_mut().filter(|record| record.damaged.is_some()) {
        let key = record.key();
        let places = [TRACE, COLUMN].map(|family| (family, database.place_of_set_aside(family, &key.bytes())));
        let waiting: Vec<_> = places.into_iter().filter(|(_, path)| path.exists()).collect();
        if waiting.is_empty() {
            continue;
        }
        for (family, path) in &waiting {
            // A start that ended before the record was written has taken it back already.
            if !holds(&files_of(database, family)?, record)
                // Copied: should this start end half-way, it is still there.
                && let Err(error) = database.raw().ingest_external_file_cf_opts(
                    database.family(family),
                    &IngestExternalFileOptions::default(),
                    vec![path],
                )
            {
                tracing::warn!(run = key.first, %error, "a file that was set aside still cannot be opened");
            }
        }
        if holds(&files_of(database, TRACE)?, record) && holds(&files_of(database, COLUMN)?, record) {
            record.damaged = None;
            database.raw().put_cf(database.family(META), run_key(key), encode(record))?;
            database.remove_set_aside(&key.bytes());
            tracing::info!(run = key.first, spans = record.spans(), "a run that was set aside is served again");
        }
    }
    Ok(())
}

/// Sets the runs aside of which a file is not there.
pub(super) fn set_incomplete_aside(disk: &Disk, runs: &[Arc<Run>]) -> Result<(), RunsError> {
    let database = &disk.database;
    let (traces, columns) = (files_of(database, TRACE)?, files_of(database, COLUMN)?);
    for run in runs.iter().filter(|run| run.record.spans() > 0) {
        let key = run.key();
        if !holds(&traces, &run.record) {
            run.set_pieces_lost();
        }
        if !holds(&traces, &run.record) || !holds(&columns, &run.record) {
            let known = database.set_aside().iter().find(|file| file.first_key.starts_with(&key.bytes()));
            let problem = known.map_or("one of its files is not there", |file| &file.problem);
            disk.set_aside(run, problem, Verdict::Damaged);
        }
    }
    Ok(())
}
