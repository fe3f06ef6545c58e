//! Converters of lists and maps.

use super::{ANY, TEXT};
use crate::otlp::edit;
use crate::process::ottl::ast::Comparison;
use crate::process::ottl::evaluate;
use crate::process::ottl::failure::Failure;
use crate::process::ottl::frame::View;
use crate::process::ottl::functions::{Arguments, Function, Wants, converter, required};
use crate::process::ottl::json;
use crate::process::ottl::value::{Types, Value, compare};

const MAP: Wants = Wants::Value(Types::MAP);
const LIST: Wants = Wants::Value(Types::LIST);
/// What has a length.
const LONG: Types = Types::TEXT.or(Types::LIST).or(Types::MAP).or(Types::BYTES).or(Types::MESSAGES);

pub(super) const FUNCTIONS: [Function; 7] = [
    converter("Coalesce", &[required("values", Wants::Values(Types::ANY))], Types::ANY, coalesce).with_check(
        |arguments| match arguments.values(0).is_none_or(<[_]>::is_empty) {
            true => Err("values must not be empty".to_owned()),
            false => Ok(()),
        },
    ),
    converter("ContainsValue", &[required("target", LIST), required("item", ANY)], Types::BOOL, |arguments, view| {
        Ok(Value::Bool(position(&arguments.value(0, view)?, &arguments.value(1, view)?)?.is_some()))
    }),
    converter(
        "Index",
        &[required("target", Wants::Value(Types::TEXT.or(Types::LIST))), required("value", ANY)],
        Types::INT,
        index,
    ),
    converter("Keys", &[required("target", MAP)], Types::LIST, |arguments, view| match arguments.value(0, view)? {
        Value::Map(map) => Ok(Value::list(map.iter().map(|it| edit::Value::from(it.key().to_owned())).collect())),
        other => Err(Failure::of_type(Types::MAP, &other)),
    }),
    converter("Len", &[required("target", Wants::Value(LONG))], Types::INT, len),
    converter("ParseJSON", &[required("target", TEXT)], Types::LIST.or(Types::MAP), |arguments, view| {
        json::parse(&arguments.text(0, view)?)
    }),
    converter("Values", &[required("target", MAP)], Types::LIST, |arguments, view| match arguments.value(0, view)? {
        Value::Map(map) => Ok(Value::list(map.iter().map(|entry| entry.value().clone()).collect())),
        other => Err(Failure::of_type(Types::MAP, &other)),
    }),
];

type Result<T> = std::result::Result<T, Failure>;

/// The first that is not nil.
fn coalesce<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    for expr in arguments.values(0).unwrap_or_default() {
        let value = evaluate::value(expr, view)?;
        if !matches!(value, Value::Nil) {
            return Ok(value);
        }
    }
    Ok(Value::Nil)
}

/// Where the value is in the list; it must be one.
fn position(list: &Value<'_, '_>, item: &Value<'_, '_>) -> Result<Option<usize>> {
    match list {
        Value::List(list) => {
            Ok(list.items().iter().position(|candidate| compare(&Value::of(candidate), Comparison::Equal, item)))
        }
        other => Err(Failure::of_type(Types::LIST, other)),
    }
}

/// Where a text is in another, in bytes, or a value in a list; -1 if it is not.
fn index<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let value = arguments.value(1, view)?;
    let found = match (arguments.value(0, view)?, &value) {
        (Value::Text(text), Value::Text(part)) => text.find(part.as_ref()),
        (Value::Text(_), other) => return Err(Failure::of_type(Types::TEXT, other)),
        (list, item) => position(&list, item)?,
    };
    Ok(Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

/// Of texts and bytes in bytes.
fn len<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let length = match arguments.value(0, view)? {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.items().len(),
        Value::Map(map) => map.len(),
        Value::Messages(count) => count,
        other => return Err(Failure::of_type(LONG, &other)),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}
