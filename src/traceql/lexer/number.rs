//! Numbers and durations.

use super::Token;

const NANOSECOND: i64 = 1;
const MICROSECOND: i64 = 1_000 * NANOSECOND;
const MILLISECOND: i64 = 1_000 * MICROSECOND;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const YEAR: i64 = 365 * DAY;

/// Units of Prometheus' durations: each at most once, in this order, before whole numbers.
const PROMETHEUS_UNITS: [(&str, i64); 7] =
    [("y", YEAR), ("w", WEEK), ("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND)];

/// Units of Go's durations: in any order, before numbers that may have a fraction.
const GO_UNITS: [(&str, i64); 7] = [
    ("ns", NANOSECOND),
    ("us", MICROSECOND),
    ("µs", MICROSECOND),
    ("ms", MILLISECOND),
    ("s", SECOND),
    ("m", MINUTE),
    ("h", HOUR),
];

/// The number or duration at the start of a text (a digit, or a point and a digit), and its length in bytes.
pub(super) fn scan(text: &str) -> (Token, usize) {
    if let Some((float, length)) = hexadecimal_float(text) {
        return (Token::Float(float), length);
    }
    let (number, is_float) = match literal(text) {
        Ok(found) => found,
        Err((problem, length)) => return (Token::Bad(problem.to_owned()), length),
    };
    let behind = text.get(number.len()..).unwrap_or_default();
    let unit = behind.find(|next: char| !next.is_numeric() && !"nsumhµdwy.".contains(next)).unwrap_or(behind.len());
    if unit > 0
        && let Some(whole) = text.get(..number.len() + unit)
        && let Some(duration) = prometheus_duration(whole).or_else(|| go_duration(whole))
    {
        return (Token::Duration(duration), whole.len());
    }
    let token = if is_float {
        number.parse().ok().filter(|float: &f64| float.is_finite()).map(Token::Float)
    } else {
        number.parse().ok().map(Token::Int)
    };
    (token.unwrap_or_else(|| Token::Bad(format!("number out of range: {number}"))), number.len())
}

/// The number at the start of a text, and whether it has a point or an exponent.
fn literal(text: &str) -> Result<(&str, bool), (&'static str, usize)> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len())
    };
    let mut length = digits(0);
    let next_is = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|byte| any.contains(byte));
    if next_is(length, b"_") || (text.starts_with('0') && length == 1 && next_is(1, b"xXbBoO")) {
        return Err(("only decimal numbers are supported", length + 1));
    }
    let mut is_float = false;
    if next_is(length, b".") {
        is_float = true;
        length += 1 + digits(length + 1);
    }
    if next_is(length, b"eE") {
        is_float = true;
        let sign = usize::from(next_is(length + 1, b"+-"));
        let exponent = digits(length + 1 + sign);
        length += 1 + sign + exponent;
        if exponent == 0 {
            return Err(("exponent has no digits", length));
        }
    }
    Ok((text.get(..length).unwrap_or(text), is_float))
}

/// `0x1.8p-2`: the one number that is not decimal and that Tempo takes too. `None`: it is none, or too large.
fn hexadecimal_float(text: &str) -> Option<(f64, usize)> {
    /// More digits than a float tells apart, and as many as fit 64 bits.
    const DIGITS_MAX: usize = 16;
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let end = digits.find(['p', 'P'])?;
    let (mantissa, exponent) = (digits.get(..end)?, digits.get(end + 1..)?);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    if all.is_empty() || all.len() > DIGITS_MAX || !all.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let sign = exponent.strip_prefix(['+', '-']).map_or(0, |_| 1);
    let length = sign + exponent.bytes().skip(sign).take_while(u8::is_ascii_digit).count();
    let exponent: i32 = exponent.get(..length)?.parse().ok()?;
    let shift = exponent.checked_sub(4 * fraction.len() as i32)?;
    let float = u64::from_str_radix(&all, 16).ok()? as f64 * 2_f64.powi(shift);
    float.is_finite().then_some((float, text.len() - digits.len() + end + 1 + length))
}

/// `1d`, `1h30m`. `None`: it is none, or beyond 64 bits.
fn prometheus_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    let mut units = PROMETHEUS_UNITS.into_iter();
    while !rest.is_empty() {
        let (number, behind) = rest.split_at_checked(rest.find(|next: char| !next.is_ascii_digit())?)?;
        let unit = behind.get(..behind.find(|next: char| next.is_ascii_digit()).unwrap_or(behind.len()))?;
        // Units that were passed over cannot come any more.
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
        rest = behind.get(unit.len()..)?;
    }
    Some(total)
}

/// `1.5s`, `100us`. `None`: it is none, or beyond 64 bits.
fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let length = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let (number, behind) = rest.split_at_checked(length)?;
        let end = behind.find(|next: char| next.is_ascii_digit() || next == '.').unwrap_or(behind.len());
        let unit = behind.get(..end)?;
        let (_, factor) = GO_UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
        let part = whole.checked_mul(factor)?.checked_add(part_of(fraction, factor))?;
        total = total.checked_add(part)?;
        rest = behind.get(end..)?;
    }
    Some(total)
}

/// The nanoseconds of a decimal fraction of a unit, exact and cut off below one.
fn part_of(digits: &str, factor: i64) -> i64 {
    // 18 digits times an hour fit 128 bits; the digits behind them are less than a nanosecond of any unit.
    let digits = digits.get(..digits.len().min(18)).unwrap_or(digits);
    let scale = 10_i128.pow(digits.len() as u32);
    let part = digits.parse::<i128>().unwrap_or(0) * i128::from(factor) / scale;
    part as i64
}
