//! Converters of texts.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose;

use super::{ANY, INT, TEXT};
use crate::otlp::edit::{self, Attributes};
use crate::process::ottl::evaluate;
use crate::process::ottl::failure::Failure;
use crate::process::ottl::frame::View;
use crate::process::ottl::functions::{Arguments, Function, Wants, converter, optional, required};
use crate::process::ottl::like;
use crate::process::ottl::value::{Types, Value};

const BASE64_VARIANTS: &[&str] = &["base64", "base64-raw", "base64-url", "base64-raw-url"];

pub(super) const FUNCTIONS: [Function; 15] = [
    converter(
        "Base64Encode",
        &[required("target", TEXT), optional("variant", Wants::Word(BASE64_VARIANTS))],
        Types::TEXT,
        base64_encode,
    ),
    converter(
        "Concat",
        &[required("vals", Wants::ValuesOrList(Types::ANY)), required("delimiter", TEXT)],
        Types::TEXT,
        concat,
    ),
    converter(
        "ConvertCase",
        &[required("target", TEXT), required("to_case", Wants::Word(&["lower", "upper"]))],
        Types::TEXT,
        |arguments, view| match arguments.word(1) {
            Some("upper") => to_upper_case(arguments, view),
            _ => to_lower_case(arguments, view),
        },
    ),
    converter(
        "ExtractPatterns",
        &[required("target", TEXT), required("pattern", Wants::Pattern)],
        Types::MAP,
        extract_patterns,
    )
    .with_check(|arguments| {
        match arguments.pattern(1).is_ok_and(|it| it.capture_names().flatten().next().is_some()) {
            true => Ok(()),
            false => Err("the pattern needs a named group, e.g. (?P<user>.+)".to_owned()),
        }
    }),
    converter("HasPrefix", &[required("target", TEXT), required("prefix", TEXT)], Types::BOOL, |arguments, view| {
        Ok(Value::Bool(arguments.text(0, view)?.starts_with(arguments.text(1, view)?.as_ref())))
    }),
    converter("HasSuffix", &[required("target", TEXT), required("suffix", TEXT)], Types::BOOL, |arguments, view| {
        Ok(Value::Bool(arguments.text(0, view)?.ends_with(arguments.text(1, view)?.as_ref())))
    }),
    // What is no text is made one; nothing matches nil.
    converter(
        "IsMatch",
        &[required("target", ANY), required("pattern", Wants::Pattern)],
        Types::BOOL,
        |arguments, view| {
            let text = like::text(arguments.value(0, view)?)?;
            let pattern = arguments.pattern(1)?;
            Ok(Value::Bool(text.is_some_and(|text| pattern.is_match(&text))))
        },
    ),
    converter("Split", &[required("target", TEXT), required("delimiter", TEXT)], Types::LIST, split),
    converter("String", &[required("target", ANY)], Types::TEXT.or(Types::NIL), |arguments, view| {
        Ok(like::text(arguments.value(0, view)?)?.map_or(Value::Nil, Value::Text))
    }),
    converter(
        "Substring",
        &[
            required("target", TEXT),
            required("start", INT),
            required("length", INT),
            optional("utf8_safe", Wants::Flag),
        ],
        Types::TEXT,
        substring,
    ),
    converter("ToLowerCase", &[required("target", TEXT)], Types::TEXT, to_lower_case),
    converter("ToUpperCase", &[required("target", TEXT)], Types::TEXT, to_upper_case),
    converter(
        "Trim",
        &[required("target", TEXT), optional("replacement", Wants::Word(&[]))],
        Types::TEXT,
        |arguments, view| {
            let cut = arguments.word(1).unwrap_or(" ");
            let text = arguments.text(0, view)?;
            let start = text.len() - text.trim_start_matches(|letter| cut.contains(letter)).len();
            let end = text.trim_end_matches(|letter| cut.contains(letter)).len();
            Ok(part(text, start, end))
        },
    ),
    converter("TrimPrefix", &[required("target", TEXT), required("prefix", TEXT)], Types::TEXT, |arguments, view| {
        let (text, prefix) = (arguments.text(0, view)?, arguments.text(1, view)?);
        let start = if text.starts_with(prefix.as_ref()) { prefix.len() } else { 0 };
        let end = text.len();
        Ok(part(text, start, end))
    }),
    converter("TrimSuffix", &[required("target", TEXT), required("suffix", TEXT)], Types::TEXT, |arguments, view| {
        let (text, suffix) = (arguments.text(0, view)?, arguments.text(1, view)?);
        let end = text.len() - if text.ends_with(suffix.as_ref()) { suffix.len() } else { 0 };
        Ok(part(text, 0, end))
    }),
];

type Result<T> = std::result::Result<T, Failure>;

/// A part of a text, borrowed if the text is; empty if it ends before it starts.
fn part<'v, 'a>(text: Cow<'v, str>, start: usize, end: usize) -> Value<'v, 'a> {
    match text {
        Cow::Borrowed(text) => Value::text(text.get(start..end).unwrap_or_default()),
        Cow::Owned(text) => Value::text(text.get(start..end).unwrap_or_default().to_owned()),
    }
}

fn base64_encode<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let text = arguments.text(0, view)?;
    let engine = match arguments.word(1) {
        Some("base64-raw") => &general_purpose::STANDARD_NO_PAD,
        Some("base64-url") => &general_purpose::URL_SAFE,
        Some("base64-raw-url") => &general_purpose::URL_SAFE_NO_PAD,
        _ => &general_purpose::STANDARD,
    };
    Ok(Value::text(engine.encode(text.as_bytes())))
}

fn concat<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let delimiter = arguments.text(1, view)?;
    let (mut out, mut first) = (String::new(), true);
    let mut push = |value: Value<'_, '_>| -> Result<()> {
        if !std::mem::take(&mut first) {
            out.push_str(&delimiter);
        }
        out.push_str(&like::text(value)?.unwrap_or(Cow::Borrowed("<nil>")));
        Ok(())
    };
    match arguments.values(0) {
        Some(values) => values.iter().try_for_each(|expr| push(evaluate::value(expr, view)?))?,
        None => match arguments.value(0, view)? {
            Value::List(list) => list.items().iter().try_for_each(|item| push(Value::of(item)))?,
            Value::Nil => {}
            other => return Err(Failure::of_type(Types::LIST, &other)),
        },
    }
    Ok(Value::text(out))
}

/// Letters without a counterpart of one letter stay, as in Go.
fn to_lower_case<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let text = arguments.text(0, view)?;
    Ok(Value::text(text.chars().map(|letter| single(letter.to_lowercase(), letter)).collect::<String>()))
}

fn to_upper_case<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let text = arguments.text(0, view)?;
    Ok(Value::text(text.chars().map(|letter| single(letter.to_uppercase(), letter)).collect::<String>()))
}

fn single(mut changed: impl Iterator<Item = char>, letter: char) -> char {
    match (changed.next(), changed.next()) {
        (Some(one), None) => one,
        _ => letter,
    }
}

/// The named groups of the first match; an empty map without one.
fn extract_patterns<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let pattern = arguments.pattern(1)?;
    let text = arguments.text(0, view)?;
    let mut out = Attributes::default();
    if let Some(captures) = pattern.captures(&text) {
        for name in pattern.capture_names().flatten() {
            let found = captures.name(name).map_or("", |group| group.as_str());
            out.upsert(name.to_owned(), edit::Value::from(found.to_owned()));
        }
    }
    Ok(Value::map(out))
}

fn split<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let (text, delimiter) = (arguments.text(0, view)?, arguments.text(1, view)?);
    Ok(Value::list(match delimiter.is_empty() {
        // Between all characters.
        true => text.chars().map(|letter| edit::Value::from(letter.to_string())).collect(),
        false => text.split(delimiter.as_ref()).map(|part| edit::Value::from(part.to_owned())).collect(),
    }))
}

/// Bytes of the text. A cut within a character moves inwards, whether `utf8_safe` or not: half of one is no text.
fn substring<'v, 'a>(arguments: &'v Arguments, view: View<'v, 'a>) -> Result<Value<'v, 'a>> {
    let start = arguments.int(1, view)?;
    let length = arguments.int(2, view)?;
    let text = arguments.text(0, view)?;
    if length <= 0 {
        return Err(Failure::because("the length must be positive"));
    }
    let end = start.checked_add(length).and_then(|end| usize::try_from(end).ok()).filter(|end| *end <= text.len());
    let (Ok(mut start), Some(mut end)) = (usize::try_from(start), end) else {
        return Err(Failure::Bounds { index: start.saturating_add(length), length: text.len() });
    };
    while !text.is_char_boundary(start) {
        start += 1;
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(part(text, start, end))
}
