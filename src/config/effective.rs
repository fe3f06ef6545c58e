//! The settings as they hold, defaults filled in: what `print-config` shows, as YAML or JSON that loads back.

use super::node::{Kind, Scalar};
use std::fmt::Write as _;

/// What stands in place of a secret.
const REDACTED: &str = "[REDACTED]";

/// A value as it holds after defaults.
#[derive(Debug, Clone, PartialEq)]
pub enum Effective {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Secret(String),
    List(Vec<Effective>),
    Map(Vec<(String, Effective)>),
}

/// Whether secrets are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Secrets {
    #[default]
    Redacted,
    Shown,
}

/// How settings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Yaml,
    Json,
}

impl Effective {
    /// The settings as text that ends with a line feed. `$` is doubled, so that the text means the same when loaded.
    pub fn print(&self, format: Format, secrets: Secrets) -> String {
        let mut printer = Printer { out: String::new(), secrets };
        match format {
            Format::Yaml => printer.yaml(self, 0),
            Format::Json => printer.json(self, 0),
        }
        let mut out = printer.out.trim_start_matches('\n').to_owned();
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }
}

impl Effective {
    /// What a value that holds no others reads as.
    pub(super) fn scalar(&self, secrets: Secrets) -> String {
        match self {
            Effective::Bool(value) => value.to_string(),
            Effective::Int(value) => value.to_string(),
            Effective::Float(value) => format!("{value:?}"),
            Effective::Secret(_) if secrets == Secrets::Redacted => REDACTED.to_owned(),
            Effective::Text(value) | Effective::Secret(value) => value.clone(),
            Effective::List(_) => "[]".to_owned(),
            Effective::Map(_) => "{}".to_owned(),
        }
    }
}

struct Printer {
    out: String,
    secrets: Secrets,
}

impl Printer {
    /// Writes a value after `key:` or `-`, which are already there; nested ones on lines of their own.
    fn yaml(&mut self, value: &Effective, depth: usize) {
        match value {
            Effective::Map(entries) if !entries.is_empty() => {
                for entry in entries {
                    self.line(depth);
                    self.yaml_entry(entry, depth);
                }
            }
            Effective::List(items) if !items.is_empty() => {
                for item in items {
                    self.line(depth);
                    self.out.push('-');
                    match item {
                        // `- name: x`, the first key on the dash's line.
                        Effective::Map(entries) if !entries.is_empty() => {
                            self.out.push(' ');
                            for (index, entry) in entries.iter().enumerate() {
                                if index > 0 {
                                    self.line(depth + 1);
                                }
                                self.yaml_entry(entry, depth + 1);
                            }
                        }
                        item => self.yaml_value(item, depth),
                    }
                }
            }
            other => self.out.push_str(&self.scalar(other, plain_or_quoted)),
        }
    }

    fn yaml_entry(&mut self, (key, value): &(String, Effective), depth: usize) {
        let _ = write!(self.out, "{}:", plain_or_quoted(key));
        self.yaml_value(value, depth);
    }

    fn yaml_value(&mut self, value: &Effective, depth: usize) {
        let nested = match value {
            Effective::Map(entries) => !entries.is_empty(),
            Effective::List(items) => !items.is_empty(),
            _ => false,
        };
        if !nested {
            self.out.push(' ');
        }
        self.yaml(value, depth + 1);
    }

    fn json(&mut self, value: &Effective, depth: usize) {
        match value {
            Effective::Map(entries) if !entries.is_empty() => {
                self.out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    self.separator(index, depth);
                    self.out.push_str(&quoted(key));
                    self.out.push_str(": ");
                    self.json(value, depth + 1);
                }
                self.line(depth);
                self.out.push('}');
            }
            Effective::List(items) if !items.is_empty() => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.separator(index, depth);
                    self.json(item, depth + 1);
                }
                self.line(depth);
                self.out.push(']');
            }
            other => self.out.push_str(&self.scalar(other, quoted)),
        }
    }

    fn separator(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push(',');
        }
        self.line(depth + 1);
    }

    fn line(&mut self, depth: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", depth));
    }

    fn scalar(&self, value: &Effective, text: fn(&str) -> String) -> String {
        let plain = value.scalar(self.secrets);
        match value {
            Effective::Text(_) | Effective::Secret(_) => text(&plain.replace('$', "$$")),
            _ => plain,
        }
    }
}

/// Plain where YAML reads the same text back, quoted otherwise.
fn plain_or_quoted(text: &str) -> String {
    let is_text = Scalar::plain(text).is_some_and(|scalar| scalar.kind == Kind::Text);
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '$'));
    let safe =
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | ':' | '$' | '+' | '='));
    // `: ` would begin a value and `...` end the document.
    match is_text && starts_plain && safe && !text.ends_with(':') && !text.starts_with("...") {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// A JSON string, which is a double-quoted YAML string too.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Escaped beyond what JSON demands: YAML takes some of them for line breaks or refuses them.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::{Node, Value};
    use crate::config::yaml;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// What the printed text says when it is parsed again.
    fn reread(node: &Node) -> Effective {
        match &node.value {
            Value::Null => panic!("a null was printed"),
            Value::List(items) => Effective::List(items.iter().map(reread).collect()),
            Value::Map(entries) => {
                Effective::Map(entries.iter().map(|entry| (entry.key.clone(), reread(&entry.node))).collect())
            }
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Text => Effective::Text(scalar.text.replace("$$", "$")),
                Kind::Bool(value) => Effective::Bool(value),
                Kind::Int(value) => Effective::Int(value),
                Kind::Float(value) => Effective::Float(value),
            },
        }
    }

    fn values() -> impl Strategy<Value = Effective> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Effective::Bool),
            any::<i64>().prop_map(|value| Effective::Int(value.into())),
            (-1e9..1e9).prop_map(Effective::Float),
            "[ -~\\n\\t]{0,12}".prop_map(Effective::Text),
            any::<String>().prop_map(Effective::Text),
            prop_oneof!["null", "true", "0123", "-", "- a", "a: b", "a #b", "...", "---", "1e3", "~", "yes", ".inf"]
                .prop_map(Effective::Text),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Effective::List),
                prop::collection::btree_map("[a-z:/. -]{1,6}", inner, 0..4)
                    .prop_map(|map| Effective::Map(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value in values()) {
            let root = Effective::Map(vec![("root".to_owned(), value)]);
            for format in [Format::Yaml, Format::Json] {
                let printed = root.print(format, Secrets::Shown);
                let parsed = yaml::parse(&Arc::from("t"), &printed).map_err(|error| format!("{error}\n{printed}"));
                prop_assert_eq!(reread(&parsed.unwrap()), root.clone(), "{}", printed);
            }
        }
    }

    #[test]
    fn yaml_reads_as_a_person_would_write_it() {
        let value = Effective::Map(vec![
            ("endpoint".into(), Effective::Text("0.0.0.0:4317".into())),
            ("headers".into(), Effective::Map(vec![("token".into(), Effective::Secret("s3cret".into()))])),
            ("list".into(), Effective::List(vec![Effective::Text("a".into()), Effective::Int(1)])),
            ("empty".into(), Effective::Map(vec![])),
            ("cost".into(), Effective::Text("5$".into())),
        ]);
        let expected =
            "endpoint: 0.0.0.0:4317\nheaders:\n  token: \"[REDACTED]\"\nlist:\n  - a\n  - 1\nempty: {}\ncost: 5$$\n";
        assert_eq!(value.print(Format::Yaml, Secrets::Redacted), expected);
        assert!(value.print(Format::Json, Secrets::Shown).contains("\"token\": \"s3cret\""));
    }
}
