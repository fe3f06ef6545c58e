//! Converters of times and durations. Parts of a time are those of UTC.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::{INT, TEXT};
use crate::config::duration;
use crate::process::ottl::failure::Failure;
use crate::process::ottl::frame::View;
use crate::process::ottl::functions::{Arguments, Function, Parameter, Wants, converter, optional, required};
use crate::process::ottl::value::{Types, Value};

const TIME: &[Parameter] = &[required("time", Wants::Value(Types::TIME))];
const DURATION: &[Parameter] = &[required("duration", Wants::Value(Types::DURATION))];

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

pub(super) const FUNCTIONS: [Function; 21] = [
    converter("Day", TIME, Types::INT, |it, view| Ok(Value::Int(calendar(it, view)?.day().into()))),
    converter("Duration", &[required("duration", TEXT)], Types::DURATION, parse),
    converter("Hour", TIME, Types::INT, |it, view| Ok(Value::Int(calendar(it, view)?.hour().into()))),
    converter("Hours", DURATION, Types::DOUBLE, |it, view| Ok(Value::Double(units(length(it, view)?, HOUR)))),
    converter("Microseconds", DURATION, Types::INT, |it, view| Ok(Value::Int(length(it, view)? / MICROSECOND))),
    converter("Milliseconds", DURATION, Types::INT, |it, view| Ok(Value::Int(length(it, view)? / MILLISECOND))),
    converter("Minute", TIME, Types::INT, |it, view| Ok(Value::Int(calendar(it, view)?.minute().into()))),
    converter("Minutes", DURATION, Types::DOUBLE, |it, view| Ok(Value::Double(units(length(it, view)?, MINUTE)))),
    converter("Month", TIME, Types::INT, |it, view| Ok(Value::Int(calendar(it, view)?.month().into()))),
    converter("Nanosecond", TIME, Types::INT, |it, view| {
        Ok(Value::Int(calendar(it, view)?.subsec_nanosecond().into()))
    }),
    converter("Nanoseconds", DURATION, Types::INT, |it, view| Ok(Value::Int(length(it, view)?))),
    converter("Now", &[], Types::TIME, |_, _| {
        Ok(Value::Time(i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)))
    }),
    converter("Second", TIME, Types::INT, |it, view| Ok(Value::Int(calendar(it, view)?.second().into()))),
    converter("Seconds", DURATION, Types::DOUBLE, |it, view| Ok(Value::Double(units(length(it, view)?, SECOND)))),
    converter("Unix", &[required("seconds", INT), optional("nanoseconds", INT)], Types::TIME, |arguments, view| {
        let nanoseconds = if arguments.is_given(1) { arguments.int(1, view)? } else { 0 };
        Ok(Value::Time(arguments.int(0, view)?.saturating_mul(SECOND).saturating_add(nanoseconds)))
    }),
    converter("UnixMicro", TIME, Types::INT, |it, view| Ok(Value::Int(time(it, view)?.div_euclid(MICROSECOND)))),
    converter("UnixMilli", TIME, Types::INT, |it, view| Ok(Value::Int(time(it, view)?.div_euclid(MILLISECOND)))),
    converter("UnixNano", TIME, Types::INT, |it, view| Ok(Value::Int(time(it, view)?))),
    converter("UnixSeconds", TIME, Types::INT, |it, view| Ok(Value::Int(time(it, view)?.div_euclid(SECOND)))),
    // Sunday is 0.
    converter("Weekday", TIME, Types::INT, |it, view| {
        Ok(Value::Int(calendar(it, view)?.weekday().to_sunday_zero_offset().into()))
    }),
    converter("Year", TIME, Types::INT, |it, view| Ok(Value::Int(calendar(it, view)?.year().into()))),
];

type Result<T> = std::result::Result<T, Failure>;

/// Nanoseconds since 1970.
fn time(arguments: &Arguments, view: View<'_, '_>) -> Result<i64> {
    match arguments.value(0, view)? {
        Value::Time(nanoseconds) => Ok(nanoseconds),
        other => Err(Failure::of_type(Types::TIME, &other)),
    }
}

fn calendar(arguments: &Arguments, view: View<'_, '_>) -> Result<Zoned> {
    let time = Timestamp::from_nanosecond(time(arguments, view)?.into());
    Ok(time.map_err(|_| Failure::because("the time is out of range"))?.to_zoned(TimeZone::UTC))
}

/// Nanoseconds.
fn length(arguments: &Arguments, view: View<'_, '_>) -> Result<i64> {
    match arguments.value(0, view)? {
        Value::Duration(nanoseconds) => Ok(nanoseconds),
        other => Err(Failure::of_type(Types::DURATION, &other)),
    }
}

/// The whole units first, so that the fraction keeps its digits.
fn units(nanoseconds: i64, unit: i64) -> f64 {
    (nanoseconds / unit) as f64 + (nanoseconds % unit) as f64 / unit as f64
}

fn parse<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let text = arguments.text(0, view)?;
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) if !size.starts_with(['+', '-']) => (-1, size),
        _ => (1, text.as_ref()),
    };
    let size = duration::parse(size).ok().and_then(|size| i64::try_from(size.as_nanos()).ok());
    size.map(|size| Value::Duration(sign * size)).ok_or(Failure::because("the text is no duration like 1m30s"))
}
