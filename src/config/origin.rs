//! Where each value of a configuration was written.

use super::diagnostic::Position;
use super::effective::{Effective, Secrets};
use super::node::{Node, Value};
use std::collections::BTreeMap;

/// The place of every value that somebody wrote, by its path. What has none holds by default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Origins(BTreeMap<Vec<String>, Position>);

/// A value of the configuration as it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting<'a> {
    /// Keys from the top; of a list's item its number.
    pub path: Vec<String>,
    pub value: String,
    /// `None`: nobody wrote it.
    pub origin: Option<&'a Position>,
}

impl Origins {
    pub(super) fn of(root: &Node) -> Self {
        let mut origins = Self::default();
        origins.add(root, &mut Vec::new());
        origins
    }

    fn add(&mut self, node: &Node, path: &mut Vec<String>) {
        match &node.value {
            Value::Null => {}
            Value::Scalar(_) => drop(self.0.insert(path.clone(), node.position.clone())),
            Value::List(items) => {
                // The list itself too: one that is empty, or that a text was split into, has no items of its own.
                self.0.insert(path.clone(), node.position.clone());
                for (number, item) in items.iter().enumerate() {
                    path.push(number.to_string());
                    self.add(item, path);
                    path.pop();
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    path.push(entry.key.trim().to_owned());
                    self.add(&entry.node, path);
                    path.pop();
                }
            }
        }
    }

    /// Every single value of a configuration as it holds, in order, secrets aside.
    pub fn settings(&self, effective: &Effective) -> Vec<Setting<'_>> {
        let mut settings = Vec::new();
        self.collect(effective, &mut Vec::new(), &mut settings);
        settings
    }

    fn collect<'a>(&'a self, effective: &Effective, path: &mut Vec<String>, settings: &mut Vec<Setting<'a>>) {
        let children: Vec<(String, &Effective)> = match effective {
            Effective::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Effective::List(items) => {
                items.iter().enumerate().map(|(number, item)| (number.to_string(), item)).collect()
            }
            _ => Vec::new(),
        };
        if children.is_empty() {
            let value = effective.scalar(Secrets::Redacted);
            return settings.push(Setting { path: path.clone(), value, origin: self.origin(path) });
        }
        for (key, value) in children {
            path.push(key);
            self.collect(value, path, settings);
            path.pop();
        }
    }

    /// Where a value, or the list that holds it, was written.
    fn origin(&self, path: &[String]) -> Option<&Position> {
        let own = self.0.get(path);
        let in_list = || match path.split_last() {
            Some((number, list)) if number.bytes().all(|byte| byte.is_ascii_digit()) => self.0.get(list),
            _ => None,
        };
        own.or_else(in_list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;
    use std::sync::Arc;

    #[test]
    fn values_that_were_written_say_where_and_the_others_nothing() {
        let text = "receivers:\n  otlp:\n    endpoint: a:1\n    list: [x]\n    split: p,q\n";
        let origins = Origins::of(&yaml::parse(&Arc::from("t.yaml"), text).unwrap());
        let texts =
            |texts: &[&str]| Effective::List(texts.iter().map(|text| Effective::Text((*text).into())).collect());
        let otlp = Effective::Map(vec![
            ("endpoint".into(), Effective::Text("a:1".into())),
            ("list".into(), texts(&["x"])),
            ("split".into(), texts(&["p", "q"])),
            ("token".into(), Effective::Secret("hidden".into())),
            ("empty".into(), Effective::Map(Vec::new())),
        ]);
        let effective = Effective::Map(vec![("receivers".into(), Effective::Map(vec![("otlp".into(), otlp)]))]);
        let settings = origins.settings(&effective);
        let shown: Vec<String> = settings
            .iter()
            .map(|Setting { path, value, origin }| {
                format!("{}={value} {}", path.join("/"), origin.map(ToString::to_string).unwrap_or_default())
            })
            .collect();
        assert_eq!(
            shown,
            [
                "receivers/otlp/endpoint=a:1 t.yaml:3:15",
                "receivers/otlp/list/0=x t.yaml:4:12",
                "receivers/otlp/split/0=p t.yaml:5:12",
                "receivers/otlp/split/1=q t.yaml:5:12",
                "receivers/otlp/token=[REDACTED] ",
                "receivers/otlp/empty={} ",
            ]
        );
    }
}
