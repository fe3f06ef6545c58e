//! Editors that replace by regular expression or glob.

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;

use crate::otlp::edit::{self, Attributes};
use crate::process::ottl::compile::Expr;
use crate::process::ottl::evaluate;
use crate::process::ottl::failure::Failure;
use crate::process::ottl::frame::{Frame, View};
use crate::process::ottl::functions::{Arguments, Convert, Function, Parameter, Wants, editor, optional, required};
use crate::process::ottl::value::{Types, Value};

const TEXT: Wants = Wants::Value(Types::TEXT);
const FUNCTION: Parameter = optional("function", Wants::Function);
const FORMAT: Parameter = optional("replacement_format", Wants::Format);

pub(super) const REPLACE_PATTERN: Function = editor(
    "replace_pattern",
    &[
        required("target", Wants::Target),
        required("regex_pattern", Wants::Pattern),
        required("replacement", TEXT),
        FUNCTION,
        FORMAT,
    ],
    replace_pattern,
);

pub(super) const REPLACE_MATCH: Function = editor(
    "replace_match",
    &[
        required("target", Wants::Target),
        required("pattern", Wants::Glob),
        required("replacement", TEXT),
        FUNCTION,
        FORMAT,
    ],
    replace_match,
);

pub(super) const REPLACE_ALL_PATTERNS: Function = editor(
    "replace_all_patterns",
    &[
        required("target", Wants::MapTarget),
        required("mode", Wants::Word(&["key", "value"])),
        required("regex_pattern", Wants::Pattern),
        required("replacement", TEXT),
        FUNCTION,
        FORMAT,
    ],
    replace_all_patterns,
);

pub(super) const REPLACE_ALL_MATCHES: Function = editor(
    "replace_all_matches",
    &[
        required("target", Wants::MapTarget),
        required("pattern", Wants::Glob),
        required("replacement", TEXT),
        FUNCTION,
        FORMAT,
    ],
    replace_all_matches,
);

/// Replaces every match within a text; what is no text stays.
fn replace_pattern<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let replacer = Replacer::new(arguments, 1)?;
    let replaced = match frame.view().get(target)? {
        Value::Text(text) => replacer.replaced(&text, frame.view())?,
        _ => None,
    };
    match replaced {
        Some(text) => frame.set(target, Value::text(text)),
        None => Ok(()),
    }
}

fn replace_all_patterns<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let replacer = Replacer::new(arguments, 2)?;
    let of_keys = arguments.word(1) == Some("key");
    let mut changes = Vec::new();
    if let Value::Map(map) = frame.view().get(target)? {
        for (index, entry) in map.iter().enumerate() {
            let text = if of_keys { Some(entry.key()) } else { entry.value().as_text() };
            // What the function refuses stays, as in a Collector.
            if let Some(Ok(Some(new))) = text.map(|text| replacer.replaced(text, frame.view())) {
                changes.push((index, new));
            }
        }
    }
    frame.edit_map(target, |map| change_at(map, changes, of_keys))
}

/// Replaces a text that the glob matches as a whole.
fn replace_match<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let replacer = Replacer::new(arguments, 1)?;
    let matches = match frame.view().get(target)? {
        Value::Text(text) => replacer.pattern.is_match(&text),
        _ => false,
    };
    if !matches {
        return Ok(());
    }
    let new = replacer.whole(frame.view())?;
    frame.set(target, Value::text(new))
}

fn replace_all_matches<'a>(arguments: &'a Arguments, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
    let target = arguments.target(0)?;
    let replacer = Replacer::new(arguments, 1)?;
    let mut changes = Vec::new();
    if let Value::Map(map) = frame.view().get(target)? {
        for (index, entry) in map.iter().enumerate() {
            if entry.value().as_text().is_some_and(|text| replacer.pattern.is_match(text)) {
                changes.push((index, replacer.whole(frame.view())?));
            }
        }
    }
    frame.edit_map(target, |map| change_at(map, changes, false))
}

/// Gives the keys or values at these places, which ascend, new texts. One walk.
fn change_at(map: &mut Attributes<'_>, changes: Vec<(usize, String)>, of_keys: bool) {
    let mut changes = changes.into_iter().peekable();
    let mut index = 0;
    let mut next = || {
        let new = changes.next_if(|(at, _)| *at == index).map(|(_, new)| new);
        index += 1;
        new
    };
    if of_keys {
        map.rename(|_| next().map(Cow::Owned));
    } else {
        map.revalue(|_, _| next().map(edit::Value::from));
    }
}

/// The pattern at an argument, and what stands behind it: the replacement, which is asked for when something matches, a
/// function, a format.
struct Replacer<'p> {
    pattern: &'p Regex,
    replacement: &'p Expr,
    function: Option<Convert>,
    format: Option<&'p str>,
}

impl<'p> Replacer<'p> {
    fn new(arguments: &'p Arguments, pattern: usize) -> Result<Self, Failure> {
        Ok(Self {
            pattern: arguments.pattern(pattern)?,
            replacement: arguments.expr(pattern + 1)?,
            function: arguments.function(pattern + 2),
            format: arguments.word(pattern + 3),
        })
    }

    /// The text with every match replaced. None: nothing matched.
    fn replaced(&self, text: &str, view: View<'_, '_>) -> Result<Option<String>, Failure> {
        let mut found = self.pattern.find_iter(text).peekable();
        if found.peek().is_none() {
            return Ok(None);
        }
        let replacement = evaluate::text(self.replacement, view)?;
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        let mut put = |place: Range<usize>, new: &str| {
            out.push_str(text.get(done..place.start).unwrap_or_default());
            out.push_str(new);
            done = place.end;
        };
        // Groups are dear to find, and mostly not asked for.
        if replacement.contains('$') {
            for captures in self.pattern.captures_iter(text) {
                let mut new = String::new();
                captures.expand(&replacement, &mut new);
                put(captures.get_match().range(), &self.converted(new, view)?);
            }
        } else {
            let new = self.converted(replacement.into_owned(), view)?;
            found.for_each(|found| put(found.range(), &new));
        }
        out.push_str(text.get(done..).unwrap_or_default());
        Ok(Some(out))
    }

    /// What a whole match becomes: the replacement as it is, `$1` means nothing.
    fn whole(&self, view: View<'_, '_>) -> Result<String, Failure> {
        self.converted(evaluate::text(self.replacement, view)?.into_owned(), view)
    }

    fn converted(&self, text: String, view: View<'_, '_>) -> Result<String, Failure> {
        let Some(function) = self.function else { return Ok(text) };
        let arguments = Arguments::of_text(text);
        let converted = match function(&arguments, view)? {
            Value::Text(text) => text.into_owned(),
            other => return Err(Failure::of_type(Types::TEXT, &other)),
        };
        Ok(match self.format {
            Some(format) => format.replacen("%s", &converted, 1),
            None => converted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_changed_also_where_a_key_comes_twice() {
        for (of_keys, expected) in
            [(false, [("k", "1"), ("x", "b"), ("k", "3")]), (true, [("1", "a"), ("x", "b"), ("3", "c")])]
        {
            let entries = [("k", "a"), ("x", "b"), ("k", "c")];
            let entries = entries.map(|(key, value)| (Cow::Borrowed(key), edit::Value::from(value.to_owned())));
            let mut map: Attributes<'_> = entries.into_iter().collect();
            change_at(&mut map, vec![(0, "1".to_owned()), (2, "3".to_owned())], of_keys);
            let found: Vec<_> = map.iter().map(|it| (it.key(), it.value().as_text().unwrap())).collect();
            assert_eq!(found, expected);
        }
    }
}
