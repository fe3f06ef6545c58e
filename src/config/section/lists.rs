//! Lists of texts that are read further, e.g. statements, and lists that hold texts or maps.

use super::{Section, quotes, text_of};
use crate::config::diagnostic::{Diagnostic, Position, Severity};
use crate::config::effective::Effective;
use crate::config::node::Value;

/// A text of a list, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListText {
    pub text: String,
    position: Position,
    path: String,
}

/// One entry of a list that may hold both.
pub enum Item<'s, 'a> {
    Text(ListText),
    Section(&'s mut Section<'a>),
}

impl<'a> Section<'a> {
    /// A list of texts, or one text. Only texts that are not empty, as there is nothing to read in others.
    pub fn texts(&mut self, key: &'static str) -> Vec<ListText> {
        if let Some(text) = self.one_text(key) {
            return vec![text];
        }
        self.items(key, |section, item| match item {
            Item::Text(text) => Some(text),
            Item::Section(inner) => {
                section.error_at(&inner.position, &inner.path, "expected text, got a map", "");
                None
            }
        })
    }

    /// Names of headers; none twice, whatever the case of its letters.
    pub fn header_names(&mut self, key: &'static str) -> Vec<String> {
        let names = self.list(key);
        let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        for (at, name) in lower.iter().enumerate() {
            if lower.iter().take(at).any(|known| known == name) {
                self.error(key, format!("names {name:?} a second time; case does not count"), "remove one");
            }
        }
        names
    }

    /// A text in place of a list of texts. The Collector would cut it at commas, whatever they mean in there.
    fn one_text(&mut self, key: &'static str) -> Option<ListText> {
        let node = &self.entries.iter().find(|entry| entry.key == key)?.node;
        let text = text_of(node).filter(|text| !text.is_empty() && !text.contains(','))?;
        self.known.push(key);
        self.record(key, Effective::List(vec![Effective::Text(text.clone())]));
        Some(ListText { text, position: node.position.clone(), path: self.child_path(key) })
    }

    /// A list of texts or maps, in order. What `read` gives nothing for is left out.
    pub fn items<T>(&mut self, key: &'static str, mut read: impl FnMut(&Self, Item<'_, 'a>) -> Option<T>) -> Vec<T> {
        let Some(entry) = self.value(key) else { return Vec::new() };
        let Value::List(items) = &entry.node.value else {
            self.mismatch(entry, "a list", "begin each entry with a dash");
            return Vec::new();
        };
        let (mut values, mut effective) = (Vec::new(), Vec::new());
        for (index, node) in items.iter().enumerate() {
            let path = format!("{}::{index}", self.child_path(key));
            let position = node.position.clone();
            if matches!(node.value, Value::Map(_)) {
                let mut inner = Section::over(self.report, Some(node), position, path);
                values.extend(read(self, Item::Section(&mut inner)));
                effective.push(inner.finish().0);
                continue;
            }
            match text_of(node).filter(|text| !text.is_empty()) {
                Some(text) => {
                    effective.push(Effective::Text(text.clone()));
                    values.extend(read(self, Item::Text(ListText { text, position, path })));
                }
                None => {
                    self.error_at(&position, &path, format!("expected text, got {}", node.describe()), quotes(node))
                }
            }
        }
        self.record(key, Effective::List(effective));
        values
    }

    /// Reports an error about a text of a list.
    pub fn error_in(&self, text: &ListText, reason: impl Into<String>, remedy: impl Into<String>) {
        self.error_at(&text.position, &text.path, reason, remedy);
    }

    /// Reports that a text of a list is probably not what was meant.
    pub fn warn_in(&self, text: &ListText, reason: impl Into<String>, remedy: impl Into<String>) {
        let warning = Diagnostic::error(Some(text.position.clone()), text.path.clone(), reason);
        self.report.add(warning.with_severity(Severity::Warning).with_remedy(remedy));
    }

    fn error_at(&self, position: &Position, path: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        self.report.error(position, path, reason, remedy);
    }
}
