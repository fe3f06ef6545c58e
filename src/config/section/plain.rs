//! Values of any type: what a setting like an attribute's `value` may be.

use super::Section;
use crate::config::effective::Effective;
use crate::config::node::{Kind, Node, Value};

/// A value as YAML has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Plain>),
    /// In the order of the source.
    Map(Vec<(String, Plain)>),
}

impl Section<'_> {
    /// A value of any type. None: absent or null.
    pub fn plain(&mut self, key: &'static str) -> Option<Plain> {
        let entry = self.written(key)?;
        match plain(&entry.node) {
            Some(value) => {
                self.record(key, effective(&value));
                Some(value)
            }
            None => {
                self.error(key, "holds a number of more than 64 bits", "put it in quotes");
                None
            }
        }
    }
}

/// The nesting of YAML is bounded where it is parsed.
fn plain(node: &Node) -> Option<Plain> {
    Some(match &node.value {
        // What a reference stood for, if YAML makes nothing of it.
        Value::Null => node.original.clone().map_or(Plain::Null, Plain::Text),
        Value::Scalar(scalar) => match scalar.kind {
            Kind::Text => Plain::Text(scalar.text.clone()),
            Kind::Bool(value) => Plain::Bool(value),
            Kind::Int(value) => Plain::Int(i64::try_from(value).ok()?),
            Kind::Float(value) => Plain::Float(value),
        },
        Value::List(items) => Plain::List(items.iter().map(plain).collect::<Option<_>>()?),
        Value::Map(entries) => {
            let entry = |entry: &crate::config::node::Entry| Some((entry.key.clone(), plain(&entry.node)?));
            Plain::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

fn effective(value: &Plain) -> Effective {
    match value {
        // Inside a list or map only; a text reads back as nothing better.
        Plain::Null => Effective::Text(String::new()),
        Plain::Bool(value) => Effective::Bool(*value),
        Plain::Int(value) => Effective::Int((*value).into()),
        Plain::Float(value) => Effective::Float(*value),
        Plain::Text(text) => Effective::Text(text.clone()),
        Plain::List(items) => Effective::List(items.iter().map(effective).collect()),
        Plain::Map(entries) => {
            Effective::Map(entries.iter().map(|(key, value)| (key.clone(), effective(value))).collect())
        }
    }
}
