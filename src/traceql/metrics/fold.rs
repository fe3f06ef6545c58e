//! One function over the spans of segments: what is kept between segments, and the series it ends in.

use std::rc::Rc;

use super::cells::{Cells, Function, Measured};
use super::exemplars::{self, Chosen, Exemplars};
use super::grouping::{Columns, Grouping};
use super::histogram::{self, BUCKETS, Bucket};
use super::intervals::{Intervals, NANOS_PER_SECOND};
use super::lines::{Labels, Line, Mark, NAME_LABEL};
use super::rows::Selected;
use crate::traceql::ast::{Field, Intrinsic, OverTime};
use crate::traceql::coded::{self, Coded, Number};
use crate::traceql::column::Code;
use crate::traceql::control::{Control, Stopped};
use crate::traceql::reader::{Reader, Scan};
use crate::traceql::segment::SegmentError;
use crate::traceql::value::Value;

/// What is folded.
pub struct Plan<'q> {
    pub function: &'q OverTime,
    pub by: &'q [Field],
    /// Fields that exemplars show: all that the query names.
    pub shown: Vec<Field>,
    pub intervals: Intervals,
    pub exemplars: usize,
}

pub struct Fold<'q> {
    plan: &'q Plan<'q>,
    grouping: Grouping,
    cells: Cells,
    exemplars: Exemplars,
}

/// Scratch that is used again for each segment.
#[derive(Default)]
pub struct Scratch {
    columns: Columns,
    codes: Vec<Code>,
    series: Vec<u32>,
    numbers: Vec<f64>,
    buckets: Vec<Bucket>,
}

impl Scratch {
    /// What it holds, but for tables of distinct values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.columns.bytes()
            + self.codes.capacity() * size_of::<Code>()
            + self.series.capacity() * size_of::<u32>()
            + self.numbers.capacity() * size_of::<f64>()
            + self.buckets.capacity() * size_of::<Bucket>()
    }
}

/// The label of histogram series: the upper bound of the bucket.
const BUCKET_LABEL: &str = "__bucket";
/// The label of quantile series.
const QUANTILE_LABEL: &str = "p";

impl Plan<'_> {
    fn cell_function(&self) -> Function {
        match self.function {
            OverTime::Rate | OverTime::Count => Function::Count,
            OverTime::Min(_) => Function::Min,
            OverTime::Max(_) => Function::Max,
            OverTime::Avg(_) => Function::Avg,
            OverTime::Sum(_) => Function::Sum,
            OverTime::Histogram(_) | OverTime::Quantile(..) => Function::Histogram,
        }
    }

    fn name(&self) -> &'static str {
        match self.function {
            OverTime::Rate => "rate",
            OverTime::Count => "count_over_time",
            OverTime::Min(_) => "min_over_time",
            OverTime::Max(_) => "max_over_time",
            OverTime::Avg(_) => "avg_over_time",
            OverTime::Sum(_) => "sum_over_time",
            OverTime::Histogram(_) => "histogram_over_time",
            OverTime::Quantile(..) => "quantile_over_time",
        }
    }

    /// What numbers are divided by: durations are kept in nanoseconds and answered in seconds.
    fn unit(&self) -> f64 {
        let is_duration = matches!(
            self.function.field(),
            Some(Field::Intrinsic(Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart))
        );
        if is_duration { NANOS_PER_SECOND } else { 1.0 }
    }
}

impl<'q> Fold<'q> {
    /// # Errors
    /// The query needs too much memory.
    pub fn new(plan: &'q Plan<'q>, control: &Control) -> Result<Self, Stopped> {
        let mut fold = Self {
            plan,
            grouping: Grouping::default(),
            cells: Cells::new(plan.cell_function(), plan.intervals.count()),
            exemplars: Exemplars::new(plan.exemplars, &plan.intervals),
        };
        if plan.by.is_empty() {
            // There is one series, even if there are no spans.
            fold.grouping.number(Box::default(), control)?;
            fold.cells.grow(1, control)?;
        }
        Ok(fold)
    }

    fn len(&self) -> usize {
        self.grouping.groups().len()
    }

    #[must_use]
    pub fn booked_bytes(&self) -> usize {
        self.grouping.booked_bytes() + self.cells.booked_bytes()
    }

    /// How many [`Fold::lines`] there are.
    #[must_use]
    pub fn line_count(&self) -> usize {
        match self.plan.function {
            OverTime::Quantile(_, quantiles) => self.len() * quantiles.len(),
            OverTime::Histogram(_) => (0..self.len()).map(|series| self.cells.buckets(series).count()).sum(),
            _ => self.len(),
        }
    }

    /// Adds the selected spans of a segment.
    ///
    /// # Errors
    /// The segment could not be read, or the query is to end.
    pub fn add(
        &mut self,
        (scan, reader): (&Scan<'_>, &Rc<Reader>),
        selected: &Selected,
        scratch: &mut Scratch,
        control: &Control,
    ) -> Result<(), SegmentError> {
        let rows = &selected.rows[..];
        if rows.is_empty() {
            return Ok(());
        }
        // All that can fail is read before anything is added.
        let fields = self.plan.by.iter().map(|field| coded::read(field, scan, reader, rows));
        let fields: Vec<Option<Coded>> = fields.collect::<Result<_, _>>()?;
        let origin = self.measure(scan, reader, rows, scratch)?;
        let fields: Vec<Option<&Coded>> = fields.iter().map(Option::as_ref).collect();
        self.grouping.assign(&fields, rows, &mut scratch.columns, control, &mut scratch.series)?;
        self.cells.grow(self.grouping.groups().len(), control)?;
        let measured = match self.plan.cell_function() {
            Function::Count => Measured::Nothing,
            Function::Histogram => Measured::Buckets(&scratch.buckets),
            _ => Measured::Numbers(&scratch.numbers),
        };
        self.cells.add(&scratch.series, &selected.intervals, measured, control)?;
        if !self.exemplars.is_off() {
            self.choose(scan, reader, rows, &scratch.series, &origin)?;
        }
        Ok(())
    }

    /// Adds what another thread folded.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn merge(&mut self, other: Self, control: &Control) -> Result<(), Stopped> {
        let numbers = other.grouping.groups().iter().map(|group| self.grouping.number(group.clone(), control));
        let numbers: Vec<u32> = numbers.collect::<Result<_, _>>()?;
        self.cells.grow(self.grouping.groups().len(), control)?;
        self.cells.merge(&other.cells, &numbers, control)?;
        control.release(other.booked_bytes());
        self.exemplars.merge(other.exemplars, &numbers);
        Ok(())
    }

    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        match self.plan.function {
            OverTime::Quantile(_, quantiles) => self.quantile_lines(quantiles),
            OverTime::Histogram(_) => self.histogram_lines(),
            _ => self.scalar_lines(),
        }
    }

    /// Fills the scratch's numbers or buckets; returns where they are from.
    fn measure(
        &self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        rows: &[u16],
        scratch: &mut Scratch,
    ) -> Result<Origin, SegmentError> {
        let Some(field) = self.plan.function.field() else { return Ok(Origin::Nothing) };
        let bucketed = self.plan.cell_function() == Function::Histogram;
        scratch.numbers.clear();
        scratch.buckets.clear();
        if *field == Field::Intrinsic(Intrinsic::Duration) {
            let durations = reader.durations()?;
            let durations = rows.iter().map(|row| durations.get(usize::from(*row)).copied().unwrap_or(0));
            if bucketed {
                scratch.buckets.extend(durations.map(histogram::bucket));
            } else {
                scratch.numbers.extend(durations.map(|nanos| nanos as f64));
            }
            return Ok(Origin::Durations);
        }
        let Some(coded) = coded::read(field, scan, reader, rows)? else {
            scratch.numbers.resize(rows.len(), f64::NAN);
            scratch.buckets.resize(rows.len(), 0);
            return Ok(Origin::Nothing);
        };
        coded.gather(rows, &mut scratch.codes);
        let codes = (0..=coded.code_max() as Code).map(|code| coded.number(code));
        if bucketed {
            let table: Vec<Bucket> = codes.map(|number| number.map_or(0, bucket_of)).collect();
            let bucket = |code: &Code| table.get(usize::from(*code)).copied().unwrap_or(0);
            scratch.buckets.extend(scratch.codes.iter().map(bucket));
        } else {
            let table: Vec<f64> = codes.map(|number| number.map_or(f64::NAN, float_of)).collect();
            let number = |code: &Code| table.get(usize::from(*code)).copied().unwrap_or(f64::NAN);
            scratch.numbers.extend(scratch.codes.iter().map(number));
        }
        Ok(Origin::Coded(coded))
    }

    /// One span of each trace may become an exemplar: which, the trace's fingerprint says.
    fn choose(
        &mut self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        rows: &[u16],
        series: &[u32],
        origin: &Origin,
    ) -> Result<(), SegmentError> {
        let (times, starts) = (reader.segment().times(), reader.starts()?);
        let measured = self.plan.function.field().is_some();
        let bar = |exemplars: &Exemplars| exemplars.bar(times.min_start, times.max_start);
        let exemplars = &mut self.exemplars;
        exemplars.forget_without_labels();
        exemplars::visit_traces(reader, rows, bar(exemplars), |trace, position| {
            let (Some(row), Some(series)) = (rows.get(position), series.get(position)) else {
                return Ok(bar(exemplars));
            };
            let start = starts.get(usize::from(*row)).copied().unwrap_or(0);
            if exemplars.wants(trace, start) {
                let value = origin.number(reader, usize::from(*row))?;
                if value.is_some() || !measured {
                    let value = value.unwrap_or(f64::NAN);
                    exemplars.offer(Chosen { trace, series: *series, start, value, labels: None, row: *row });
                }
            }
            Ok(bar(exemplars))
        })?;
        exemplars::label(self.exemplars.without_labels(), &self.plan.shown, scan, reader)
    }

    /// The exemplars, with numbers as they were measured.
    fn marks(&self) -> Vec<(usize, Mark)> {
        let mark = |chosen: &Chosen| {
            let labels = chosen.labels.clone().unwrap_or_default();
            (chosen.series as usize, Mark { labels, start: chosen.start, value: chosen.value })
        };
        self.exemplars.chosen().into_iter().map(mark).collect()
    }

    fn scalar_lines(&self) -> Vec<Line> {
        let rate = *self.plan.function == OverTime::Rate;
        let divisor = if rate { self.plan.intervals.seconds() } else { self.plan.unit() };
        let mut lines: Vec<Line> = (0..self.len())
            .map(|series| {
                let numbers = self.cells.numbers(series).into_iter().map(|number| number / divisor).collect();
                Line { labels: self.labels(series, None), numbers, exemplars: Vec::new() }
            })
            .collect();
        for (series, mark) in self.marks() {
            if let Some(line) = lines.get_mut(series) {
                line.exemplars.push(Mark { value: mark.value / divisor, ..mark });
            }
        }
        lines
    }

    fn histogram_lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let marks = self.marks();
        for series in 0..self.len() {
            for (bucket, counts) in self.cells.buckets(series) {
                let bound = histogram::upper_bound(bucket) / self.plan.unit();
                let in_bucket = |(of, mark): &&(usize, Mark)| {
                    *of == series && usize::from(histogram::bucket(mark.value as u64)) == bucket
                };
                let exemplars =
                    marks.iter().filter(in_bucket).map(|(_, mark)| Mark { value: f64::NAN, ..mark.clone() });
                lines.push(Line {
                    labels: self.labels(series, Some((BUCKET_LABEL, bound))),
                    numbers: counts.iter().map(|count| *count as f64).collect(),
                    exemplars: exemplars.collect(),
                });
            }
        }
        lines
    }

    fn quantile_lines(&self, quantiles: &[f64]) -> Vec<Line> {
        let unit = self.plan.unit();
        let overall: Vec<f64> = quantiles.iter().map(|p| self.overall_quantile(*p)).collect();
        let mut lines = Vec::new();
        let marks = self.marks();
        for series in 0..self.len() {
            let buckets: Vec<(usize, &[u64])> = self.cells.buckets(series).collect();
            if buckets.is_empty() {
                continue;
            }
            let mut counts: Vec<(usize, u64)> = Vec::new();
            for (index, p) in quantiles.iter().enumerate() {
                let number = |interval: usize| {
                    counts.clear();
                    let of_interval = buckets.iter().filter_map(|(bucket, line)| Some((*bucket, *line.get(interval)?)));
                    counts.extend(of_interval.filter(|(_, count)| *count > 0));
                    histogram::quantile(*p, &counts).unwrap_or(0.0) / unit
                };
                let nearest =
                    |(of, mark): &&(usize, Mark)| *of == series && nearest(&overall, mark.value) == Some(index);
                let exemplars =
                    marks.iter().filter(nearest).map(|(_, mark)| Mark { value: mark.value / unit, ..mark.clone() });
                lines.push(Line {
                    exemplars: exemplars.collect(),
                    labels: self.labels(series, Some((QUANTILE_LABEL, *p))),
                    numbers: (0..self.plan.intervals.count()).map(number).collect(),
                });
            }
        }
        lines
    }

    /// Over all series and intervals, as measured.
    fn overall_quantile(&self, p: f64) -> f64 {
        let mut counts = [0; BUCKETS];
        for (bucket, line) in (0..self.len()).flat_map(|series| self.cells.buckets(series)) {
            if let Some(count) = counts.get_mut(bucket) {
                *count += line.iter().sum::<u64>();
            }
        }
        let counts: Vec<(usize, u64)> = counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        histogram::quantile(p, &counts).unwrap_or(0.0)
    }

    /// Nil values are left out; if nothing else is left, the first stays.
    fn labels(&self, series: usize, own: Option<(&str, f64)>) -> Labels {
        let group: &[Option<Value>] = self.grouping.groups().get(series).map_or(&[], |group| group);
        let values = self.plan.by.iter().zip(group);
        let mut labels: Labels = values
            .filter(|(_, value)| value.is_some())
            .map(|(field, value)| (field.to_string(), value.clone()))
            .collect();
        labels.extend(own.map(|(name, number)| (name.to_owned(), Some(Value::Float(number)))));
        if labels.is_empty() {
            labels.push(match self.plan.by.first() {
                Some(field) => (field.to_string(), None),
                None => (NAME_LABEL.to_owned(), Some(Value::String(self.plan.name().into()))),
            });
        }
        labels
    }
}

/// Where the numbers of spans are from.
enum Origin {
    Nothing,
    Durations,
    Coded(Coded),
}

impl Origin {
    fn number(&self, reader: &Rc<Reader>, row: usize) -> Result<Option<f64>, SegmentError> {
        Ok(match self {
            Self::Nothing => None,
            Self::Durations => reader.durations()?.get(row).map(|nanos| *nanos as f64),
            Self::Coded(coded) => coded.number(coded.codes().get(row)).map(float_of),
        })
    }
}

fn float_of(number: Number) -> f64 {
    match number {
        Number::Int(number) | Number::Nanos(number) => number as f64,
        Number::Float(number) => number,
    }
}

/// Only whole numbers have buckets, as in Tempo.
fn bucket_of(number: Number) -> Bucket {
    match number {
        Number::Int(number) | Number::Nanos(number) => histogram::bucket(u64::try_from(number).unwrap_or(0)),
        Number::Float(_) => 0,
    }
}

fn nearest(numbers: &[f64], wanted: f64) -> Option<usize> {
    let distances = numbers.iter().enumerate().map(|(index, number)| (index, (number - wanted).abs()));
    distances.min_by(|(_, left), (_, right)| left.total_cmp(right)).map(|(index, _)| index)
}
