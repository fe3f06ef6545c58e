//! Times and durations in the three notations that Tempo's parameters have.

use std::time::Duration;

use super::{ValueError, quoted, signed};
use crate::config::duration::{self, DurationError};

/// Unix nanoseconds, and differences of them. Wide, so that no arithmetic on what users write overflows.
pub type Nanos = i128;

pub const SECOND: Nanos = 1_000_000_000;

/// More digits than this are nanoseconds, fewer are seconds.
const SECONDS_DIGITS_MAX: usize = 10;

/// Units of Prometheus in the order in which they must stand, in milliseconds.
const PROMETHEUS_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Beyond it nothing is a time: three thousand times the age of the universe.
const SECONDS_MAX: f64 = 1e21;

/// Whole Unix seconds of up to ten digits, Unix nanoseconds, seconds with a fraction, or RFC 3339.
pub fn timestamp(text: &str) -> Result<Nanos, ValueError> {
    if text.contains('.')
        && let Ok(seconds) = text.parse::<f64>()
        && seconds.abs() <= SECONDS_MAX
    {
        // To the millisecond, as Tempo has it: more is noise of the floating point.
        let millis = (seconds.fract() * 1000.0).round();
        return Ok(seconds.trunc() as Nanos * SECOND + millis as Nanos * 1_000_000);
    }
    match signed(text) {
        Ok(number) if text.len() <= SECONDS_DIGITS_MAX => Ok(Nanos::from(number) * SECOND),
        Ok(number) => Ok(Nanos::from(number)),
        Err(error) => text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_nanosecond).map_err(|_| error),
    }
}

/// A duration as Go writes it.
pub fn go_duration(text: &str) -> Result<Duration, ValueError> {
    duration::parse(text).map_err(|error| match error {
        DurationError::NoUnit => ValueError::DurationUnit(quoted(text)),
        DurationError::UnknownUnit(unit) => ValueError::DurationUnitUnknown { unit, value: quoted(text) },
        DurationError::Negative => ValueError::Negative,
        DurationError::Malformed | DurationError::TooLong => ValueError::Duration(quoted(text)),
    })
}

/// A duration as Prometheus writes it: whole numbers with units from years down to milliseconds, each at most once.
pub fn prometheus_duration(text: &str) -> Result<Duration, ValueError> {
    match text {
        "" => return Err(ValueError::Empty),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let invalid = || ValueError::Prometheus(quoted(text));
    let (mut rest, mut units, mut millis) = (text, &PROMETHEUS_UNITS[..], 0u64);
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let position = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let (_, in_unit) = units.get(position).ok_or_else(invalid)?;
        if number.is_empty() {
            return Err(invalid());
        }
        let sum = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*in_unit)?.checked_add(millis));
        // Go holds it in nanoseconds of 63 bits.
        millis = sum.filter(|sum| *sum <= i64::MAX as u64 / 1_000_000).ok_or(ValueError::DurationRange)?;
        units = units.get(position + 1..).unwrap_or_default();
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// A step: seconds, perhaps with a fraction, or a duration as Go writes it. In nanoseconds.
pub fn seconds_or_go_duration(text: &str) -> Result<u64, ValueError> {
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        if seconds.is_nan() || nanos.abs() > i64::MAX as f64 {
            return Err(ValueError::StepOverflow(quoted(text)));
        }
        if nanos <= -1.0 {
            return Err(ValueError::StepNegative(quoted(text)));
        }
        return Ok(nanos.max(0.0) as u64);
    }
    match duration::parse(text) {
        Ok(duration) => u64::try_from(duration.as_nanos()).map_err(|_| ValueError::StepOverflow(quoted(text))),
        Err(DurationError::Negative) => Err(ValueError::StepNegative(quoted(text))),
        Err(_) => Err(ValueError::Step(quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_seconds_nanoseconds_fractions_or_rfc_3339() {
        let expected = 1_700_000_000 * SECOND;
        for text in ["1700000000", "1700000000000000000", "1700000000.0", "2023-11-14T22:13:20Z"] {
            assert_eq!(timestamp(text), Ok(expected), "{text}");
        }
        assert_eq!(timestamp("1700000000.1239"), Ok(expected + 124_000_000));
        assert_eq!(timestamp("2023-11-14T22:13:20.5+01:00"), Ok(expected - 3600 * SECOND + SECOND / 2));
        assert_eq!(timestamp("-1"), Ok(-SECOND));
        assert_eq!(timestamp("12345678901"), Ok(12_345_678_901));
        let error = timestamp("yesterday").unwrap_err().to_string();
        assert_eq!(error, r#"strconv.ParseInt: parsing "yesterday": invalid syntax"#);
        let error = timestamp("99999999999999999999").unwrap_err().to_string();
        assert_eq!(error, r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#);
    }

    #[test]
    fn prometheus_durations_have_their_units_in_order() {
        let seconds = |text| prometheus_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("1y2w3d"), Ok((365 + 14 + 3) * 86_400));
        assert_eq!(prometheus_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("0"), Ok(0));
        assert_eq!(seconds(""), Err(ValueError::Empty));
        for text in ["1", "h", "1m1h", "1h1h", "1.5h", "-1h", "1 h", "1d ", "1µs", "1h30"] {
            assert_eq!(seconds(text), Err(ValueError::Prometheus(text.to_owned())), "{text}");
        }
        assert_eq!(seconds("300y"), Err(ValueError::DurationRange));
        assert_eq!(seconds("99999999999999999999s"), Err(ValueError::DurationRange));
    }

    #[test]
    fn go_durations_are_refused_in_the_words_of_go() {
        assert_eq!(go_duration("1.5s"), Ok(Duration::from_millis(1500)));
        let error = |text| go_duration(text).unwrap_err().to_string();
        assert_eq!(error("10"), r#"time: missing unit in duration "10""#);
        assert_eq!(error("10x"), r#"time: unknown unit "x" in duration "10x""#);
        assert_eq!(error("ten"), r#"time: invalid duration "ten""#);
    }

    #[test]
    fn a_step_is_seconds_or_a_duration() {
        assert_eq!(seconds_or_go_duration("15"), Ok(15_000_000_000));
        assert_eq!(seconds_or_go_duration("0.25"), Ok(250_000_000));
        assert_eq!(seconds_or_go_duration("1m"), Ok(60_000_000_000));
        let error = |text| seconds_or_go_duration(text).unwrap_err().to_string();
        assert_eq!(error("x"), r#"cannot parse "x" to a valid duration"#);
        assert_eq!(error("-5"), r#"cannot parse "-5": step must be positive"#);
        assert_eq!(error("-5s"), r#"cannot parse "-5s": step must be positive"#);
        assert_eq!(error("1e20"), r#"cannot parse "1e20" to a valid duration. It overflows int64"#);
        assert_eq!(error("inf"), r#"cannot parse "inf" to a valid duration. It overflows int64"#);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.ywdhmsnuµ+TZ:e-]{0,40}") {
            let _ = (timestamp(&text), go_duration(&text), prometheus_duration(&text), seconds_or_go_duration(&text));
        }
    }
}
