//! Functions that change what they are given a path to.

use std::borrow::Cow;
use std::collections::HashSet;

use super::evaluate;
use super::failure::Failure;
use super::frame::Frame;
use super::functions::{Arguments, Function, Wants, editor, optional, required};
use super::value::{Types, Value};
use crate::otlp::edit::{self, Attributes};

mod patterns;

const TARGET: Wants = Wants::Target;
const MAP: Wants = Wants::MapTarget;
const TEXT: Wants = Wants::Value(Types::TEXT);

/// Values nested deeper are not flattened: each level is a frame of the stack.
const FLATTEN_DEPTH_MAX: i64 = 64;

pub(super) const FUNCTIONS: [Function; 16] = [
    editor(
        "append",
        &[
            required("target", TARGET),
            optional("value", Wants::Value(Types::ANY)),
            optional("values", Wants::Values(Types::ANY)),
        ],
        append,
    )
    .with_check(|arguments| match arguments.is_given(1) || arguments.is_given(2) {
        true => Ok(()),
        false => Err("value or values must be given".to_owned()),
    }),
    editor("clear", &[required("target", TARGET)], clear),
    editor(
        "delete_index",
        &[
            required("target", TARGET),
            required("start_index", Wants::Value(Types::INT)),
            optional("end_index", Wants::Value(Types::INT)),
        ],
        delete_index,
    ),
    editor("delete_key", &[required("target", MAP), required("key", TEXT)], delete_key),
    editor(
        "delete_matching_keys",
        &[required("target", MAP), required("pattern", Wants::Pattern)],
        delete_matching_keys,
    ),
    editor(
        "flatten",
        &[
            required("target", MAP),
            optional("prefix", Wants::Word(&[])),
            optional("depth", Wants::Number(1)),
            optional("resolve_conflicts", Wants::Flag),
        ],
        flatten,
    ),
    editor("keep_keys", &[required("target", MAP), required("keys", Wants::Values(Types::TEXT))], keep_keys),
    editor("keep_matching_keys", &[required("target", MAP), required("pattern", Wants::Pattern)], keep_matching_keys),
    editor(
        "limit",
        &[required("target", MAP), required("limit", Wants::Number(0)), required("priority_keys", Wants::Words)],
        limit,
    )
    .with_check(|arguments| match arguments.number(1).unwrap_or(0) < arguments.words(2).len() as i64 {
        true => Err("limit is below the number of priority_keys".to_owned()),
        false => Ok(()),
    }),
    editor(
        "merge_maps",
        &[
            required("target", MAP),
            required("source", Wants::Value(Types::MAP)),
            required("strategy", Wants::Word(&["insert", "update", "upsert"])),
        ],
        merge_maps,
    ),
    patterns::REPLACE_ALL_MATCHES,
    patterns::REPLACE_ALL_PATTERNS,
    patterns::REPLACE_MATCH,
    patterns::REPLACE_PATTERN,
    editor("set", &[required("target", TARGET), required("value", Wants::Value(Types::ANY))], set),
    editor(
        "truncate_all",
        &[
            required("target", MAP),
            required("limit", Wants::Number(0)),
            optional("utf8_safe", Wants::Flag),
            optional("truncation_marker", Wants::Word(&[])),
        ],
        truncate_all,
    )
    .with_check(|arguments| {
        let marker = arguments.word(3).unwrap_or_default();
        if arguments.flag(2) == Some(false) {
            return Err("utf8_safe=false is not supported: half a character is no text in OTLP".to_owned());
        }
        match marker.len() as i64 > arguments.number(1).unwrap_or(0) {
            true => Err("the truncation_marker is longer than the limit".to_owned()),
            false => Ok(()),
        }
    }),
];

fn set<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let value = evaluate::detached(arguments.expr(1)?, frame.view())?;
    frame.set(arguments.target(0)?, value)
}

fn clear<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    frame.set(arguments.target(0)?, Value::Nil)
}

fn delete_key<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let key = arguments.text(1, frame.view())?.into_owned();
    frame.edit_map(arguments.target(0)?, |map| {
        map.delete(&key);
    })
}

fn delete_matching_keys<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let pattern = arguments.pattern(1)?;
    frame.edit_map(arguments.target(0)?, |map| {
        map.retain(|key| !pattern.is_match(key));
    })
}

fn keep_keys<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let keys = arguments.values(1).unwrap_or_default();
    let keys: Vec<Value<'a, 'a>> =
        keys.iter().map(|key| evaluate::detached(key, frame.view())).collect::<Result<_, _>>()?;
    if let Some(other) = keys.iter().find(|key| !matches!(key, Value::Text(_))) {
        return Err(Failure::of_type(Types::TEXT, other));
    }
    frame.edit_map(arguments.target(0)?, |map| {
        map.retain(|candidate| keys.iter().any(|key| matches!(key, Value::Text(text) if text == candidate)));
    })
}

fn keep_matching_keys<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let pattern = arguments.pattern(1)?;
    frame.edit_map(arguments.target(0)?, |map| {
        map.retain(|key| pattern.is_match(key));
    })
}

/// Keeps the priority keys, and of the others the first ones up to the limit.
fn limit<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let limit = arguments.number(1).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let priority = arguments.words(2);
    frame.edit_map(arguments.target(0)?, |map| {
        if map.len() <= limit {
            return;
        }
        let mut kept = priority.iter().filter(|key| map.contains(key)).count();
        map.retain(|key| {
            if priority.iter().any(|wanted| wanted == key) {
                return true;
            }
            let keep = kept < limit;
            kept += usize::from(keep);
            keep
        });
    })
}

fn truncate_all<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let limit = arguments.number(1).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let marker = arguments.word(3).unwrap_or_default();
    frame.edit_map(arguments.target(0)?, |map| {
        map.revalue(|_, value| match value {
            edit::Value::Text(text) if text.len() > limit => {
                Some(edit::Value::Text(truncated(text, limit.saturating_sub(marker.len()), marker)))
            }
            _ => None,
        });
    })
}

fn truncated<'a>(text: &Cow<'a, str>, mut length: usize, marker: &str) -> Cow<'a, str> {
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    match text {
        Cow::Borrowed(text) if marker.is_empty() => Cow::Borrowed(text.get(..length).unwrap_or_default()),
        text => Cow::Owned(format!("{}{marker}", text.get(..length).unwrap_or_default())),
    }
}

fn merge_maps<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let source = match evaluate::detached(arguments.expr(1)?, frame.view())? {
        Value::Map(source) => source,
        other => return Err(Failure::of_type(Types::MAP, &other)),
    };
    let strategy = arguments.word(2).unwrap_or_default();
    frame.edit_map(arguments.target(0)?, |map| {
        for entry in source.iter() {
            let (key, value) = (entry.key(), entry.value());
            match (strategy, map.contains(key)) {
                ("insert" | "upsert", false) => {
                    map.insert(key.to_owned(), value.clone());
                }
                ("update" | "upsert", true) => {
                    map.update(key, value.clone());
                }
                _ => {}
            }
        }
    })
}

/// What is not a list becomes the first item of one.
fn append<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let mut items = match frame.view().get(target)?.detached() {
        Value::Nil => Vec::new(),
        Value::List(list) => list.items().to_vec(),
        other => vec![other.into_attribute()?],
    };
    let one = arguments.is_given(1).then(|| arguments.expr(1)).transpose()?;
    for expr in one.into_iter().chain(arguments.values(2).unwrap_or_default()) {
        items.push(evaluate::detached(expr, frame.view())?.into_attribute()?);
    }
    frame.set(target, Value::list(items))
}

fn delete_index<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let mut items = match frame.view().get(target)? {
        Value::List(list) => list.items().to_vec(),
        other => return Err(Failure::of_type(Types::LIST, &other)),
    };
    let start = arguments.int(1, frame.view())?;
    let end = if arguments.is_given(2) { arguments.int(2, frame.view())? } else { start.saturating_add(1) };
    let length = items.len();
    let range = match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end && end <= length && (start < length || end == length) => start..end,
        _ => return Err(Failure::Bounds { index: if start < 0 { start } else { end }, length }),
    };
    items.drain(range);
    frame.set(target, Value::list(items))
}

/// Nested maps and lists become entries whose keys are the path to them, joined by dots.
fn flatten<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let source = match frame.view().get(target)?.detached() {
        Value::Map(map) => map,
        other => return Err(Failure::of_type(Types::MAP, &other)),
    };
    let prefix = arguments.word(1).filter(|prefix| !prefix.is_empty());
    let mut flattening = Flattening {
        depth_max: arguments.number(2).unwrap_or(FLATTEN_DEPTH_MAX).min(FLATTEN_DEPTH_MAX),
        resolve_conflicts: arguments.flag(3).unwrap_or(false),
        seen: HashSet::new(),
        out: Attributes::default(),
    };
    let prefix = prefix.map(|prefix| format!("{prefix}.")).unwrap_or_default();
    flattening.map(&source, &prefix, 0);
    frame.set(target, Value::map(flattening.out))
}

struct Flattening<'a> {
    depth_max: i64,
    /// Equal keys get numbers behind them, and items of lists none before they meet.
    resolve_conflicts: bool,
    seen: HashSet<String>,
    out: Attributes<'a>,
}

impl<'a> Flattening<'a> {
    fn map(&mut self, map: &Attributes<'a>, prefix: &str, depth: i64) {
        for entry in map {
            self.value(&format!("{prefix}{}", entry.key()), entry.value(), depth);
        }
    }

    fn value(&mut self, key: &str, value: &edit::Value<'a>, depth: i64) {
        match value {
            edit::Value::Map(map) if depth < self.depth_max => {
                self.map(map.entries(), &format!("{key}."), depth + 1);
            }
            edit::Value::List(list) if depth < self.depth_max => {
                for (index, item) in list.items().iter().enumerate() {
                    let nests =
                        matches!(item, edit::Value::Map(_) | edit::Value::List(_)) && depth + 1 < self.depth_max;
                    match (nests, self.resolve_conflicts) {
                        (true, _) => self.value(&format!("{key}.{index}"), item, depth + 1),
                        (false, true) => self.put(key, item),
                        (false, false) => self.put(&format!("{key}.{index}"), item),
                    }
                }
            }
            other => self.put(key, other),
        }
    }

    fn put(&mut self, key: &str, value: &edit::Value<'a>) {
        let mut name = key.to_owned();
        if self.resolve_conflicts {
            let mut number = 0_usize;
            while self.seen.contains(&name) {
                name = format!("{key}.{number}");
                number += 1;
            }
            self.seen.insert(name.clone());
        }
        self.out.upsert(name, value.clone());
    }
}
