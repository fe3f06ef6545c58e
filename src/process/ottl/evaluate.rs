//! Running what was compiled: conditions and values of one span.

use std::borrow::Cow;

use super::ast::Operator;
use super::compile::{Call, Expr, Key, Literal, Test};
use super::failure::Failure;
use super::frame::{self, View};
use super::value::{Types, Value, compare};
use crate::otlp::edit;

/// Whether the condition holds. Operands behind the one that decides are not looked at.
pub(super) fn test<'v, 'a>(test: &'v Test, view: View<'v, 'a>) -> Result<bool, Failure> {
    match test {
        Test::Or(operands) => {
            for operand in operands {
                if self::test(operand, view)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Test::And(operands) => {
            for operand in operands {
                if !self::test(operand, view)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Test::Not(operand) => Ok(!self::test(operand, view)?),
        Test::Literal(value) => Ok(*value),
        Test::Call(called) => match call(called, view)? {
            Value::Bool(value) => Ok(value),
            other => Err(Failure::of_type(Types::BOOL, &other)),
        },
        Test::Comparison { left, comparison, right } => {
            Ok(compare(&value(left, view)?, *comparison, &value(right, view)?))
        }
    }
}

pub(super) fn value<'v, 'a>(expr: &'v Expr, view: View<'v, 'a>) -> Result<Value<'v, 'a>, Failure> {
    match expr {
        Expr::Literal(literal) => Ok(constant(literal)),
        Expr::Field(path) => view.get(path),
        Expr::Call(called) => call(called, view),
        Expr::List(items) => {
            let items = items.iter().map(|item| owned(item, view)?.into_attribute());
            Ok(Value::list(items.collect::<Result<_, _>>()?))
        }
        Expr::Map(entries) => {
            let entries =
                entries.iter().map(|(key, item)| Ok((Cow::Owned(key.clone()), owned(item, view)?.into_attribute()?)));
            Ok(Value::map(entries.collect::<Result<_, Failure>>()?))
        }
        Expr::Negated(operand) => match value(operand, view)? {
            Value::Int(value) => Ok(Value::Int(value.wrapping_neg())),
            Value::Double(value) => Ok(Value::Double(-value)),
            other => Err(Failure::of_type(Types::NUMBER, &other)),
        },
        Expr::Arithmetic { first, rest } => {
            let mut left = value(first, view)?;
            for (operator, right) in rest {
                left = calculate(left, *operator, value(right, view)?)?;
            }
            Ok(left)
        }
    }
}

/// A value that can be put into the request: constants and attributes as they came are borrowed, the rest is copied.
pub(super) fn detached<'a>(expr: &'a Expr, view: View<'_, 'a>) -> Result<Value<'a, 'a>, Failure> {
    match expr {
        Expr::Literal(literal) => Ok(constant(literal)),
        Expr::Field(path) => match frame::attribute(view, path) {
            Some(value) => Ok(value),
            None => owned(expr, view),
        },
        _ => owned(expr, view),
    }
}

fn owned<'v, 'a>(expr: &'v Expr, view: View<'v, 'a>) -> Result<Value<'a, 'a>, Failure> {
    Ok(value(expr, view)?.detached())
}

/// A text and nothing that could be made one.
pub(super) fn text<'v>(expr: &'v Expr, view: View<'v, '_>) -> Result<Cow<'v, str>, Failure> {
    match value(expr, view)? {
        Value::Text(text) => Ok(text),
        other => Err(Failure::of_type(Types::TEXT, &other)),
    }
}

pub(super) fn constant<'v, 'a>(literal: &'v Literal) -> Value<'v, 'a> {
    match literal {
        Literal::Nil => Value::Nil,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::Text(text) => Value::Text(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
    }
}

fn call<'v, 'a>(call: &'v Call, view: View<'v, 'a>) -> Result<Value<'v, 'a>, Failure> {
    let mut value = (call.convert)(&call.arguments, view)?;
    for key in &call.keys {
        value = indexed(value, key, view)?;
    }
    Ok(value)
}

/// One item of what a converter gave. Unlike with paths, a key that is not there is an error.
fn indexed<'v, 'a>(value: Value<'v, 'a>, key: &'v Key, view: View<'v, 'a>) -> Result<Value<'v, 'a>, Failure> {
    let item = match &value {
        Value::Map(map) => map.get(&view.text_key(key)?).ok_or(Failure::NoKey)?.clone(),
        Value::List(list) => {
            let index = view.index_key(key)?;
            let items = list.items();
            let item = usize::try_from(index).ok().and_then(|index| items.get(index));
            item.ok_or(Failure::Bounds { index, length: items.len() })?.clone()
        }
        other => return Err(Failure::Index { indexed: other.types(), key: Types::TEXT.or(Types::INT) }),
    };
    Ok(match item {
        edit::Value::Empty => Value::Nil,
        edit::Value::Bool(value) => Value::Bool(value),
        edit::Value::Int(value) => Value::Int(value),
        edit::Value::Double(value) => Value::Double(value),
        edit::Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        edit::Value::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
        edit::Value::List(list) => Value::List(Cow::Owned(list)),
        edit::Value::Map(map) => Value::map(map.entries().clone()),
    })
}

/// Whole numbers stay whole and wrap round, as in Go; times and durations add and subtract.
fn calculate<'v, 'a>(left: Value<'v, 'a>, operator: Operator, right: Value<'v, 'a>) -> Result<Value<'v, 'a>, Failure> {
    use Operator::{Add, Divide, Multiply, Subtract};
    let doubles = |left: f64, right: f64| match operator {
        Add => Ok(left + right),
        Subtract => Ok(left - right),
        Multiply => Ok(left * right),
        Divide if right == 0.0 => Err(Failure::ZeroDivision),
        Divide => Ok(left / right),
    };
    Ok(match (left, operator, right) {
        (Value::Int(left), _, Value::Int(right)) => Value::Int(match operator {
            Add => left.wrapping_add(right),
            Subtract => left.wrapping_sub(right),
            Multiply => left.wrapping_mul(right),
            Divide if right == 0 => return Err(Failure::ZeroDivision),
            Divide => left.wrapping_div(right),
        }),
        (Value::Int(left), _, Value::Double(right)) => Value::Double(doubles(left as f64, right)?),
        (Value::Double(left), _, Value::Int(right)) => Value::Double(doubles(left, right as f64)?),
        (Value::Double(left), _, Value::Double(right)) => Value::Double(doubles(left, right)?),
        (Value::Time(left), Subtract, Value::Time(right)) => Value::Duration(left.saturating_sub(right)),
        (Value::Time(left), Add, Value::Duration(right)) | (Value::Duration(left), Add, Value::Time(right)) => {
            Value::Time(left.saturating_add(right))
        }
        (Value::Time(left), Subtract, Value::Duration(right)) => Value::Time(left.saturating_sub(right)),
        (Value::Duration(left), Add, Value::Duration(right)) => Value::Duration(left.wrapping_add(right)),
        (Value::Duration(left), Subtract, Value::Duration(right)) => Value::Duration(left.wrapping_sub(right)),
        (Value::Time(_) | Value::Duration(_), Multiply | Divide, _) => {
            return Err(Failure::because("times and durations can only be added and subtracted"));
        }
        (Value::Int(_) | Value::Double(_), _, other) => return Err(Failure::of_type(Types::NUMBER, &other)),
        (Value::Time(_) | Value::Duration(_), _, other) => {
            return Err(Failure::of_type(Types::TIME.or(Types::DURATION), &other));
        }
        (other, ..) => {
            return Err(Failure::of_type(Types::NUMBER.or(Types::TIME).or(Types::DURATION), &other));
        }
    })
}
