//! Which spans a metrics query is about.

use std::rc::Rc;

use super::intervals::Intervals;
use crate::traceql::ast::{Pipeline, Spanset, Stage};
use crate::traceql::error::{Invalid, QueryError};
use crate::traceql::filter::Filter;
use crate::traceql::mask::Mask;
use crate::traceql::reader::{Reader, Scan};
use crate::traceql::segment::SegmentError;
use crate::traceql::trace::evaluate::StartedWithin;
use crate::traceql::trace::plan::Plan;

/// The spans of a segment that a pipeline keeps.
pub enum Matching {
    All,
    Rows(Mask),
}

/// A pipeline in front of a metrics function. Shared by the threads that fold.
pub trait Matcher: Sync {
    /// # Errors
    /// The segment could not be read, or the query is to end.
    fn matching(&self, scan: &Scan<'_>, reader: &Rc<Reader>) -> Result<Matching, QueryError>;
}

/// Rows of a segment, ascending, and the interval of each.
#[derive(Default)]
pub struct Selected {
    pub rows: Vec<u16>,
    pub intervals: Vec<u32>,
}

impl Selected {
    /// What it holds, to be used again.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<u16>() + self.intervals.capacity() * size_of::<u32>()
    }

    /// The matching rows whose start is within the intervals.
    ///
    /// # Errors
    /// The segment could not be read.
    pub fn select(&mut self, reader: &Reader, matching: &Matching, intervals: &Intervals) -> Result<(), SegmentError> {
        self.rows.clear();
        self.intervals.clear();
        let times = reader.segment().times();
        if times.max_start < intervals.from || times.min_start > intervals.to {
            return Ok(());
        }
        if let Matching::Rows(mask) = matching
            && mask.is_empty()
        {
            return Ok(());
        }
        let all_within = intervals.contains(times.min_start) && intervals.contains(times.max_start);
        let starts = reader.starts()?;
        match matching {
            Matching::All if all_within => {
                self.rows.extend(0..starts.len() as u16);
                self.intervals.extend(starts.iter().map(|start| intervals.of(*start)));
            }
            Matching::All => {
                for (row, start) in starts.iter().enumerate() {
                    self.take(row, *start, intervals);
                }
            }
            Matching::Rows(mask) => {
                for row in mask.iter() {
                    if let Some(start) = starts.get(row) {
                        self.take(row, *start, intervals);
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, row: usize, start: u64, intervals: &Intervals) {
        if intervals.contains(start) {
            // A segment has no more rows than fit.
            self.rows.push(row as u16);
            self.intervals.push(intervals.of(start));
        }
    }
}

/// The rows of a pipeline. `number` tells the pipelines of one query apart.
///
/// # Errors
/// It has a regular expression that cannot be used.
pub fn matcher(pipeline: &Pipeline, number: usize, intervals: &Intervals) -> Result<Box<dyn Matcher>, Invalid> {
    let mut filters = Vec::new();
    for stage in &pipeline.stages {
        match stage {
            Stage::Spanset(Spanset::Spans(expression)) => filters.push(Filter::compile(expression.as_ref())?),
            // It only shows more.
            Stage::Select(_) => {}
            // Whole traces must be known.
            _ => return Ok(Box::new(Plan::compile(pipeline, number)?)),
        }
    }
    Ok(Box::new(Spans { filters, intervals: *intervals }))
}

/// The rows that `compare()` selects: those of a single filter, by the language.
///
/// # Errors
/// It is something else, or has a regular expression that cannot be used.
pub fn selection(spanset: &Spanset, intervals: &Intervals) -> Result<Box<dyn Matcher>, Invalid> {
    match spanset {
        Spanset::Spans(expression) => {
            Ok(Box::new(Spans { filters: vec![Filter::compile(expression.as_ref())?], intervals: *intervals }))
        }
        other => Err(Invalid::Unsupported(format!("compare() of {other}"))),
    }
}

/// Spans that pass all of the filters, each decided span by span.
struct Spans {
    filters: Vec<Filter>,
    intervals: Intervals,
}

impl Matcher for Spans {
    fn matching(&self, scan: &Scan<'_>, reader: &Rc<Reader>) -> Result<Matching, QueryError> {
        let mut matching = Matching::All;
        for filter in self.filters.iter().filter(|filter| !filter.takes_all()) {
            let mask = match &matching {
                // What is dear is asked only of spans that count.
                Matching::All => match reader.within(self.intervals.from, self.intervals.to)? {
                    None => filter.mask(scan, reader)?,
                    Some(within) => filter.mask_of(scan, reader, &within)?,
                },
                Matching::Rows(mask) => filter.mask_of(scan, reader, mask)?,
            };
            matching = Matching::Rows(mask);
        }
        Ok(matching)
    }
}

/// All of time: spans outside of the time range help to decide which spans are in a relation, as in Tempo. They are left
/// out afterwards.
const ALWAYS: StartedWithin = StartedWithin { start: 0, end: u64::MAX };

impl Matcher for Plan {
    fn matching(&self, scan: &Scan<'_>, reader: &Rc<Reader>) -> Result<Matching, QueryError> {
        self.rows(scan, reader, ALWAYS).map(Matching::Rows)
    }
}
