//! What is asked: from the parameters of a URL or from a gRPC message, understood and within its limits.
//!
//! Both ways lead through one form per question, so that limits, defaults and error texts are the same.

mod metrics;
mod search;
mod tags;

pub(super) use metrics::{InstantCall, RangeCall};
pub(super) use search::{Origin, SPANS_MAX, SearchCall};
pub(super) use tags::{TagNames, TagScope, TagsCall, ValuesCall};

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::QueryError;
use super::parameters::{Nanos, ParameterError, Parameters, prometheus_duration, timestamp};

/// Bytes of a TraceQL expression, as Tempo has it.
pub(super) const QUERY_BYTES_MAX: usize = 128 * 1024;

/// How far back is looked when no time is given, as Tempo does.
const DEFAULT_LOOKBACK: Nanos = 15 * 60 * SECOND;

/// The longest range of searches and tags, Tempo's `max_duration`.
const RANGE_MAX: Nanos = 168 * 3600 * SECOND;
const RANGE_MAX_TEXT: &str = "168h0m0s";

const SECOND: Nanos = 1_000_000_000;

/// Unix nanoseconds now.
pub(super) fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as Nanos)
}

/// A time within what spans can have.
fn to_u64(nanos: Nanos) -> u64 {
    u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
}

/// Every expression in the URL, whichever will count.
pub(super) fn check_query_lengths(parameters: &Parameters) -> Result<(), ParameterError> {
    ["q", "query"].into_iter().flat_map(|name| parameters.all(name)).try_for_each(check_query_length)
}

fn check_query_length(text: &str) -> Result<(), ParameterError> {
    match text.len() > QUERY_BYTES_MAX {
        true => Err(ParameterError::QueryTooLong { max: QUERY_BYTES_MAX }),
        false => Ok(()),
    }
}

/// The times of a search or of tags as they were given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct GivenRange {
    start: Option<String>,
    end: Option<String>,
    since: Option<String>,
}

/// The window that spans must start in, Unix nanoseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: u64,
    end: u64,
}

impl GivenRange {
    fn of(parameters: &Parameters) -> Self {
        let text = |name| parameters.get(name).map(str::to_owned);
        Self { start: text("start"), end: text("end"), since: text("since") }
    }

    /// Of a gRPC message, where 0 is absent.
    fn of_seconds(start: u32, end: u32) -> Self {
        let text = |seconds: u32| (seconds != 0).then(|| seconds.to_string());
        Self { start: text(start), end: text(end), since: None }
    }

    /// `since` wins over `start` and `end`; without any, the last quarter of an hour. Unlike Tempo, which hides its
    /// newest 30 seconds, `end` is taken as it is given: up to the end of its second.
    fn window(&self, now: Nanos) -> Result<Window, ParameterError> {
        let read = |name, text: &str| timestamp(text).map_err(|reason| ParameterError::DateRange { name, reason });
        if let Some(since) = &self.since {
            let since =
                prometheus_duration(since).map_err(|reason| ParameterError::DateRange { name: "since", reason })?;
            return bounded(now - since.as_nanos() as Nanos, now, now);
        }
        match (&self.start, &self.end) {
            (None, None) => bounded(now - DEFAULT_LOOKBACK, now, now),
            (Some(start), Some(end)) => {
                let (start, end) = (read("start", start)?, read("end", end)?);
                // Zeros are no times.
                if start == 0 && end == 0 {
                    return bounded(now - DEFAULT_LOOKBACK, now, now);
                }
                bounded(start, end.div_euclid(SECOND) * SECOND + SECOND - 1, now)
            }
            _ => Err(ParameterError::HalfRange),
        }
    }
}

/// The range must not be reversed or too long; what of it lies in the future does not count towards its length.
fn bounded(start: Nanos, end: Nanos, now: Nanos) -> Result<Window, ParameterError> {
    let seconds = |nanos: Nanos| i64::try_from(nanos.div_euclid(SECOND)).unwrap_or(i64::MAX);
    let (start_seconds, end_seconds) = (seconds(start), seconds(end));
    if end_seconds < start_seconds {
        return Err(ParameterError::EmptyRange { start: start_seconds, end: end_seconds });
    }
    if i128::from(seconds(end.min(now))) - i128::from(start_seconds) > RANGE_MAX / SECOND {
        return Err(ParameterError::RangeTooLong {
            max: RANGE_MAX_TEXT.to_owned(),
            start: start_seconds,
            end: end_seconds,
        });
    }
    Ok(Window { start: to_u64(start), end: to_u64(end) })
}

/// A message could not be read: a truncated frame, a text that is no UTF-8.
fn malformed(what: impl std::fmt::Display) -> QueryError {
    QueryError::Message(what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::{put_bytes, put_uint};
    use proptest::prelude::*;

    const NOW: Nanos = 1_700_000_000 * SECOND + 123;

    fn given(start: Option<&str>, end: Option<&str>, since: Option<&str>) -> Result<Window, String> {
        let text = |value: Option<&str>| value.map(str::to_owned);
        let range = GivenRange { start: text(start), end: text(end), since: text(since) };
        range.window(NOW).map_err(|error| error.to_string())
    }

    fn window(start: Nanos, end: Nanos) -> Result<Window, String> {
        Ok(Window { start: to_u64(start), end: to_u64(end) })
    }

    #[test]
    fn without_times_it_is_the_last_quarter_of_an_hour_up_to_now() {
        assert_eq!(given(None, None, None), window(NOW - 900 * SECOND, NOW));
        assert_eq!(given(Some("0"), Some("0"), None), window(NOW - 900 * SECOND, NOW));
    }

    #[test]
    fn since_wins_over_start_and_end() {
        assert_eq!(given(Some("1"), Some("2"), Some("1h")), window(NOW - 3600 * SECOND, NOW));
        let text = r#"error parsing date range: could not parse 'since' parameter: not a valid duration string: "x""#;
        assert_eq!(given(None, None, Some("x")), Err(text.to_owned()));
    }

    #[test]
    fn an_end_includes_its_second_and_is_not_cut_off() {
        let end = 1_700_000_000 * SECOND + SECOND - 1;
        assert_eq!(given(Some("1699999000"), Some("1700000000"), None), window(1_699_999_000 * SECOND, end));
        let nanos = given(Some("1699999000000000000"), Some("1700000000000000000"), None);
        assert_eq!(nanos, window(1_699_999_000 * SECOND, end));
    }

    #[test]
    fn half_reversed_and_endless_ranges_are_refused_with_tempos_texts() {
        let half = "error parsing date range: only one of start and end provided: must provide both or neither";
        assert_eq!(given(Some("5"), None, None), Err(half.to_owned()));
        assert_eq!(given(None, Some("5"), None), Err(half.to_owned()));
        let reversed = "http parameter start must be before end. received start=1700000000 end=1699999999";
        assert_eq!(given(Some("1700000000"), Some("1699999999"), None), Err(reversed.to_owned()));
        let long = "range specified by start and end exceeds 168h0m0s. received start=1699395199 end=1700000000";
        assert_eq!(given(Some("1699395199"), Some("1700000000"), None), Err(long.to_owned()));
        assert!(given(Some("1699395200"), Some("1700000000"), None).is_ok());
        // What lies in the future does not count.
        assert!(given(Some("1699400000"), Some("1800000000"), None).is_ok());
        assert!(given(Some("99999999999999999999999999.5"), Some("0.5"), None).is_err());
    }

    /// A message of the fields that `tempopb` has, and of others, with whatever is in them.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let field = (1..20u32, any::<u64>(), prop_oneof![Just(None), "[{}.a= |()0-9]{0,20}".prop_map(Some)]);
        proptest::collection::vec(field, 0..8).prop_map(|fields| {
            let mut message = Vec::new();
            for (number, value, text) in fields {
                match text {
                    Some(text) => put_bytes(&mut message, number, text.as_bytes()),
                    None => put_uint(&mut message, number, value),
                }
            }
            message
        })
    }

    proptest! {
        #[test]
        fn any_message_is_understood_or_refused(bytes in prop_oneof![any::<Vec<u8>>(), message()]) {
            let _ = (SearchCall::from_message(&bytes, NOW), TagsCall::from_message(&bytes, NOW));
            let _ = (RangeCall::from_message(&bytes, NOW), InstantCall::from_message(&bytes, NOW));
            for names in [TagNames::Plain, TagNames::TraceQl] {
                let _ = ValuesCall::from_message(&bytes, names, NOW);
            }
        }
    }
}
