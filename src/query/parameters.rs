//! Parameters of a URL, read as Tempo reads them: the first of a name counts, an empty one is none, unknown ones are
//! tolerated, and what is wrong is said in the words of Go's `strconv`, because people look those up.

mod time;

pub(super) use time::{Nanos, go_duration, prometheus_duration, seconds_or_go_duration, timestamp};

use thiserror::Error;

/// How much of a wrong value an error repeats: enough to recognise it by.
const QUOTED_CHARS_MAX: usize = 64;

/// The parameters in the order of the URL, decoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// Why a parameter was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParameterError {
    #[error("invalid {name}: {reason}")]
    Invalid { name: &'static str, reason: ValueError },
    #[error("invalid value for {name}: {reason}")]
    Value { name: &'static str, reason: ValueError },
    #[error("could not parse '{name}' parameter: {reason}")]
    Unparsable { name: &'static str, reason: ValueError },
    #[error("error parsing date range: could not parse '{name}' parameter: {reason}")]
    DateRange { name: &'static str, reason: ValueError },
    #[error("error parsing date range: only one of start and end provided: must provide both or neither")]
    HalfRange,
    #[error("http parameter start must be before end. received start={start} end={end}")]
    EmptyRange { start: i64, end: i64 },
    #[error("range specified by start and end exceeds {max}. received start={start} end={end}")]
    RangeTooLong { max: String, start: i64, end: i64 },
    #[error("limit {limit} exceeds max limit {max}")]
    LimitTooLarge { limit: u32, max: u32 },
    #[error("invalid limit: must be a positive number")]
    LimitZero,
    #[error("spans per span set exceeds {max}. received {given}")]
    SpansTooMany { given: u32, max: u32 },
    #[error("invalid request: can't specify tags and q in the same query")]
    TagsAndQuery,
    #[error("invalid tags: {0}")]
    Tags(String),
    #[error("invalid maxDuration: must be greater than minDuration")]
    DurationsReversed,
    #[error("invalid scope: {0}")]
    Scope(String),
    #[error("please provide a non-empty tagName")]
    NoTagName,
    #[error("end must be greater than start")]
    EndNotAfterStart,
    #[error("{0}")]
    Step(ValueError),
    #[error("metrics query time range exceeds the maximum allowed duration of {0}")]
    MetricsRangeTooLong(String),
    #[error("step of {step} is too small, minimum step for given range is {min}")]
    StepTooSmall { step: String, min: String },
    #[error(
        "TraceQL expression exceeds the configured maximum size of {max} bytes, reduce the query expression size or \
         contact your system administrator"
    )]
    QueryTooLong { max: usize },
}

/// Why a value is none of its type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    #[error("strconv.{function}: parsing {value:?}: invalid syntax")]
    Syntax { function: &'static str, value: String },
    #[error("strconv.{function}: parsing {value:?}: value out of range")]
    Range { function: &'static str, value: String },
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    #[error("time: missing unit in duration {0:?}")]
    DurationUnit(String),
    #[error("time: unknown unit {unit:?} in duration {value:?}")]
    DurationUnitUnknown { unit: String, value: String },
    #[error("must not be negative")]
    Negative,
    #[error("must be >= -1")]
    BelowMinusOne,
    #[error("empty duration string")]
    Empty,
    #[error("not a valid duration string: {0:?}")]
    Prometheus(String),
    #[error("duration out of range")]
    DurationRange,
    #[error("cannot parse {0:?} to a valid duration")]
    Step(String),
    #[error("cannot parse {0:?} to a valid duration. It overflows int64")]
    StepOverflow(String),
    #[error("cannot parse {0:?}: step must be positive")]
    StepNegative(String),
}

impl Parameters {
    pub fn new(decoded: Vec<(String, String)>) -> Self {
        Self(decoded)
    }

    /// The first of this name, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whatever has this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The names in their order, each with the first of its values; those without one are left out.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let first = |index: usize, name: &str| !self.0.iter().take(index).any(|(earlier, _)| earlier == name);
        let distinct = self.0.iter().enumerate().filter(move |(index, (name, _))| first(*index, name));
        distinct.map(|(_, (name, value))| (name.as_str(), value.as_str())).filter(|(_, value)| !value.is_empty())
    }

    /// A number of 32 bits without sign.
    pub fn u32(&self, name: &'static str) -> Result<Option<u32>, ParameterError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match unsigned(text) {
            Ok(number) => Ok(Some(number)),
            Err(reason) => Err(ParameterError::Invalid { name, reason }),
        }
    }
}

/// `strconv.ParseUint` with 32 bits: digits and nothing else.
pub(super) fn unsigned(text: &str) -> Result<u32, ValueError> {
    const FUNCTION: &str = "ParseUint";
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::Syntax { function: FUNCTION, value: quoted(text) });
    }
    text.parse().map_err(|_| ValueError::Range { function: FUNCTION, value: quoted(text) })
}

/// `strconv.ParseInt` with 64 bits.
pub(super) fn signed(text: &str) -> Result<i64, ValueError> {
    signed_as("ParseInt", text)
}

/// `strconv.Atoi`.
pub(super) fn integer(text: &str) -> Result<i64, ValueError> {
    signed_as("Atoi", text)
}

/// `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Syntax { function: "ParseBool", value: quoted(text) }),
    }
}

fn signed_as(function: &'static str, text: &str) -> Result<i64, ValueError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::Syntax { function, value: quoted(text) });
    }
    text.parse().map_err(|_| ValueError::Range { function, value: quoted(text) })
}

/// The beginning of a value that comes from outside, for an error.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_first_of_a_name_counts_and_an_empty_one_is_none() {
        let given = parameters(&[("a", ""), ("b", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(given.get("a"), None);
        assert_eq!(given.get("b"), Some("1"));
        assert_eq!(given.get("c"), None);
        assert_eq!(given.all("b").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(given.named().collect::<Vec<_>>(), [("b", "1")]);
    }

    #[test]
    fn numbers_are_refused_in_the_words_of_go() {
        let text = |value: &str| parameters(&[("limit", value)]).u32("limit").map_err(|error| error.to_string());
        assert_eq!(text("20"), Ok(Some(20)));
        assert_eq!(text(""), Ok(None));
        let wrong = |value: &str, what: &str| format!("invalid limit: strconv.ParseUint: parsing {value:?}: {what}");
        for value in ["-1", "x", "1.5", "+1", " 1", "0x10"] {
            assert_eq!(text(value), Err(wrong(value, "invalid syntax")));
        }
        assert_eq!(text("4294967296"), Err(wrong("4294967296", "value out of range")));
    }

    #[test]
    fn an_endless_value_is_not_repeated_whole() {
        let error = signed(&"x".repeat(100_000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{}", error.len());
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(number: u32, signed_number: i64) {
            prop_assert_eq!(unsigned(&number.to_string()), Ok(number));
            prop_assert_eq!(signed(&signed_number.to_string()), Ok(signed_number));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = (unsigned(&text), signed(&text), boolean(&text));
        }
    }
}
