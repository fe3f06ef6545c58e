//! Reading everything once, to know what is damaged before somebody needs it.

use std::fmt;
use std::ops::Range;

use rocksdb::ReadOptions;

use super::disk::Problem;
use super::{RunSegment, Runs, pins};
use crate::otlp::TraceId;
use crate::spool::database::{COLUMN, DICT, META, TRACE, Verdict};
use crate::spool::{ReadError, Seq, Spool};
use crate::store::format::key::{SEGMENT_LEN, TRACE_LEN};

/// What [`Runs::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    pub runs: u64,
    pub traces: u64,
    pub spans: u64,
    /// Of the spool.
    pub batches: u64,
    pub damages: Vec<Damage>,
}

/// How far a verification is: segments of runs, batches of the spool, and the records as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    pub done: u64,
    /// As it looks now: batches that come meanwhile are read, too.
    pub of: u64,
}

/// Something that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub place: DamagedPlace,
    /// What the disk said, or what is wrong with what it gave.
    pub problem: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamagedPlace {
    /// By its first batch.
    Run(u64),
    /// A batch of the spool.
    Batch(u64),
    /// What a dropped run had of a pinned trace.
    Pinned(TraceId),
    /// Of the index of the spool.
    Index,
    /// Of cursors, accounts and records of runs.
    Records,
}

impl fmt::Display for DamagedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(first) => write!(f, "run {first}"),
            Self::Batch(seq) => write!(f, "batch {seq}"),
            Self::Pinned(trace) => write!(f, "the copy of pinned trace {trace}"),
            Self::Index => f.write_str("the index of the spool"),
            Self::Records => f.write_str("cursors, accounts and records of runs"),
        }
    }
}

impl Runs {
    /// Reads every block of every run, every batch of the spool with its index, and all records, and puts every span
    /// together. Damaged runs are set aside. Blocking, for as long as it takes to read the disk; `go_on` is told before each
    /// part how far it is, and asked whether to read on.
    ///
    /// # Errors
    /// Files or memory are short, which says nothing of what is stored.
    pub fn verify(&self, spool: &Spool, go_on: impl Fn(VerifyProgress) -> bool) -> Result<Verification, ReadError> {
        let mut verification = Verification::default();
        let view = self.view();
        let (mut done, batches_of) = (0, |batches: &Range<Seq>| batches.end.0.saturating_sub(batches.start.0));
        let mut of = view.segments.len() as u64 + batches_of(&spool.range()) + 1;
        for segment in &view.segments {
            if !go_on(VerifyProgress { done, of }) {
                return Ok(verification);
            }
            done += 1;
            if segment.run().is_gone() {
                continue;
            }
            verification.runs += u64::from(segment.is_first());
            match self.verify_segment(segment) {
                Ok((traces, spans)) => {
                    verification.traces += traces;
                    verification.spans += spans;
                }
                // Retention may have dropped it meanwhile.
                Err(_) if segment.run().is_gone() => {}
                Err(problem) => {
                    let text = problem.to_string();
                    self.disk.fail(segment.run(), problem);
                    let problem = text;
                    verification.damages.push(Damage { place: DamagedPlace::Run(segment.run().key().first), problem });
                }
            }
        }
        let batches = spool.range();
        of = done + batches_of(&batches) + 1;
        let mut seq = batches.start;
        while seq < batches.end && go_on(VerifyProgress { done, of }) {
            verify_batch(spool, seq, &mut verification)?;
            seq = seq.next();
            done += 1;
        }
        if go_on(VerifyProgress { done, of }) {
            self.verify_records(&mut verification)?;
        }
        Ok(verification)
    }

    /// The families that are neither runs nor batches, and the copies of pinned traces among them.
    fn verify_records(&self, verification: &mut Verification) -> Result<(), ReadError> {
        let mut damages = Vec::new();
        let index = self.each_key(DICT, &[], |_, _| {});
        let records = self.each_key(META, &[], |key, value| {
            if let Some(trace) = pins::trace_of_copy(key)
                && let Err(error) = self.disk.unpacker.unpack(value)
            {
                damages.push(Damage { place: DamagedPlace::Pinned(trace), problem: error.to_string() });
            }
        });
        for (read, place) in [(index, DamagedPlace::Index), (records, DamagedPlace::Records)] {
            match read {
                Ok(()) => {}
                Err(error) if Verdict::of(&error) == Verdict::Innocent => return Err(error.into()),
                Err(error) => damages.push(Damage { place, problem: error.to_string() }),
            }
        }
        verification.damages.append(&mut damages);
        Ok(())
    }

    fn verify_segment(&self, segment: &RunSegment) -> Result<(u64, u64), Problem> {
        let mut problem = Ok(());
        self.each(COLUMN, segment, |_, chunk| {
            if problem.is_ok() {
                problem = self.disk.unpacker.unpack(chunk).map(|_| ()).map_err(Problem::Format);
            }
        })?;
        problem?;
        let (mut traces, mut spans) = (0, 0);
        let mut problem = Ok(());
        let mut reader = segment.reader();
        self.each(TRACE, segment, |key, piece| {
            let Some(trace) = key.get(SEGMENT_LEN..TRACE_LEN).and_then(TraceId::from_wire) else { return };
            traces += 1;
            if problem.is_ok() {
                problem = reader.read(trace, piece, |_, _, _| spans += 1);
            }
        })?;
        problem?;
        let record = segment.record();
        if (traces, spans) == (u64::from(record.traces), u64::from(record.rows)) {
            Ok((traces, spans))
        } else {
            Err(Problem::Missing)
        }
    }

    /// All keys of a segment in a family.
    fn each(&self, family: &str, segment: &RunSegment, each: impl FnMut(&[u8], &[u8])) -> Result<(), Problem> {
        Ok(self.each_key(family, &segment.key().0, each)?)
    }

    fn each_key(&self, family: &str, prefix: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), rocksdb::Error> {
        let database = &self.disk.database;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        let mut entries = database.raw().raw_iterator_cf_opt(database.family(family), options);
        entries.seek(prefix);
        while let Some((key, value)) = entries.item().filter(|(key, _)| key.starts_with(prefix)) {
            each(key, value);
            entries.next();
        }
        entries.status()
    }
}

fn verify_batch(spool: &Spool, seq: Seq, verification: &mut Verification) -> Result<(), ReadError> {
    verification.batches += 1;
    let problem = match spool.batch(seq) {
        Err(error) if error.verdict() == Verdict::Innocent => return Err(error),
        Err(error) => error.to_string(),
        Ok(Some(batch)) => match zstd::bulk::decompress(&batch.frame, batch.header.raw_bytes as usize) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        // The spool may have dropped it meanwhile.
        Ok(None) if seq < spool.range().start => return Ok(()),
        Ok(None) => "it cannot be read".to_owned(),
    };
    verification.damages.push(Damage { place: DamagedPlace::Batch(seq.0), problem });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_may_be_damaged_has_a_name() {
        let trace = TraceId([0xab; 16]);
        for (place, name) in [
            (DamagedPlace::Run(17), "run 17".to_owned()),
            (DamagedPlace::Batch(4), "batch 4".to_owned()),
            (DamagedPlace::Pinned(trace), format!("the copy of pinned trace {}", "ab".repeat(16))),
            (DamagedPlace::Index, "the index of the spool".to_owned()),
            (DamagedPlace::Records, "cursors, accounts and records of runs".to_owned()),
        ] {
            assert_eq!(place.to_string(), name);
        }
    }
}
