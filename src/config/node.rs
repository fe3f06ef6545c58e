//! The tree a configuration is while it has no types yet: values with the place they came from.

use super::diagnostic::Position;
use std::collections::HashMap;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub position: Position,
    /// The text a `${...}` reference stood for, if the value is exactly one: a string-typed setting takes it as it is,
    /// so that a password `0123` keeps its zero.
    pub original: Option<String>,
}

/// The kinds of YAML values, scalars by the core schema of YAML 1.2 (`yes` is a string).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the source; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub position: Position,
    pub node: Node,
}

/// A scalar with its text as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub text: String,
    pub kind: Kind,
}

/// What a scalar means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    Bool(bool),
    Int(i128),
    Float(f64),
}

impl Node {
    /// A value at `position`.
    pub fn new(value: Value, position: Position) -> Self {
        Self { value, position, original: None }
    }

    /// The entries if this is a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// As [`Node::describe`], without the value: it may be a secret.
    pub fn describe_kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Text => "a text",
                Kind::Bool(_) => "a boolean",
                Kind::Int(_) | Kind::Float(_) => "a number",
            },
        }
    }

    /// What this is, in words for an error text.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Text => format!("the text {}", excerpt(&scalar.text)),
                Kind::Bool(_) => format!("the boolean {}", scalar.text),
                Kind::Int(_) | Kind::Float(_) => format!("the number {}", excerpt(&scalar.text)),
            },
        }
    }
}

impl Scalar {
    /// Resolves a plain (unquoted) scalar. None: null.
    ///
    /// Besides YAML 1.2 this reads what the Collector's parser reads: octal `0123`, binary `0b1` and `1_000`.
    pub fn plain(text: &str) -> Option<Self> {
        let kind = match text {
            "" | "~" | "null" | "Null" | "NULL" => return None,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            _ => number(text).unwrap_or(Kind::Text),
        };
        Some(Self { text: text.to_owned(), kind })
    }

    /// A quoted or substituted scalar: always text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Text }
    }
}

fn number(text: &str) -> Option<Kind> {
    let (negative, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            return Some(Kind::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
        }
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Some(Kind::Float(f64::NAN)),
        _ => {}
    }
    let digits: String = unsigned.chars().filter(|c| *c != '_').collect();
    let radix = |prefix: &str, radix| digits.strip_prefix(prefix).map(|rest| (rest.to_owned(), radix));
    let (body, radix) = radix("0x", 16)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2))
        .or_else(|| (digits.len() > 1).then(|| radix("0", 8)).flatten().filter(|(rest, _)| is_octal(rest)))
        .unwrap_or_else(|| (digits.clone(), 10));
    if body.chars().all(|c| c.is_digit(radix))
        && let Ok(magnitude) = i128::from_str_radix(&body, radix)
    {
        return Some(Kind::Int(if negative { -magnitude } else { magnitude }));
    }
    let looks_float = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && digits.chars().any(|c| c.is_ascii_digit());
    let float: f64 = if looks_float { digits.parse().ok()? } else { return None };
    Some(Kind::Float(if negative { -float } else { float }))
}

fn is_octal(digits: &str) -> bool {
    !digits.is_empty() && digits.chars().all(|c| c.is_digit(8))
}

/// A piece of a value that is short enough for an error text.
pub fn excerpt(text: &str) -> String {
    /// Longer values say nothing more on a terminal.
    const CHARS_MAX: usize = 60;
    let short: String = text.chars().take(CHARS_MAX).collect();
    let more = if short.len() < text.len() { "..." } else { "" };
    format!("\"{}{more}\"", short.escape_debug())
}

/// Lays `later` over `earlier` as the Collector merges its sources: maps deeply, everything else replaced.
///
/// A later null replaces too: `processors:` without content deletes what was there.
pub fn merge(earlier: &mut Node, later: Node) {
    match (&mut earlier.value, later.value) {
        (Value::Map(entries), Value::Map(more)) => merge_entries(entries, more),
        (_, value) => *earlier = Node { value, position: later.position, original: later.original },
    }
}

fn merge_entries(entries: &mut Vec<Entry>, more: Vec<Entry>) {
    let mut index: HashMap<String, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    for entry in more {
        match index.get(&entry.key).and_then(|at| entries.get_mut(*at)) {
            Some(known) => {
                known.position = entry.position;
                merge(&mut known.node, entry.node);
            }
            None => {
                index.insert(entry.key.clone(), entries.len());
                entries.push(entry);
            }
        }
    }
}

/// Turns keys that contain `::` into nested maps: `a::b: 1` is `a: {b: 1}`, merged with an `a:` beside it.
pub fn nest_keys(node: &mut Node) {
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(nest_keys),
        Value::Map(entries) => {
            entries.iter_mut().for_each(|entry| nest_keys(&mut entry.node));
            if entries.iter().any(|entry| entry.key.contains("::")) {
                let flat = std::mem::take(entries);
                for entry in flat {
                    merge_entries(entries, vec![nested(entry)]);
                }
            }
        }
    }
}

fn nested(entry: Entry) -> Entry {
    /// Deeper keys are kept as they are and then refused as unknown.
    const SEPARATORS_MAX: usize = 32;
    let Some((first, rest)) = entry.key.split_once("::") else { return entry };
    if entry.key.matches("::").count() > SEPARATORS_MAX {
        return entry;
    }
    let inner = nested(Entry { key: rest.to_owned(), position: entry.position.clone(), node: entry.node });
    let position = entry.position;
    let node = Node::new(Value::Map(vec![inner]), position.clone());
    Entry { key: first.to_owned(), position, node }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A tree without positions, as the Collector's merge sees it.
    #[derive(Debug, Clone, PartialEq)]
    enum Plain {
        Leaf(u8),
        List(Vec<u8>),
        Map(std::collections::BTreeMap<String, Plain>),
    }

    fn trees() -> impl Strategy<Value = Plain> {
        let leaf = prop_oneof![
            any::<u8>().prop_map(Plain::Leaf),
            prop::collection::vec(any::<u8>(), 0..3).prop_map(Plain::List),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(Plain::Map))
    }

    fn node(plain: &Plain) -> Node {
        yaml::parse(&Arc::from("t"), &text(plain)).unwrap()
    }

    fn text(plain: &Plain) -> String {
        match plain {
            Plain::Leaf(value) => value.to_string(),
            Plain::List(items) => format!("{items:?}"),
            Plain::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", text(value))).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn plain(node: &Node) -> Plain {
        match &node.value {
            Value::Scalar(scalar) => Plain::Leaf(scalar.text.parse().unwrap()),
            Value::List(items) => Plain::List(
                items
                    .iter()
                    .map(|item| match plain(item) {
                        Plain::Leaf(value) => value,
                        other => panic!("{other:?}"),
                    })
                    .collect(),
            ),
            Value::Map(entries) => {
                Plain::Map(entries.iter().map(|entry| (entry.key.clone(), plain(&entry.node))).collect())
            }
            Value::Null => panic!("a null"),
        }
    }

    /// The rule in four lines.
    fn model(earlier: &Plain, later: &Plain) -> Plain {
        let (Plain::Map(earlier), Plain::Map(later)) = (earlier, later) else { return later.clone() };
        let mut merged = earlier.clone();
        for (key, value) in later {
            let below = earlier.get(key).map_or_else(|| value.clone(), |known| model(known, value));
            merged.insert(key.clone(), below);
        }
        Plain::Map(merged)
    }

    proptest! {
        #[test]
        fn maps_merge_deeply_and_everything_else_is_replaced(a in trees(), b in trees()) {
            let mut merged = node(&a);
            merge(&mut merged, node(&b));
            prop_assert_eq!(plain(&merged), model(&a, &b));
        }
    }

    #[test]
    fn keys_with_double_colons_nest_and_merge() {
        let mut root = yaml::parse(&Arc::from("t"), "a::b::c: 1\na: {b: {d: 2}}\nx: [{y::z: 3}]\n").unwrap();
        nest_keys(&mut root);
        let expected = yaml::parse(&Arc::from("t"), "a: {b: {c: 1, d: 2}}\nx: [{y: {z: 3}}]\n").unwrap();
        let shape = |node: &Node| format!("{:?}", keys(node));
        assert_eq!(shape(&root), shape(&expected));
    }

    /// Every key with its nesting.
    fn keys(node: &Node) -> Vec<String> {
        match &node.value {
            Value::Map(entries) => entries
                .iter()
                .flat_map(|entry| {
                    let below = keys(&entry.node).into_iter().map(|key| format!("{}/{key}", entry.key));
                    std::iter::once(entry.key.clone()).chain(below).collect::<Vec<_>>()
                })
                .collect(),
            Value::List(items) => items.iter().flat_map(keys).collect(),
            Value::Null | Value::Scalar(_) => Vec::new(),
        }
    }

    #[test]
    fn scalars_mean_what_yaml_1_2_and_the_collector_say() {
        let kind = |text| Scalar::plain(text).map(|scalar| scalar.kind);
        assert_eq!(kind("yes"), Some(Kind::Text));
        assert_eq!(kind("True"), Some(Kind::Bool(true)));
        assert_eq!(kind("~"), None);
        assert_eq!(kind("0123"), Some(Kind::Int(83)));
        assert_eq!(kind("0o17"), Some(Kind::Int(15)));
        assert_eq!(kind("0x1F"), Some(Kind::Int(31)));
        assert_eq!(kind("1_000"), Some(Kind::Int(1000)));
        assert_eq!(kind("-5"), Some(Kind::Int(-5)));
        assert_eq!(kind("0"), Some(Kind::Int(0)));
        assert_eq!(kind("1e3"), Some(Kind::Float(1000.0)));
        assert_eq!(kind("0.5"), Some(Kind::Float(0.5)));
        assert_eq!(kind(".inf"), Some(Kind::Float(f64::INFINITY)));
        assert_eq!(kind("089"), Some(Kind::Int(89)));
        for text in ["10s", "1.2.3", "0.0.0.0:4317", "-", "+", ".", "e5", "-x", "1e", "--1", "+-1", "0x", "127.0.0.1"] {
            assert_eq!(kind(text), Some(Kind::Text), "{text}");
        }
    }
}
