//! `/api/metrics/query_range`, `/api/metrics/query` and their RPCs.

use std::time::Duration;

use super::{check_query_length, check_query_lengths, malformed, to_u64};
use crate::config::duration;
use crate::otlp::wire::{Fields, Payload};
use crate::query::engine;
use crate::query::error::QueryError;
use crate::query::parameters::{
    Nanos, ParameterError, Parameters, prometheus_duration, seconds_or_go_duration, timestamp,
};
use crate::traceql::ast::{Query, Root};
use crate::traceql::request::{InstantRequest, RangeRequest};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;

/// How far back is looked when no start is given.
const LOOKBACK_DEFAULT: Duration = Duration::from_secs(3600);

/// Tempo's `query_frontend.metrics.max_duration`.
const RANGE_MAX: u64 = 24 * 60 * MINUTE;

/// Tempo's `max_intervals`.
const INTERVALS_MAX: u64 = 10_000;

/// Tempo's `max_exemplars`.
const EXEMPLARS_MAX: u32 = 100;

/// Samples that a default step aims at.
const SAMPLES_WANTED: u64 = 240;

/// Default steps are multiples of the largest of these that is below the range's share.
const STEP_UNITS: [u64; 6] = [60 * MINUTE, 5 * MINUTE, MINUTE, 15 * SECOND, 5 * SECOND, SECOND];

/// What default steps are multiples of where a range is shorter than a minute.
const STEP_UNIT_SHORT: u64 = 50 * MILLISECOND;

/// Series over time.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeCall {
    pub query: Query,
    pub request: RangeRequest,
}

/// One value per series.
#[derive(Debug, Clone, PartialEq)]
pub struct InstantCall {
    pub query: Query,
    pub request: InstantRequest,
}

/// Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    start: u64,
    end: u64,
}

/// As given.
#[derive(Debug, Clone, Default)]
struct Given {
    query: String,
    bounds: Option<Bounds>,
    /// Nanoseconds.
    step: Option<u64>,
    exemplars: u32,
    series_max: u32,
    shape: Shape,
}

/// The samples of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Shape {
    #[default]
    Steps,
    /// One over all of it, at its end: `instant`.
    OneInterval,
}

impl Shape {
    /// As Go reads a boolean; what is none counts as not given.
    fn of_url(instant: Option<&str>) -> Self {
        match instant {
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Self::OneInterval,
            _ => Self::Steps,
        }
    }
}

impl RangeCall {
    pub fn from_url(parameters: &Parameters, now: Nanos) -> Result<Self, QueryError> {
        check_query_lengths(parameters)?;
        let bounds = bounds(parameters, now)?;
        let step = parameters.get("step").map(seconds_or_go_duration).transpose().map_err(ParameterError::Step)?;
        // Bad numbers are none, here.
        let number = |name| parameters.u32(name).unwrap_or_default().unwrap_or_default();
        let (exemplars, series_max) = (number("exemplars"), number("maxSeries"));
        let shape = Shape::of_url(parameters.get("instant"));
        Given { query: query(parameters), bounds: Some(bounds), step, exemplars, series_max, shape }.range(now)
    }

    /// `tempopb.QueryRangeRequest`.
    pub fn from_message(message: &[u8], now: Nanos) -> Result<Self, QueryError> {
        Given::from_message(message)?.range(now)
    }
}

impl InstantCall {
    pub fn from_url(parameters: &Parameters, now: Nanos) -> Result<Self, QueryError> {
        check_query_lengths(parameters)?;
        let bounds = Some(bounds(parameters, now)?);
        Given { query: query(parameters), bounds, ..Given::default() }.instant(now)
    }

    /// `tempopb.QueryInstantRequest`, whose fields are the first of a `QueryRangeRequest`.
    pub fn from_message(message: &[u8], now: Nanos) -> Result<Self, QueryError> {
        Given::from_message(message)?.instant(now)
    }
}

impl Given {
    fn from_message(message: &[u8]) -> Result<Self, QueryError> {
        let (mut given, mut bounds) = (Self::default(), Bounds { start: 0, end: 0 });
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match (field.number, field.payload) {
                (1, Payload::Bytes(query)) => given.query = std::str::from_utf8(query).map_err(malformed)?.to_owned(),
                (2, Payload::Varint(nanos)) => bounds.start = nanos,
                (3, Payload::Varint(nanos)) => bounds.end = nanos,
                (4, Payload::Varint(nanos)) => given.step = Some(nanos).filter(|nanos| *nanos != 0),
                (16, Payload::Varint(count)) => given.exemplars = count as u32,
                (17, Payload::Varint(count)) => given.series_max = count as u32,
                (18, Payload::Varint(1)) => given.shape = Shape::OneInterval,
                _ => {}
            }
        }
        check_query_length(&given.query)?;
        given.bounds = Some(bounds);
        Ok(given)
    }

    fn query(&self) -> Result<Query, QueryError> {
        let query = engine::read(&self.query)?;
        match query.root {
            Root::Metrics(_) => Ok(query),
            Root::Search(_) => Err(QueryError::NoMetrics),
        }
    }

    /// The range that is answered: nothing can have started after now, so that an end in the future is none. Unlike
    /// with Tempo the newest interval is there while it is still filling.
    fn bounds(&self, now: Nanos) -> Result<Bounds, ParameterError> {
        let Bounds { start, end } = self.bounds.unwrap_or(Bounds { start: 0, end: 0 });
        if start >= end {
            return Err(ParameterError::EndNotAfterStart);
        }
        let end = if start < to_u64(now) { end.min(to_u64(now)) } else { end };
        if end - start > RANGE_MAX {
            return Err(ParameterError::MetricsRangeTooLong(go_text(RANGE_MAX)));
        }
        Ok(Bounds { start, end })
    }

    fn range(self, now: Nanos) -> Result<RangeCall, QueryError> {
        let given = self.bounds.unwrap_or(Bounds { start: 0, end: 0 });
        let bounds = self.bounds(now)?;
        let step = self.step.unwrap_or_else(|| default_step(given.end - given.start));
        let length = bounds.end - bounds.start;
        if step == 0 || length / step > INTERVALS_MAX {
            let (step, min) = (go_text(step), go_text(length / INTERVALS_MAX));
            return Err(ParameterError::StepTooSmall { step, min }.into());
        }
        let query = self.query()?;
        let exemplars = if self.exemplars == 0 { EXEMPLARS_MAX } else { self.exemplars.min(EXEMPLARS_MAX) };
        let (start, end, step) = match self.shape {
            Shape::Steps => {
                let (start, end) = aligned(bounds, step);
                (start, end, step)
            }
            Shape::OneInterval => (bounds.end, bounds.end, length),
        };
        let request =
            RangeRequest { start, end, step, exemplars: exemplars as usize, series_max: self.series_max as usize };
        Ok(RangeCall { query, request })
    }

    fn instant(self, now: Nanos) -> Result<InstantCall, QueryError> {
        let bounds = self.bounds(now)?;
        let query = self.query()?;
        let request = InstantRequest { start: bounds.start, end: bounds.end, series_max: self.series_max as usize };
        Ok(InstantCall { query, request })
    }
}

/// `q` wins over `query`.
fn query(parameters: &Parameters) -> String {
    parameters.get("q").or_else(|| parameters.get("query")).unwrap_or_default().to_owned()
}

fn bounds(parameters: &Parameters, now: Nanos) -> Result<Bounds, ParameterError> {
    let unparsable = |name| move |reason| ParameterError::Unparsable { name, reason };
    let since = match parameters.get("since") {
        Some(text) => prometheus_duration(text).map_err(unparsable("since"))?,
        None => LOOKBACK_DEFAULT,
    };
    let time = |name: &'static str| parameters.get(name).map(timestamp).transpose().map_err(unparsable(name));
    let end = time("end")?.unwrap_or(now);
    let start = time("start")?.unwrap_or(end.min(now) - since.as_nanos() as Nanos);
    Ok(Bounds { start: to_u64(start), end: to_u64(end) })
}

/// Tempo's rule: some 240 samples, at round times.
fn default_step(length: u64) -> u64 {
    let share = length / SAMPLES_WANTED;
    if length < MINUTE {
        return (share / STEP_UNIT_SHORT).max(1) * STEP_UNIT_SHORT;
    }
    let unit = STEP_UNITS.into_iter().find(|unit| share > *unit);
    unit.map_or(SECOND, |unit| share / unit * unit)
}

/// The times of the first and the last sample: multiples of the step, so that a chart does not change when its window
/// moves. The first is at or before the start, the last at or after the end.
fn aligned(bounds: Bounds, step: u64) -> (u64, u64) {
    let start = bounds.start - bounds.start % step;
    let end = bounds.end.checked_next_multiple_of(step).unwrap_or(bounds.end - bounds.end % step);
    // An interval reaches one step back, which must not be before the epoch.
    let start = if start == 0 { step } else { start };
    (start, end.max(start))
}

fn go_text(nanos: u64) -> String {
    duration::format(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_steps_are_round() {
        const HOUR: u64 = 60 * MINUTE;
        for (length, step) in [
            (SECOND, 50 * MILLISECOND),
            (30 * SECOND, 100 * MILLISECOND),
            (MINUTE, SECOND),
            (5 * MINUTE, SECOND),
            (30 * MINUTE, 5 * SECOND),
            (HOUR, 15 * SECOND),
            (3 * HOUR, 45 * SECOND),
            (6 * HOUR, MINUTE),
            (24 * HOUR, 5 * MINUTE),
        ] {
            assert_eq!(default_step(length), step, "{length}");
        }
    }

    fn asked(parameters: &[(&str, &str)], now: u64) -> RangeRequest {
        let pairs = [("q", "{} | rate()")].iter().chain(parameters);
        let parameters =
            Parameters::new(pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        RangeCall::from_url(&parameters, Nanos::from(now)).unwrap().request
    }

    #[test]
    fn a_step_stays_as_it_was_asked_for() {
        const NOW: u64 = 1_700_000_406 * SECOND;
        let of = |step: &str| asked(&[("start", "1700000000"), ("end", "1700003600"), ("step", step)], NOW);
        let request = of("600");
        assert_eq!(
            (request.start, request.end, request.step / SECOND),
            (1_699_999_800 * SECOND, 1_700_000_400 * SECOND + 600 * SECOND, 600)
        );
        assert_eq!(of("100000").step, 100_000 * SECOND);
        assert_eq!(of("9223372036").step, 9_223_372_036 * SECOND);
    }

    #[test]
    fn an_instant_range_is_one_interval_over_all_of_it() {
        const NOW: u64 = 1_700_010_000 * SECOND;
        for (instant, step) in [("true", 1000), ("1", 1000), ("false", 10), ("perhaps", 10)] {
            let request =
                asked(&[("start", "1700000000"), ("end", "1700001000"), ("step", "10"), ("instant", instant)], NOW);
            assert_eq!(request.step, step * SECOND, "{instant}");
            assert_eq!(request.end, 1_700_001_000 * SECOND);
            assert_eq!(request.start == request.end, step == 1000);
        }
    }

    #[test]
    fn samples_stand_at_multiples_of_the_step_around_the_range() {
        let bounds = |start, end| Bounds { start, end };
        assert_eq!(aligned(bounds(103, 198), 10), (100, 200));
        assert_eq!(aligned(bounds(100, 200), 10), (100, 200));
        assert_eq!(aligned(bounds(3, 5), 10), (10, 10));
        assert_eq!(aligned(bounds(5, u64::MAX), 10), (10, u64::MAX - 5));
        assert_eq!(aligned(bounds(100, 200), u64::MAX), (u64::MAX, u64::MAX));
    }

    proptest! {
        #[test]
        fn every_range_has_samples_within_the_limit(start in 0..u64::MAX / 2, length in 1..=RANGE_MAX) {
            let step = default_step(length);
            let (first, last) = aligned(Bounds { start, end: start + length }, step);
            prop_assert!(first % step == 0 && last % step == 0 && first <= last && first >= step);
            prop_assert!(start >= first - step && start + length <= last.max(start + length));
            prop_assert!((last - first) / step <= INTERVALS_MAX + 1);
        }
    }
}
