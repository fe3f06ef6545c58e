//! Durations as Go writes and reads them: `300ms`, `1h30m`, `1m30s`.

use std::fmt::Write as _;
use std::time::Duration;

/// Units with their nanoseconds, in the order Go prints them; both micro signs are read.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("is not a duration")]
    Malformed,
    #[error("is a duration without a unit")]
    NoUnit,
    #[error("uses the unit {0:?}, which durations do not have")]
    UnknownUnit(String),
    #[error("is a negative duration")]
    Negative,
    #[error("is longer than 292 years")]
    TooLong,
}

/// Reads what Go's `time.ParseDuration` reads, less the negative ones: no setting of ours has a use for them.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanos, after) = term(rest)?;
        total = total.checked_add(nanos).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if total > i64::MAX as u128 {
        return Err(DurationError::TooLong);
    }
    match negative && total > 0 {
        true => Err(DurationError::Negative),
        false => Ok(Duration::from_nanos(u64::try_from(total).map_err(|_| DurationError::TooLong)?)),
    }
}

/// One number with its unit, in nanoseconds, and what follows it.
fn term(text: &str) -> Result<(u128, &str), DurationError> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_ends);
    let unit_ends = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_ends);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::Malformed);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::UnknownUnit(unit.chars().take(16).collect()));
    };
    let nanos = u128::from(*nanos);
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let mut sum = whole.checked_mul(nanos).ok_or(DurationError::TooLong)?;
    let mut weight = nanos;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        // Digits below a nanosecond are cut off, as in Go.
        sum += u128::from(digit) * weight / 10;
        weight /= 10;
    }
    Ok((sum, rest))
}

/// Writes a duration as Go's `Duration.String` does: `1m30s`, `200ms`, `1.5s`, `1h0m0s`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, in_unit) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    if unit != "s" {
        return decimal(nanos, in_unit) + unit;
    }
    let minutes = nanos / 60_000_000_000;
    let mut text = String::new();
    if minutes >= 60 {
        let _ = write!(text, "{}h", minutes / 60);
    }
    if minutes > 0 {
        let _ = write!(text, "{}m", minutes % 60);
    }
    text + &decimal(nanos % 60_000_000_000, in_unit) + unit
}

fn decimal(nanos: u128, in_unit: u128) -> String {
    let (whole, fraction) = (nanos / in_unit, nanos % in_unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = in_unit.ilog10() as usize;
    format!("{whole}.{fraction:0digits$}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_reads_these() {
        let nanos = |text| parse(text).map(|duration| duration.as_nanos());
        assert_eq!(nanos("300ms"), Ok(300_000_000));
        assert_eq!(nanos("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(nanos("1.5s"), Ok(1_500_000_000));
        assert_eq!(nanos(".5s"), Ok(500_000_000));
        assert_eq!(nanos("0"), Ok(0));
        assert_eq!(nanos("-0s"), Ok(0));
        assert_eq!(nanos("10µs"), Ok(10_000));
        assert_eq!(nanos("5"), Err(DurationError::NoUnit));
        assert_eq!(nanos("5 s"), Err(DurationError::UnknownUnit(" s".into())));
        assert_eq!(nanos("5d"), Err(DurationError::UnknownUnit("d".into())));
        assert_eq!(nanos("-5s"), Err(DurationError::Negative));
        assert_eq!(nanos("9999999999h"), Err(DurationError::TooLong));
        assert_eq!(nanos("ten"), Err(DurationError::Malformed));
        assert_eq!(nanos(""), Err(DurationError::Malformed));
        assert_eq!(nanos("1.2.3s"), Err(DurationError::Malformed));
    }

    #[test]
    fn go_writes_these() {
        for text in ["0s", "1ns", "1.5µs", "200ms", "1.5s", "1m30s", "1h0m0s", "100h0m0.001s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.hmsnuµ+-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
