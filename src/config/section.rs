//! The typed reader over one map of a configuration: what component settings are decoded with.
//!
//! ```text
//! Section "exporters::otlp/tempo"      getters name key, type and default;
//!   ├ endpoint, timeout, ...           they return a usable value always and collect errors on the side,
//!   └ section "tls" ─▶ Section          so that one run lists everything that is wrong
//! ```
//!
//! Every getter declares its key. Keys that nobody declared are errors at the end, with the nearest declared one. Keys the
//! Collector has and we do not are declared by [`Section::unsupported`] or, where they may stay without harm, by
//! [`Section::inert`]: refused with a reason, or accepted with a note, never ignored in silence.
//!
//! Types are as strict as the Collector's: `"10"` is no number and `5` no text.

mod inert;
mod lists;
mod pairs;
mod plain;
mod scalars;

pub use lists::{Item, ListText};
pub use plain::Plain;
pub use scalars::check_endpoint;

use super::component::Role;
use super::diagnostic::{Diagnostic, Position, Reference, Report, Severity, suggestion};
use super::effective::Effective;
use super::node::{Entry, Kind, Node, Value};
use super::url;

/// A map of the configuration while it is read.
pub struct Section<'a> {
    report: &'a Report,
    entries: &'a [Entry],
    /// Of the section's own key: where something that is missing is reported.
    position: Position,
    path: String,
    /// Keys that were declared so far.
    known: Vec<&'static str>,
    /// `section::key` of every key declared one level below, to find keys that are indented too little.
    below: Vec<String>,
    effective: Vec<(String, Effective)>,
    /// Errors that were there before this section was read.
    errors_before: usize,
}

/// A text of a list and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub text: String,
    pub position: Position,
}

/// What a key without content (null) means for an optional section (the Collector's rules, `confmap.Optional`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenNull {
    /// Sections that have defaults: `grpc:` turns the protocol on.
    On,
    /// Sections that have none: `tls:` says nothing.
    Absent,
}

/// What an inert key must look like nevertheless, so that a slip in it does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Bool,
    Int,
    Number,
    Duration,
    Text,
    List,
    Map,
    Any,
}

/// Whether a value is shown by `print-config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    Open,
    Secret,
    /// A URL: shown unless it has a user, or a query, where keys of APIs are put.
    Url,
}

impl Secrecy {
    fn of(self, text: &str) -> Effective {
        let is_open = match self {
            Self::Open => true,
            Self::Secret => false,
            Self::Url => url::split_user(text).0.is_none() && !text.contains('?'),
        };
        if is_open { Effective::Text(text.to_owned()) } else { Effective::Secret(text.to_owned()) }
    }
}

impl<'a> Section<'a> {
    /// A section over `node`, whose key is at `position`. Null is an empty section; anything but a map is an error.
    pub(super) fn over(report: &'a Report, node: Option<&'a Node>, position: Position, path: String) -> Self {
        let errors_before = report.errors();
        let entries = match node.map(|node| &node.value) {
            None | Some(Value::Null) => &[],
            Some(Value::Map(entries)) => entries.as_slice(),
            Some(_) => {
                let found = node.map(Node::describe).unwrap_or_default();
                let at = node.map_or(&position, |node| &node.position);
                report.error(at, &path, format!("expected a map of settings, got {found}"), "");
                &[]
            }
        };
        Self {
            report,
            entries,
            position,
            path,
            known: Vec::new(),
            below: Vec::new(),
            effective: Vec::new(),
            errors_before,
        }
    }

    /// Refuses keys that nobody declared and gives back what the settings are, defaults filled in.
    pub(super) fn finish(self) -> (Effective, Vec<&'static str>) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let reason = "unknown key";
            let suffix = format!("::{}", entry.key);
            let remedy = match self.below.iter().find(|key| key.ends_with(&suffix)) {
                Some(below) => format!("did you mean {below}? It is indented too little here"),
                None => suggestion(&entry.key, "known keys", self.known.iter().copied()),
            };
            self.report.error(&entry.position, &self.child_path(&entry.key), reason, remedy);
        }
        (Effective::Map(self.effective), self.known)
    }

    /// Whether nothing in this section was refused so far. Checks across keys only make sense then.
    pub fn is_sound(&self) -> bool {
        self.report.errors() == self.errors_before
    }

    /// Whether nothing is written in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where this section is: `exporters::otlp/tempo::tls`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the key is written here, null included. Does not declare it.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Reports an error about `key`, at its value if it is written, at the section otherwise. Empty key: the section.
    pub fn error(&self, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        self.say(Severity::Error, key, reason, remedy);
    }

    /// Reports that `key` is probably not what was meant.
    pub fn warn(&self, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        self.say(Severity::Warning, key, reason, remedy);
    }

    /// Says something worth knowing about `key`.
    pub fn note(&self, key: &str, reason: impl Into<String>) {
        self.say(Severity::Info, key, reason, "");
    }

    /// A nested section that is always there: absent or null means all defaults.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        let entry = self.declare(key);
        let position = entry.map_or(&self.position, |entry| &entry.position).clone();
        let mut inner = Section::over(self.report, entry.map(|entry| &entry.node), position, self.child_path(key));
        let value = read(&mut inner);
        let (effective, known) = inner.finish();
        self.below.extend(known.into_iter().map(|below| format!("{key}::{below}")));
        if !matches!(&effective, Effective::Map(entries) if entries.is_empty()) {
            self.record(key, effective);
        }
        value
    }

    /// A nested section that may be absent; `enabled: false` inside turns it off, whatever else it says.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        when_null: WhenNull,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> Option<T> {
        let entry = self.declare(key)?;
        if when_null == WhenNull::Absent && matches!(entry.node.value, Value::Null) {
            return None;
        }
        let position = entry.position.clone();
        let mut inner = Section::over(self.report, Some(&entry.node), position, self.child_path(key));
        let enabled = inner.switch();
        let value = read(&mut inner);
        let (effective, known) = inner.finish();
        self.below.extend(known.into_iter().map(|below| format!("{key}::{below}")));
        let off = || Effective::Map(vec![("enabled".to_owned(), Effective::Bool(false))]);
        self.record(key, if enabled { effective } else { off() });
        enabled.then_some(value)
    }

    /// `enabled`, which the Collector takes in every optional section; not recorded where it is true.
    fn switch(&mut self) -> bool {
        let Some(entry) = self.declare("enabled") else { return true };
        match &entry.node.value {
            Value::Null => true,
            Value::Scalar(scalar) if let Kind::Bool(enabled) = scalar.kind => enabled,
            _ => {
                self.mismatch(entry, "true or false", "");
                true
            }
        }
    }

    /// A list of nested sections, in order.
    pub fn sections<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'a>) -> T) -> Vec<T> {
        let Some(entry) = self.declare(key) else { return Vec::new() };
        let items = match &entry.node.value {
            Value::Null => return Vec::new(),
            Value::List(items) => items,
            _ => {
                self.mismatch(entry, "a list of maps", "begin each with a dash");
                return Vec::new();
            }
        };
        let (mut values, mut effective) = (Vec::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}::{index}", self.child_path(key));
            let mut inner = Section::over(self.report, Some(item), item.position.clone(), path);
            values.push(read(&mut inner));
            effective.push(inner.finish().0);
        }
        self.record(key, Effective::List(effective));
        values
    }

    /// A map from the ids of other components to nested sections, in the order of the source. Ids are checked when all
    /// components are read.
    pub fn sections_by_id<T>(
        &mut self,
        key: &'static str,
        role: Role,
        mut read: impl FnMut(&mut Section<'a>) -> T,
    ) -> Vec<(String, T)> {
        let Some((_, entries)) = self.free_map(key) else { return Vec::new() };
        let (mut values, mut effective) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = format!("{}::{}", self.child_path(key), entry.key);
            let position = entry.position.clone();
            self.report.refer(Reference {
                role,
                id: entry.key.clone(),
                position: position.clone(),
                path: path.clone(),
            });
            let mut inner = Section::over(self.report, Some(&entry.node), position, path);
            values.push((entry.key.trim().to_owned(), read(&mut inner)));
            effective.push((entry.key.clone(), inner.finish().0));
        }
        if !effective.is_empty() {
            self.record(key, Effective::Map(effective));
        }
        values
    }

    /// A list of texts; one text is split at commas, as in the Collector.
    pub fn list(&mut self, key: &'static str) -> Vec<String> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key)
            && let Value::Scalar(scalar) = &entry.node.value
            && scalar.kind == Kind::Text
        {
            self.known.push(key);
            let parts = scalar.text.split(',').map(|part| part.trim().to_owned());
            let texts: Vec<String> = if scalar.text.is_empty() { Vec::new() } else { parts.collect() };
            self.record(key, Effective::List(texts.iter().cloned().map(Effective::Text).collect()));
            return texts;
        }
        self.located_list(key).into_iter().map(|located| located.text).collect()
    }

    /// A list of texts that `print-config` does not show.
    pub fn secret_list(&mut self, key: &'static str) -> Vec<String> {
        let Some(entry) = self.value(key) else { return Vec::new() };
        let Value::List(items) = &entry.node.value else {
            self.report.error(
                &entry.node.position,
                &self.child_path(key),
                "expected a list of texts",
                "begin each with a dash",
            );
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            match text_of(item) {
                Some(text) => texts.push(text),
                // The value may be a secret: say what it is, not what it says.
                None => {
                    let reason = format!("expected text in this list, got {}", item.describe_kind());
                    self.report.error(&item.position, &self.child_path(key), reason, quotes(item));
                }
            }
        }
        self.record(key, Effective::List(texts.iter().cloned().map(Effective::Secret).collect()));
        texts
    }

    /// A list of texts with the place of each; one text is no list, as where the Collector wants ids.
    pub(super) fn located_list(&mut self, key: &'static str) -> Vec<Located> {
        let Some(entry) = self.value(key) else { return Vec::new() };
        let Value::List(items) = &entry.node.value else {
            let remedy = text_of(&entry.node).map(|text| format!("write [{text}]")).unwrap_or_default();
            self.mismatch(entry, "a list of texts", remedy);
            return Vec::new();
        };
        let texts: Vec<Located> = items.iter().filter_map(|item| self.item(entry, item)).collect();
        let recorded = texts.iter().map(|located| Effective::Text(located.text.clone())).collect();
        self.record(key, Effective::List(recorded));
        texts
    }

    fn item(&self, entry: &Entry, item: &Node) -> Option<Located> {
        let text = text_of(item);
        if text.is_none() {
            let reason = format!("expected text in this list, got {}", item.describe());
            self.report.error(&item.position, &self.child_path(&entry.key), reason, quotes(item));
        }
        Some(Located { text: text?, position: item.position.clone() })
    }

    /// A map with free keys, e.g. `receivers`: its entry and what is in it. None: absent or null.
    pub(super) fn free_map(&mut self, key: &'static str) -> Option<(&'a Entry, &'a [Entry])> {
        let entry = self.value(key)?;
        match entry.node.entries() {
            Some(entries) => Some((entry, entries)),
            None => {
                self.mismatch(entry, "a map", "");
                None
            }
        }
    }

    /// The id of another component that this one works with, e.g. `storage: file_storage`. Checked when all are read.
    pub fn reference(&mut self, key: &'static str, role: Role) -> Option<String> {
        let entry = self.written(key)?;
        let Some(id) = text_of(&entry.node) else {
            self.mismatch(entry, "the id of a component", quotes(&entry.node));
            return None;
        };
        self.report.refer(Reference {
            role,
            id: id.clone(),
            position: entry.node.position.clone(),
            path: self.child_path(key),
        });
        self.record(key, Effective::Text(id.clone()));
        Some(id)
    }

    /// The ids of other components, e.g. a list of authenticators. Checked when all are read.
    pub fn references(&mut self, key: &'static str, role: Role) -> Vec<String> {
        let path = self.child_path(key);
        let named = self.located_list(key);
        for Located { text, position } in &named {
            self.report.refer(Reference { role, id: text.clone(), position: position.clone(), path: path.clone() });
        }
        named.into_iter().map(|located| located.text).collect()
    }

    /// Declares a key; its entry if written, null included.
    fn declare(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Declares a key; its entry if written and not null. Null keeps the default, as in the Collector.
    fn value(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.declare(key).filter(|entry| !matches!(entry.node.value, Value::Null))
    }

    /// As [`Section::value`] of a text: what a reference stood for is there, also where YAML reads it as null.
    fn written(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.declare(key).filter(|entry| entry.node.original.is_some() || !matches!(entry.node.value, Value::Null))
    }

    pub(super) fn record(&mut self, key: &str, value: Effective) {
        self.effective.push((key.to_owned(), value));
    }

    pub(super) fn child_path(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            (path, "") => path.to_owned(),
            ("", key) => key.to_owned(),
            (path, key) => format!("{path}::{key}"),
        }
    }

    fn say(&self, severity: Severity, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let position = entry.map_or(&self.position, |entry| match severity {
            Severity::Error => &entry.node.position,
            Severity::Info | Severity::Warning => &entry.position,
        });
        let diagnostic = Diagnostic::error(Some(position.clone()), self.child_path(key), reason);
        self.report.add(diagnostic.with_severity(severity).with_remedy(remedy));
    }

    fn mismatch(&self, entry: &Entry, expected: &str, remedy: impl Into<String>) {
        let reason = format!("expected {expected}, got {}", entry.node.describe());
        self.report.error(&entry.node.position, &self.child_path(&entry.key), reason, remedy);
    }
}

/// The text of a string-typed value: a text as it is, or what a `${...}` reference stood for.
fn text_of(node: &Node) -> Option<String> {
    match (&node.original, &node.value) {
        (Some(original), _) => Some(original.clone()),
        (None, Value::Scalar(scalar)) if scalar.kind == Kind::Text => Some(scalar.text.clone()),
        _ => None,
    }
}

/// The remedy where a number or boolean stands in place of a text.
fn quotes(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) if scalar.kind != Kind::Text => "put it in quotes".to_owned(),
        _ => String::new(),
    }
}

/// Decodes a text as one section; what came of it and everything that was said, with `a` for the path so far.
#[cfg(test)]
pub(crate) fn decode_for_test<T>(text: &str, decode: impl FnOnce(&mut Section<'_>) -> T) -> (T, Vec<String>) {
    tests::decode(text, "", decode)
}

#[cfg(test)]
mod tests;
