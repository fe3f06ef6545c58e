//! Free names with texts, e.g. `headers`.

use super::{Secrecy, Section, quotes, text_of};
use crate::config::effective::Effective;
use crate::config::node::{Entry, Node, Value};

impl Section<'_> {
    /// Free names with texts, in the order of the source: a map, or the Collector's other form, a list of
    /// `{name: NAME, value: TEXT}`.
    pub fn pairs(&mut self, key: &'static str, secrecy: Secrecy) -> Vec<(String, String)> {
        let Some(entry) = self.value(key) else { return Vec::new() };
        let pairs: Vec<_> = match &entry.node.value {
            Value::Map(entries) => entries.iter().filter_map(|pair| self.pair(key, pair, secrecy)).collect(),
            Value::List(items) => self.named(key, items, secrecy),
            _ => {
                self.mismatch(entry, "a map of names to texts", "");
                return Vec::new();
            }
        };
        let shown = pairs.iter().map(|(name, text)| (name.clone(), secrecy.of(text))).collect();
        self.record(key, Effective::Map(shown));
        pairs
    }

    fn pair(&self, key: &str, pair: &Entry, secrecy: Secrecy) -> Option<(String, String)> {
        let path = format!("{}::{}", self.child_path(key), pair.key);
        Some((pair.key.clone(), self.text_of_pair(&pair.node, &path, secrecy)?))
    }

    /// The list form.
    fn named(&self, key: &str, items: &[Node], secrecy: Secrecy) -> Vec<(String, String)> {
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}::{index}", self.child_path(key));
            let error = |reason: String| self.report.error(&item.position, &path, reason, "write {name: a, value: b}");
            let Some(entries) = item.entries() else {
                error(format!("expected a map of name and value, got {}", item.describe_kind()));
                continue;
            };
            if let Some(other) = entries.iter().find(|entry| !matches!(entry.key.as_str(), "name" | "value")) {
                let path = format!("{path}::{}", other.key);
                self.report.error(&other.position, &path, "unknown key", "known keys: name, value");
            }
            let field = |name: &str| entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node);
            let Some(name) = field("name").and_then(text_of).filter(|name| !name.is_empty()) else {
                error("has no name".to_owned());
                continue;
            };
            if pairs.iter().any(|(known, _)| *known == name) {
                error(format!("names {name:?} a second time"));
                continue;
            }
            let text = match field("value") {
                None => Some(String::new()),
                Some(value) => self.text_of_pair(value, &format!("{path}::value"), secrecy),
            };
            pairs.extend(text.map(|text| (name, text)));
        }
        pairs
    }

    /// Null is the empty text.
    fn text_of_pair(&self, node: &Node, path: &str, secrecy: Secrecy) -> Option<String> {
        let text = text_of(node);
        if text.is_none() && matches!(node.value, Value::Null) {
            return Some(String::new());
        }
        if text.is_none() {
            // The value may be a secret: say what it is, not what it says.
            let kind = match secrecy {
                Secrecy::Open => node.describe(),
                Secrecy::Secret | Secrecy::Url => node.describe_kind().to_owned(),
            };
            self.report.error(&node.position, path, format!("expected text, got {kind}"), quotes(node));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::tests::decode;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        decode(text, "a", |section| section.pairs("h", Secrecy::Secret))
    }

    #[test]
    fn names_and_texts_are_a_map_or_a_list() {
        let expected = vec![("x".to_owned(), "1".to_owned()), ("y".to_owned(), String::new())];
        for text in ["h: {x: '1', y: }", "h: [{name: x, value: '1'}, {name: y}]"] {
            assert_eq!(read(text), (expected.clone(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn the_list_form_names_each_once_and_nothing_else() {
        for (text, said) in [
            ("h: [x]", "t:1:5: a::h::0: expected a map of name and value, got a text (write {name: a, value: b})"),
            ("h: [{value: x}]", "t:1:5: a::h::0: has no name (write {name: a, value: b})"),
            ("h: [{name: x, key: y}]", "t:1:15: a::h::0::key: unknown key (known keys: name, value)"),
            ("h: [{name: x, value: 5}]", "t:1:22: a::h::0::value: expected text, got a number (put it in quotes)"),
            ("h: [{name: x}, {name: x}]", "t:1:16: a::h::1: names \"x\" a second time (write {name: a, value: b})"),
        ] {
            assert_eq!(read(text).1, [said]);
        }
    }
}
