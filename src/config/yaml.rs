//! YAML text to [`Node`]s with positions, within bounds.
//!
//! Built on the event stream, not on serde: a typed reader needs the place of every key and the text of every scalar,
//! also for keys it never heard of.

use super::diagnostic::{Diagnostic, Position};
use super::node::{Entry, Node, Scalar, Value};
use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes of one source. A Kubernetes object ends at 1.5 MiB; configurations people write stay below 100 KiB.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Maps and lists inside one another, aliases followed. The deepest documented setting of the Collector is at 12.
pub const DEPTH_MAX: usize = 64;
/// Values and keys of one source, aliases followed: the bound on what `*a` of `*b` of ... can blow up to.
pub const NODES_MAX: usize = 1 << 16;

/// Parses text of one document. Empty text is null.
pub fn parse(source: &Arc<str>, text: &str) -> Result<Node, Diagnostic> {
    match parse_first(source, text)? {
        (root, None) => Ok(root),
        (_, Some(second)) => Err(Diagnostic::error(Some(second), "", "a second YAML document starts here")
            .with_remedy("one document per source; give --config several times to merge files")),
    }
}

/// Parses the first document, as the Collector does, and says where another one begins. What is in that is not looked at.
pub fn parse_first(source: &Arc<str>, text: &str) -> Result<(Node, Option<Position>), Diagnostic> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > TEXT_BYTES_MAX {
        let reason = format!("is larger than {} KiB", TEXT_BYTES_MAX / 1024);
        return Err(Diagnostic::error(Some(Position::new(source, 1, 1)), "", reason));
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    Reader { parser, source, anchors: HashMap::new(), nodes: 0 }.document()
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    source: &'a Arc<str>,
    anchors: HashMap<usize, Built>,
    /// Nodes built so far.
    nodes: usize,
}

/// A node with its size, so that copying it for an alias can be refused before it is done.
#[derive(Clone)]
struct Built {
    node: Node,
    nodes: usize,
    /// Levels of maps and lists; 0 for a scalar.
    height: usize,
}

impl<'a> Reader<'a> {
    fn document(mut self) -> Result<(Node, Option<Position>), Diagnostic> {
        let mut root = None;
        let second = loop {
            let (event, start) = self.next()?;
            match event {
                Event::StreamEnd => break None,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    // A marker with nothing behind it is the end of many a file.
                    let is_null = |text: &str, style, tag| matches!(scalar(text, style, tag), Value::Null);
                    let is_empty = matches!(self.next(), Ok((Event::Scalar(text, style, _, tag), _))
                        if is_null(&text, style, tag.as_deref()));
                    break (!is_empty).then_some(start);
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, start, 0)?.node),
            }
        };
        Ok((root.unwrap_or_else(|| Node::new(Value::Null, Position::new(self.source, 1, 1))), second))
    }

    fn next(&mut self) -> Result<(Event<'a>, Position), Diagnostic> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.position(span.start))),
            Some(Err(error)) => Err(self.broken(&error)),
            None => Ok((Event::StreamEnd, Position::new(self.source, 1, 1))),
        }
    }

    fn node(&mut self, event: Event<'a>, start: Position, depth: usize) -> Result<Built, Diagnostic> {
        self.nodes += 1;
        self.check_size(&start)?;
        let (anchor, built) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node::new(scalar(&text, style, tag.as_deref()), start);
                (anchor, Built { node, nodes: 1, height: 0 })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.list(start, depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.map(start, depth)?),
            Event::Alias(anchor) => return self.alias(anchor, start, depth),
            _ => return Err(self.refuse(start, "is not valid YAML: a value is missing here")),
        };
        if anchor > 0 {
            // The stored copy counts as well: anchors on anchors must not multiply memory unseen.
            self.nodes += built.nodes;
            self.check_size(&built.node.position)?;
            self.anchors.insert(anchor, built.clone());
        }
        Ok(built)
    }

    fn alias(&mut self, anchor: usize, start: Position, depth: usize) -> Result<Built, Diagnostic> {
        let Some(built) = self.anchors.get(&anchor) else {
            return Err(self.refuse(start, "refers to an anchor that contains it"));
        };
        if depth + built.height > DEPTH_MAX {
            return Err(self.too_deep(start));
        }
        self.nodes += built.nodes;
        self.check_size(&start)?;
        // The copy keeps the anchor's position: that is where a person edits it.
        self.anchors.get(&anchor).cloned().ok_or_else(|| self.refuse(start, "refers to an unknown anchor"))
    }

    fn list(&mut self, start: Position, depth: usize) -> Result<Built, Diagnostic> {
        let (mut items, mut nodes, mut height) = (Vec::new(), 1, 0);
        loop {
            let (event, position) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            if depth + 1 > DEPTH_MAX {
                return Err(self.too_deep(position));
            }
            let item = self.node(event, position, depth + 1)?;
            nodes += item.nodes;
            height = height.max(item.height);
            items.push(item.node);
        }
        Ok(Built { node: Node::new(Value::List(items), start), nodes, height: height + 1 })
    }

    fn map(&mut self, start: Position, depth: usize) -> Result<Built, Diagnostic> {
        let (mut entries, mut merged, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let (mut nodes, mut height) = (1, 0);
        loop {
            let (event, position) = self.next()?;
            let (key, plain) = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, style, ..) => (key.into_owned(), style == ScalarStyle::Plain),
                _ => {
                    return Err(self
                        .refuse(position, "a key must be a plain word")
                        .with_remedy("text that starts with *, & or { needs quotes"));
                }
            };
            if depth + 1 > DEPTH_MAX {
                return Err(self.too_deep(position));
            }
            let (event, value_start) = self.next()?;
            let value = self.node(event, value_start, depth + 1)?;
            nodes += value.nodes + 1;
            height = height.max(value.height);
            if plain && key == "<<" {
                merged.push((position, value.node));
                continue;
            }
            if !seen.insert(key.clone()) {
                let first = entries.iter().find(|entry: &&Entry| entry.key == key);
                let line = first.map_or(0, |entry| entry.position.line);
                return Err(self
                    .refuse(position, &format!("the key {key:?} appears a second time in this map"))
                    .with_remedy(format!("the first is on line {line}; remove one")));
            }
            entries.push(Entry { key, position, node: value.node });
        }
        for (position, node) in merged {
            self.merge_key(&mut entries, &mut seen, node, position)?;
        }
        Ok(Built { node: Node::new(Value::Map(entries), start), nodes, height: height + 1 })
    }

    /// `<<: *defaults`: what the map itself says wins.
    fn merge_key(
        &self,
        entries: &mut Vec<Entry>,
        seen: &mut HashSet<String>,
        node: Node,
        position: Position,
    ) -> Result<(), Diagnostic> {
        match node.value {
            Value::Map(more) => {
                entries.extend(more.into_iter().filter(|entry| seen.insert(entry.key.clone())));
                Ok(())
            }
            Value::List(maps) if maps.iter().all(|map| map.entries().is_some()) => {
                maps.into_iter().try_for_each(|map| self.merge_key(entries, seen, map, position.clone()))
            }
            _ => Err(self.refuse(position, "<< takes a map or a list of maps")),
        }
    }

    fn check_size(&self, at: &Position) -> Result<(), Diagnostic> {
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        Err(self.refuse(at.clone(), &format!("has more than {NODES_MAX} values here, aliases followed")))
    }

    fn too_deep(&self, at: Position) -> Diagnostic {
        self.refuse(at, &format!("is nested deeper than {DEPTH_MAX} levels"))
    }

    fn refuse(&self, at: Position, reason: &str) -> Diagnostic {
        Diagnostic::error(Some(at), "", reason)
    }

    fn broken(&self, error: &ScanError) -> Diagnostic {
        let position = self.position(*error.marker());
        let info = error.info();
        let remedy = if info.contains("tab") {
            "indent with spaces"
        } else {
            "look at this line and the one above: indentation, a missing colon, quote or bracket"
        };
        self.refuse(position, &format!("is not valid YAML: {info}")).with_remedy(remedy)
    }

    fn position(&self, marker: Marker) -> Position {
        let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Position::new(self.source, bounded(marker.line()), bounded(marker.col() + 1))
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let quoted = style != ScalarStyle::Plain || tag.and_then(Tag::core_suffix) == Some("str");
    let scalar = if quoted { Some(Scalar::text(text)) } else { Scalar::plain(text) };
    scalar.map_or(Value::Null, Value::Scalar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::Kind;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Node, String> {
        parse(&Arc::from("t.yaml"), text).map_err(|error| error.to_string())
    }

    fn find<'a>(node: &'a Node, key: &str) -> &'a Entry {
        node.entries().unwrap().iter().find(|entry| entry.key == key).unwrap()
    }

    #[test]
    fn keys_and_values_know_their_place() {
        let root = read("a:\n  b: 5\n  'c' : [x, \"5\"]\n").unwrap();
        let a = find(&root, "a");
        assert_eq!(a.position.to_string(), "t.yaml:1:1");
        let b = find(&a.node, "b");
        assert_eq!((b.position.to_string(), b.node.position.to_string()), ("t.yaml:2:3".into(), "t.yaml:2:6".into()));
        let Value::List(items) = &find(&a.node, "c").node.value else { panic!() };
        assert_eq!(items[1].position.to_string(), "t.yaml:3:13");
        assert_eq!(items[1].value, Value::Scalar(Scalar { text: "5".into(), kind: Kind::Text }));
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let root = read("base: &base {x: 1, y: 2}\nuse:\n  <<: *base\n  y: 3\nlist: [*base]\n").unwrap();
        let used = &find(&root, "use").node;
        assert_eq!(find(used, "y").node.position.line, 4);
        assert_eq!(find(used, "x").node.position.line, 1);
    }

    #[test]
    fn what_is_refused_says_where() {
        let refused = |text: &str| read(text).unwrap_err();
        assert!(refused("a: 1\nb: 2\na: 3\n").starts_with("t.yaml:3:1: the key \"a\" appears a second time"));
        assert!(refused("a: &x [*x]\n").contains("t.yaml:1:8: refers to an anchor that contains it"));
        assert!(refused("a: 1\n---\nb: 2\n").starts_with("t.yaml:2:1: a second YAML document"));
        assert!(refused("a:\n\t- b\n").contains("indent with spaces"), "{}", refused("a:\n\t- b\n"));
        assert!(refused("a: [1, 2\nb: 3\n").contains("is not valid YAML"));
        assert!(refused("[a]: 1\n").contains("a key must be a plain word"));
        assert!(refused(&format!("{}{}", "[".repeat(200), "]".repeat(200))).contains("t.yaml:1:"));
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = level - 1;
            let ten = vec![format!("*a{below}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{ten}]\n"));
        }
        assert!(read(&text).unwrap_err().contains("more than 65536 values"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ \\n\\ta-c:{}\\[\\],&*<'\"#|>!?%-]{0,80}") {
            let _ = read(&text);
        }
    }
}
