//! The distinct values of a column, the names of all columns, and single values.
//!
//! ```text
//! dictionary   strings, then ints, then others
//! strings      count varint, length varint each, their bytes
//! ints         count varint, the first and then distances, zigzag varint
//! others       count varint, cells
//! cell         0: value                          1: count varint, values
//! value        type u8, then by type: length and bytes, zigzag varint, 8 bytes, 1 byte, or count varint and values
//! ```

use std::sync::Arc;

use super::{FormatError, Reader, put_sized, unzigzag, zigzag};
use crate::otlp::wire::put_varint;
use crate::traceql::column::{Cell, Dictionary, Strings};
use crate::traceql::value::{Kind, Status, Value};

const DAMAGED: FormatError = FormatError::Damaged("dictionary");

const STRING: u8 = 0;
const INT: u8 = 1;
const FLOAT: u8 = 2;
const BOOL: u8 = 3;
const DURATION: u8 = 4;
const STATUS: u8 = 5;
const KIND: u8 = 6;
const ARRAY: u8 = 7;

const ONE: u8 = 0;
const MANY: u8 = 1;

pub fn put(out: &mut Vec<u8>, dictionary: &Dictionary) {
    put_strings(out, dictionary.strings.len(), dictionary.strings.iter());
    put_varint(out, dictionary.ints.len() as u64);
    let mut before = 0i64;
    for int in &dictionary.ints {
        put_varint(out, zigzag(int.wrapping_sub(before)));
        before = *int;
    }
    put_varint(out, dictionary.others.len() as u64);
    dictionary.others.iter().for_each(|cell| put_cell(out, cell));
}

/// # Errors
/// The bytes are no dictionary.
pub fn decode(bytes: &[u8]) -> Result<Dictionary, FormatError> {
    let mut reader = Reader::new(bytes);
    let strings = read_strings(&mut reader).ok_or(DAMAGED)?;
    let ints = read_ints(&mut reader).ok_or(DAMAGED)?;
    let count = reader.length().filter(|count| *count <= reader.left()).ok_or(DAMAGED)?;
    let others = (0..count).map(|_| read_cell(&mut reader)).collect::<Option<_>>().ok_or(DAMAGED)?;
    if reader.is_empty() { Ok(Dictionary { strings, ints, others }) } else { Err(DAMAGED) }
}

fn read_ints(reader: &mut Reader<'_>) -> Option<Vec<i64>> {
    let count = reader.length().filter(|count| *count <= reader.left())?;
    let mut before = 0i64;
    (0..count)
        .map(|_| {
            before = before.wrapping_add(unzigzag(reader.varint()?));
            Some(before)
        })
        .collect()
}

/// Names of columns: the strings of each list, in order.
pub fn put_names(out: &mut Vec<u8>, names: &[&str]) {
    put_strings(out, names.len(), names.iter().copied());
}

/// # Errors
/// The bytes are no names.
pub fn decode_names(bytes: &[u8]) -> Result<Vec<Arc<str>>, FormatError> {
    let mut reader = Reader::new(bytes);
    let names = read_strings(&mut reader).ok_or(DAMAGED)?;
    if reader.is_empty() { Ok(names.iter().map(Arc::from).collect()) } else { Err(DAMAGED) }
}

fn put_strings<'a>(out: &mut Vec<u8>, count: usize, strings: impl Iterator<Item = &'a str> + Clone) {
    put_varint(out, count as u64);
    strings.clone().for_each(|string| put_varint(out, string.len() as u64));
    strings.for_each(|string| out.extend_from_slice(string.as_bytes()));
}

fn read_strings(reader: &mut Reader<'_>) -> Option<Strings> {
    let count = reader.length().filter(|count| *count <= reader.left())?;
    let mut ends = Vec::with_capacity(count);
    let mut end = 0u32;
    for _ in 0..count {
        end = end.checked_add(u32::try_from(reader.length()?).ok()?)?;
        ends.push(end);
    }
    // Copied and checked once as a whole.
    Strings::of(std::str::from_utf8(reader.take(end as usize)?).ok()?, ends)
}

fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    match cell {
        Cell::One(value) => {
            out.push(ONE);
            put_value(out, value);
        }
        Cell::Many(values) => {
            out.push(MANY);
            put_varint(out, values.len() as u64);
            values.iter().for_each(|value| put_value(out, value));
        }
    }
}

fn read_cell(reader: &mut Reader<'_>) -> Option<Cell> {
    match reader.byte()? {
        ONE => Some(Cell::One(read_value(reader, Depth::Outer)?)),
        MANY => Some(Cell::Many(read_values(reader, Depth::Outer)?)),
        _ => None,
    }
}

/// Arrays hold scalars alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Outer,
    InArray,
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(string) => {
            out.push(STRING);
            put_sized(out, string.as_bytes());
        }
        Value::Int(int) => {
            out.push(INT);
            put_varint(out, zigzag(*int));
        }
        Value::Float(float) => {
            out.push(FLOAT);
            out.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        Value::Bool(bool) => out.extend_from_slice(&[BOOL, u8::from(*bool)]),
        Value::Duration(nanos) => {
            out.push(DURATION);
            put_varint(out, zigzag(*nanos));
        }
        Value::Status(status) => out.extend_from_slice(&[STATUS, *status as u8]),
        Value::Kind(kind) => out.extend_from_slice(&[KIND, *kind as u8]),
        Value::Array(values) => {
            out.push(ARRAY);
            put_varint(out, values.len() as u64);
            values.iter().for_each(|value| put_value(out, value));
        }
    }
}

fn read_value(reader: &mut Reader<'_>, depth: Depth) -> Option<Value> {
    Some(match reader.byte()? {
        STRING => Value::String(std::str::from_utf8(reader.bytes()?).ok()?.into()),
        INT => Value::Int(unzigzag(reader.varint()?)),
        FLOAT => Value::Float(f64::from_bits(u64::from_le_bytes(reader.array()?))),
        BOOL => Value::Bool(reader.byte()? != 0),
        DURATION => Value::Duration(unzigzag(reader.varint()?)),
        STATUS => Value::Status(*Status::ALL.get(usize::from(reader.byte()?))?),
        KIND => Value::Kind(*Kind::ALL.get(usize::from(reader.byte()?))?),
        ARRAY if depth == Depth::Outer => Value::Array(read_values(reader, Depth::InArray)?),
        _ => return None,
    })
}

fn read_values(reader: &mut Reader<'_>, depth: Depth) -> Option<Arc<[Value]>> {
    // A value has two bytes at least.
    let count = reader.length().filter(|count| *count <= reader.left() / 2)?;
    (0..count).map(|_| read_value(reader, depth)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,8}".prop_map(|string| Value::String(string.into())),
            any::<i64>().prop_map(Value::Int),
            // Not a number is not equal to itself.
            (-1e300f64..1e300).prop_map(Value::Float),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Duration),
            (0usize..3).prop_map(|status| Value::Status(Status::ALL[status])),
            (0usize..6).prop_map(|kind| Value::Kind(Kind::ALL[kind])),
        ]
    }

    fn cell() -> impl Strategy<Value = Cell> {
        let value = || {
            prop_oneof![
                scalar(),
                proptest::collection::vec(scalar(), 0..4).prop_map(|values| Value::Array(values.into()))
            ]
        };
        prop_oneof![
            value().prop_map(Cell::One),
            proptest::collection::vec(value(), 1..4).prop_map(|values| Cell::Many(values.into()))
        ]
    }

    proptest! {
        #[test]
        fn any_dictionary_comes_back(
            strings in proptest::collection::btree_set(".{0,9}", 0..20),
            ints in proptest::collection::btree_set(any::<i64>(), 0..20),
            others in proptest::collection::vec(cell(), 0..9),
        ) {
            let mut dictionary = Dictionary { strings: Strings::default(), ints: ints.into_iter().collect(), others };
            strings.iter().for_each(|string| dictionary.strings.push(string));
            let mut out = Vec::new();
            put(&mut out, &dictionary);
            prop_assert_eq!(decode(&out).unwrap(), dictionary);
            let names: Vec<&str> = strings.iter().map(String::as_str).collect();
            let mut out = Vec::new();
            put_names(&mut out, &names);
            prop_assert!(decode_names(&out).unwrap().iter().map(|name| &**name).eq(names));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode_names(&bytes);
        }
    }
}
