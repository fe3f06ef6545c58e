//! Converters that ask for types, or change them; and what only spans know.

use std::borrow::Cow;

use super::{ANY, INT, TEXT};
use crate::otlp::{SpanId, TraceId};
use crate::process::ottl::failure::Failure;
use crate::process::ottl::frame::View;
use crate::process::ottl::functions::{Arguments, Function, Parameter, Wants, converter, required};
use crate::process::ottl::lexer::hex;
use crate::process::ottl::like;
use crate::process::ottl::value::{Types, Value};

const SCALAR: &[Parameter] = &[required("target", Wants::Value(like::SCALAR))];
const BYTES: &[Parameter] = &[required("target", Wants::Value(like::SCALAR.or(Types::BYTES)))];
const TARGET: &[Parameter] = &[required("target", ANY)];

pub(super) const FUNCTIONS: [Function; 14] = [
    converter("Bool", SCALAR, Types::BOOL.or(Types::NIL), |arguments, view| {
        Ok(like::bool(&arguments.value(0, view)?)?.map_or(Value::Nil, Value::Bool))
    })
    .with_check(|arguments| arguments.constant(0).map_or(Ok(()), |value| like::bool(&value).map(drop)).map_err(text)),
    converter("Double", SCALAR, Types::DOUBLE.or(Types::NIL), |arguments, view| {
        Ok(like::double(&arguments.value(0, view)?)?.map_or(Value::Nil, Value::Double))
    })
    .with_check(|arguments| arguments.constant(0).map_or(Ok(()), |value| like::double(&value).map(drop)).map_err(text)),
    converter("Int", SCALAR, Types::INT.or(Types::NIL), |arguments, view| {
        Ok(like::int(&arguments.value(0, view)?)?.map_or(Value::Nil, Value::Int))
    })
    .with_check(|arguments| arguments.constant(0).map_or(Ok(()), |value| like::int(&value).map(drop)).map_err(text)),
    converter("IsBool", TARGET, Types::BOOL, |arguments, view| is(Types::BOOL, arguments, view)),
    converter("IsDouble", TARGET, Types::BOOL, |arguments, view| is(Types::DOUBLE, arguments, view)),
    converter("IsEmpty", TARGET, Types::BOOL, is_empty),
    converter("IsInt", TARGET, Types::BOOL, |arguments, view| is(Types::INT, arguments, view)),
    converter("IsList", TARGET, Types::BOOL, |it, view| is(Types::LIST.or(Types::MESSAGES), it, view)),
    converter("IsMap", TARGET, Types::BOOL, |arguments, view| is(Types::MAP, arguments, view)),
    converter("IsRootSpan", &[], Types::BOOL, |_, view| {
        let span = view.span.ok_or(Failure::because("there is no span"))?;
        Ok(Value::Bool(span.parent_span_id().iter().all(|byte| *byte == 0)))
    })
    .of_spans(),
    converter("IsString", TARGET, Types::BOOL, |arguments, view| is(Types::TEXT, arguments, view)),
    converter("ParseInt", &[required("target", TEXT), required("base", INT)], Types::INT, parse_int),
    converter("SpanID", BYTES, Types::SPAN_ID, |arguments, view| {
        Ok(Value::SpanId(SpanId(id(arguments.value(0, view)?)?)))
    })
    .with_check(|arguments| arguments.constant(0).map_or(Ok(()), |value| id::<8>(value).map(drop)).map_err(text)),
    converter("TraceID", BYTES, Types::TRACE_ID, |arguments, view| {
        Ok(Value::TraceId(TraceId(id(arguments.value(0, view)?)?)))
    })
    .with_check(|arguments| arguments.constant(0).map_or(Ok(()), |value| id::<16>(value).map(drop)).map_err(text)),
];

fn text(failure: Failure) -> String {
    failure.to_string()
}

type Result<T> = std::result::Result<T, Failure>;

fn is<'v, 'a>(wanted: Types, arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    Ok(Value::Bool(!arguments.value(0, view)?.types().and(wanted).is_empty()))
}

/// Nil, zero, false, and what has no items.
fn is_empty<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    Ok(Value::Bool(match arguments.value(0, view)? {
        Value::Nil => true,
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => value == 0,
        Value::Double(value) => value == 0.0,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.items().is_empty(),
        Value::Map(map) => map.is_empty(),
        // Go's zero time is the year 1.
        Value::Time(_) => false,
        Value::TraceId(id) => id.0 == [0; 16],
        Value::SpanId(id) => id.0 == [0; 8],
        Value::Messages(count) => count == 0,
    }))
}

/// Base 0 goes by the prefix of the number.
fn parse_int<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    const NO_NUMBER: Failure = Failure::because("the text is no whole number of this base");
    let text = arguments.text(0, view)?;
    let base = u32::try_from(arguments.int(1, view)?).ok().filter(|base| matches!(base, 0 | 2..=36));
    let base = base.ok_or(Failure::because("a base is 0, or from 2 to 36"))?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    if digits.starts_with(['+', '-']) {
        return Err(NO_NUMBER);
    }
    let (base, digits) = match (base, digits.get(..2).map(str::to_ascii_lowercase).as_deref()) {
        (0, Some("0x")) => (16, digits.get(2..).unwrap_or_default()),
        (0, Some("0b")) => (2, digits.get(2..).unwrap_or_default()),
        (0, Some("0o")) => (8, digits.get(2..).unwrap_or_default()),
        (0, _) if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        (0, _) => (10, digits),
        (base, _) => (base, digits),
    };
    i64::from_str_radix(&format!("{sign}{digits}"), base).map(Value::Int).map_err(|_| NO_NUMBER)
}

/// The bytes themselves, or twice as many hexadecimal digits.
fn id<const LEN: usize>(value: Value<'_, '_>) -> Result<[u8; LEN]> {
    const NO_ID: Failure = Failure::because("an id is 16 or 8 bytes, or twice as many hexadecimal digits");
    let bytes = like::bytes(value)?.unwrap_or(Cow::Borrowed(&[]));
    if let Ok(id) = bytes.as_ref().try_into() {
        return Ok(id);
    }
    let decoded = std::str::from_utf8(&bytes).ok().filter(|digits| digits.len() == 2 * LEN).and_then(hex);
    decoded.and_then(|bytes| bytes.try_into().ok()).ok_or(NO_ID)
}
