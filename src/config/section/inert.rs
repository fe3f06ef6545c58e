//! Keys of the Collector that mean nothing here, and keys that are refused.

use super::{Section, Shape, quotes, text_of};
use crate::config::diagnostic::suggestion;
use crate::config::duration;
use crate::config::node::{Entry, Kind, Value, excerpt};
use std::time::Duration;

impl Section<'_> {
    /// A key of the Collector that is accepted but means nothing here: checked for its shape and noted with `why`.
    pub fn inert(&mut self, key: &'static str, shape: Shape, why: &str) {
        self.inert_but(key, shape, &[], why);
    }

    /// As [`Section::inert`]; the values `honoured` (their text) say what happens anyway and need no note.
    pub fn inert_but(&mut self, key: &'static str, shape: Shape, honoured: &[&str], why: &str) {
        let Some(entry) = self.declare(key) else { return };
        let as_said = matches!(&entry.node.value, Value::Scalar(scalar) if honoured.contains(&scalar.text.as_str()));
        if self.check_shape(entry, shape) && !as_said {
            self.note(key, format!("accepted, without effect: {why}"));
        }
    }

    /// A section of the Collector that means nothing here: its keys are checked for their shapes, and what is written there is
    /// noted once with `why`.
    pub fn inert_section(&mut self, key: &'static str, keys: &[(&'static str, Shape)], why: &str) {
        self.section(key, |section| {
            if section.is_empty() {
                return;
            }
            for (key, shape) in keys {
                section.accept(key, *shape);
            }
            section.note("", format!("accepted, without effect: {why}"));
        });
    }

    /// A key of a section whose note was made for the section as a whole: checked for its shape, nothing said.
    pub fn accept(&mut self, key: &'static str, shape: Shape) {
        if let Some(entry) = self.declare(key) {
            self.check_shape(entry, shape);
        }
    }

    /// As [`Section::inert`] of one of a few words; which, for checks across keys.
    pub fn inert_word(&mut self, key: &'static str, words: &[&'static str], why: &str) -> Option<String> {
        let word = self.accept_word(key, words)?;
        self.note(key, format!("accepted, without effect: {why}"));
        Some(word)
    }

    /// As [`Section::accept`] of one of a few words; which, for checks across keys.
    pub fn accept_word(&mut self, key: &'static str, words: &[&'static str]) -> Option<String> {
        let entry = self.value(key)?;
        match text_of(&entry.node) {
            Some(text) if words.contains(&text.as_str()) => return Some(text),
            Some(text) => {
                let remedy = suggestion(&text, "one of", words.iter().copied());
                self.error(key, format!("{} is not one of its values", excerpt(&text)), remedy);
            }
            None => self.mismatch(entry, "text", quotes(&entry.node)),
        }
        None
    }

    /// A key that means nothing here with a map of free names to texts or null; the names `other` hold anything. Whether
    /// something is written there, and is as it should be.
    pub fn texts_or_null(&mut self, key: &'static str, other: &[&str]) -> bool {
        let Some((_, entries)) = self.free_map(key) else { return false };
        let mut is_sound = !entries.is_empty();
        for entry in entries.iter().filter(|entry| !other.contains(&entry.key.as_str())) {
            if !matches!(entry.node.value, Value::Null) && text_of(&entry.node).is_none() {
                let path = format!("{}::{}", self.child_path(key), entry.key);
                let reason = format!("expected text or nothing, got {}", entry.node.describe());
                self.report.error(&entry.node.position, &path, reason, quotes(&entry.node));
                is_sound = false;
            }
        }
        is_sound
    }

    /// A key of the Collector that we refuse: honest configurations rely on what it does. Null says nothing.
    pub fn unsupported(&mut self, key: &'static str, why: &str, remedy: &str) {
        if let Some(entry) = self.value(key) {
            self.report.error(&entry.position, &self.child_path(key), format!("not supported: {why}"), remedy);
        }
    }

    /// A key of the Collector of which only `allowed` values (their text; null is always allowed) are supported.
    pub fn only(&mut self, key: &'static str, allowed: &[&str], why: &str, remedy: &str) {
        let Some(entry) = self.declare(key) else { return };
        let fits = match &entry.node.value {
            Value::Null => true,
            Value::Scalar(scalar) => allowed.contains(&scalar.text.as_str()),
            Value::List(items) => items.is_empty() && allowed.contains(&"[]"),
            Value::Map(entries) => entries.is_empty() && allowed.contains(&"{}"),
        };
        if !fits {
            self.error(key, format!("not supported: {why}"), remedy);
        }
    }

    /// Whether the key is written without a value.
    pub fn is_null(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key && matches!(entry.node.value, Value::Null))
    }

    /// As [`Section::accept`] of a whole number; its value, for checks across keys. What is behind a point goes, as in the
    /// Collector.
    pub fn accept_int(&mut self, key: &'static str) -> Option<i128> {
        let entry = self.value(key)?;
        match &entry.node.value {
            Value::Scalar(scalar) if let Kind::Int(value) = scalar.kind => Some(value),
            Value::Scalar(scalar) if let Kind::Float(value) = scalar.kind => Some(value as i128),
            _ => {
                self.mismatch(entry, "a whole number", "");
                None
            }
        }
    }

    /// As [`Section::accept`] of a duration; its value, for checks across keys.
    pub fn accept_duration(&mut self, key: &'static str) -> Option<Duration> {
        let entry = self.value(key)?;
        self.duration_of(entry)
    }

    /// `flat` keys that the Collector has moved into the section `block`: they earn a warning, and beside the section they
    /// are an error. Each comes with the boolean that says nothing; of numbers and durations that is zero. All are
    /// declared elsewhere.
    pub fn moved(&self, block: &'static str, flat: &[(&'static str, bool)]) {
        let find = |key: &str| self.entries.iter().find(|entry| entry.key == key);
        let is_open = find(block).is_some_and(|entry| !matches!(entry.node.value, Value::Null));
        for (key, idle) in flat {
            let Some(entry) = find(key) else { continue };
            let Value::Scalar(scalar) = &entry.node.value else { continue };
            let says_nothing = match scalar.kind {
                Kind::Bool(value) => value == *idle,
                Kind::Int(value) => value == 0,
                Kind::Float(value) => value == 0.0,
                Kind::Text => duration::parse(&scalar.text).is_ok_and(|value| value.is_zero()),
            };
            if says_nothing {
                continue;
            }
            if is_open {
                let reason = format!("stands beside the section {block}, which took its place");
                self.report.error(
                    &entry.position,
                    &self.child_path(key),
                    reason,
                    format!("write it there, under {block}"),
                );
            } else {
                let reason = format!("the Collector has dropped this key in favour of the section {block}");
                self.report.warn(&entry.position, &self.child_path(key), reason, "write it there");
            }
        }
    }

    fn check_shape(&self, entry: &Entry, shape: Shape) -> bool {
        let kind = match &entry.node.value {
            Value::Null => return true,
            Value::List(_) if matches!(shape, Shape::List | Shape::Any) => return true,
            Value::Map(_) if matches!(shape, Shape::Map | Shape::Any) => return true,
            Value::List(_) | Value::Map(_) => None,
            Value::Scalar(scalar) => Some(scalar.kind),
        };
        let (fits, expected) = match shape {
            Shape::Bool => (matches!(kind, Some(Kind::Bool(_))), "true or false"),
            Shape::Int => (matches!(kind, Some(Kind::Int(_) | Kind::Float(_))), "a whole number"),
            Shape::Number => (matches!(kind, Some(Kind::Int(_) | Kind::Float(_))), "a number"),
            Shape::Duration => return self.duration_of(entry).is_some(),
            Shape::Text => (text_of(&entry.node).is_some(), "text"),
            // One text is split at commas.
            Shape::List => (matches!(kind, Some(Kind::Text)), "a list"),
            Shape::Map => (false, "a map"),
            Shape::Any => (true, "anything"),
        };
        if !fits {
            self.mismatch(entry, expected, "");
        }
        fits
    }
}
