//! `${...}` in values: environment variables, files, inline YAML.
//!
//! One left-to-right pass per text: `$$` is a dollar sign, `${` begins a reference, any other `$` stands for itself.
//! What a reference yields is read by the same rules, in bounds. Keys are never expanded.

use super::diagnostic::{Diagnostic, Position, Report, Severity};
use super::node::{Kind, Node, Scalar, Value};
use super::source::{Files, is_scheme, read_file};
use super::yaml::{self, DEPTH_MAX, NODES_MAX, TEXT_BYTES_MAX};
use std::path::Path;
use std::sync::Arc;

/// References resolved for one value, as in the Collector.
const ROUNDS_MAX: usize = 1000;
/// References inside what references yielded. Bounds the stack; honest configurations need two.
const NESTING_MAX: usize = 32;

/// Expands every value below a root.
pub struct Expander<'a> {
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub files: Files,
    pub report: &'a Report,
}

/// What is left to spend on one value of the configuration.
struct Budget {
    rounds: usize,
    bytes: usize,
    nodes: usize,
}

/// Why a value cannot be expanded; the caller adds the place.
struct Refused {
    reason: String,
    remedy: String,
}

fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Refused {
    Refused { reason: reason.into(), remedy: remedy.into() }
}

/// A piece of a text with references in it.
enum Piece {
    Literal(String),
    Reference(String),
}

impl Expander<'_> {
    /// Expands all values of `node`, whose path is `path`.
    pub fn expand(&self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::Null => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.expand(item, &join(path, &index.to_string()));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.expand(&mut entry.node, &join(path, &entry.key));
                }
            }
            Value::Scalar(scalar) if scalar.kind == Kind::Text && scalar.text.contains('$') => {
                let text = std::mem::take(&mut scalar.text);
                let mut budget = Budget { rounds: ROUNDS_MAX, bytes: TEXT_BYTES_MAX, nodes: NODES_MAX };
                let place = Place { position: &node.position, path };
                match self.scalar(&text, &place, &mut budget, 0) {
                    Ok(expanded) => (node.value, node.original) = (expanded.value, expanded.original),
                    Err(Refused { reason, remedy }) => {
                        self.report.error(&node.position, path, reason, remedy);
                        node.value = Value::Null;
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }

    /// A text that is exactly one reference takes the type of what it yields; any other is substituted as text.
    fn scalar(&self, text: &str, place: &Place, budget: &mut Budget, depth: usize) -> Result<Node, Refused> {
        let pieces = split(text, |warning| self.warn(place, warning));
        if let [Piece::Reference(body)] = pieces.as_slice() {
            return self.whole(body, place, budget, depth);
        }
        let text = self.join(pieces, place, budget, depth)?;
        Ok(Node::new(Value::Scalar(Scalar::text(text)), place.position.clone()))
    }

    fn whole(&self, body: &str, place: &Place, budget: &mut Budget, depth: usize) -> Result<Node, Refused> {
        let body = self.text(body, place, budget, depth + 1)?;
        let Some((name, content)) = self.resolve(&body, place, budget, depth)? else {
            return Ok(Node::new(Value::Null, place.position.clone()));
        };
        // Content that is no YAML, e.g. a password with a colon or a quote, is text.
        let parsed = yaml::parse(&Arc::from(name), &content);
        let is_file = body.starts_with("file:");
        let mut node =
            parsed.unwrap_or_else(|_| Node::new(Value::Scalar(Scalar::text(content.clone())), place.position.clone()));
        let text = self.text(&content, place, budget, depth + 1)?;
        if matches!(&node.value, Value::Scalar(scalar) if scalar.kind == Kind::Text) {
            // A text is all of it, also what YAML would leave out: quotes, a comment, spaces around it.
            node.value = self.scalar(&content, place, budget, depth + 1)?.value;
        } else {
            self.inner(&mut node, place, budget, depth + 1)?;
        }
        node.original = Some(text);
        // A line number inside a file is of use; one inside an environment variable is not.
        if !is_file {
            relocate(&mut node, place.position);
        }
        Ok(node)
    }

    /// Expands references inside what a reference yielded.
    fn inner(&self, node: &mut Node, place: &Place, budget: &mut Budget, depth: usize) -> Result<(), Refused> {
        check_depth(depth)?;
        budget.nodes = budget.nodes.checked_sub(1).ok_or_else(|| refused("expands to too many values", ""))?;
        match &mut node.value {
            Value::Null => Ok(()),
            Value::List(items) => items.iter_mut().try_for_each(|item| self.inner(item, place, budget, depth + 1)),
            Value::Map(entries) => {
                entries.iter_mut().try_for_each(|entry| self.inner(&mut entry.node, place, budget, depth + 1))
            }
            Value::Scalar(scalar) if scalar.kind == Kind::Text && scalar.text.contains('$') => {
                let text = std::mem::take(&mut scalar.text);
                let expanded = self.scalar(&text, place, budget, depth + 1)?;
                node.value = expanded.value;
                Ok(())
            }
            Value::Scalar(_) => Ok(()),
        }
    }

    /// A text with every reference replaced by its text.
    fn text(&self, text: &str, place: &Place, budget: &mut Budget, depth: usize) -> Result<String, Refused> {
        check_depth(depth)?;
        if !text.contains('$') {
            return Ok(text.to_owned());
        }
        let pieces = split(text, |warning| self.warn(place, warning));
        self.join(pieces, place, budget, depth)
    }

    fn join(&self, pieces: Vec<Piece>, place: &Place, budget: &mut Budget, depth: usize) -> Result<String, Refused> {
        check_depth(depth)?;
        let mut joined = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => joined.push_str(&literal),
                Piece::Reference(body) => {
                    let body = self.text(&body, place, budget, depth + 1)?;
                    if let Some((_, content)) = self.resolve(&body, place, budget, depth)? {
                        joined.push_str(&self.text(&content, place, budget, depth + 1)?);
                    }
                }
            }
        }
        Ok(joined)
    }

    /// The raw content behind `scheme:rest`, with a name for it. None: an unset variable without default.
    fn resolve(
        &self,
        body: &str,
        place: &Place,
        budget: &mut Budget,
        depth: usize,
    ) -> Result<Option<(String, String)>, Refused> {
        check_depth(depth)?;
        budget.rounds = budget.rounds.checked_sub(1).ok_or_else(|| {
            refused(format!("needs more than {ROUNDS_MAX} ${{...}} references"), "do they go in circles?")
        })?;
        let found = match body.split_once(':') {
            None => self.variable(body, place)?.map(|content| (format!("${{env:{body}}}"), content)),
            Some(("env", rest)) => self.variable(rest, place)?.map(|content| (format!("${{env:{rest}}}"), content)),
            Some(("yaml", rest)) => Some(("${yaml}".to_owned(), rest.to_owned())),
            Some(("file", path)) => Some((path.to_owned(), self.file(path)?)),
            Some((scheme @ ("http" | "https"), _)) => {
                let reason = format!("${{{body}}}: configurations are not fetched over {scheme}");
                return Err(refused(reason, "mount the content as a file and use ${file:PATH}"));
            }
            Some((name, rest)) => {
                let reason = format!("scheme {name:?} is not supported for uri {body:?}");
                let remedy = match rest.strip_prefix('-') {
                    Some(default) => format!("a default needs the scheme: ${{env:{name}:-{default}}}"),
                    None if is_scheme(name) => "supported: env, file, yaml".to_owned(),
                    None => "write $${ for a literal ${".to_owned(),
                };
                return Err(refused(reason, remedy));
            }
        };
        if let Some((_, content)) = &found {
            let left = budget.bytes.checked_sub(content.len());
            budget.bytes =
                left.ok_or_else(|| refused(format!("expands to more than {} KiB", TEXT_BYTES_MAX / 1024), ""))?;
        }
        Ok(found)
    }

    fn variable(&self, spec: &str, place: &Place) -> Result<Option<String>, Refused> {
        let (name, default) = match spec.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (spec, None),
        };
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            let reason =
                format!("environment variable {name:?} has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$");
            return Err(refused(reason, "write $${...} for a literal ${...}"));
        }
        match ((self.env)(name), default) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(default)) => Ok(Some(default.to_owned())),
            (None, None) => {
                self.warn(place, format!("the environment variable {name} is not set, which leaves this value empty (set it, or give a default: ${{env:{name}:-VALUE}})"));
                Ok(None)
            }
        }
    }

    fn file(&self, path: &str) -> Result<String, Refused> {
        match self.files {
            Files::Readable => {
                read_file(Path::new(path)).map_err(|error| refused(format!("${{file:...}}: {error}"), ""))
            }
            Files::Refused => Err(refused(
                format!("${{file:{path}}}: a custom resource cannot read files of this process"),
                "use spec.env and ${env:NAME}",
            )),
        }
    }

    fn warn(&self, place: &Place, reason: String) {
        let warning = Diagnostic::error(Some(place.position.clone()), place.path, reason);
        self.report.add(warning.with_severity(Severity::Warning));
    }
}

/// The value of the configuration that is being expanded.
struct Place<'a> {
    position: &'a Position,
    path: &'a str,
}

fn check_depth(depth: usize) -> Result<(), Refused> {
    // A file brings its own nesting, within the parser's bound.
    match depth <= NESTING_MAX + DEPTH_MAX {
        true => Ok(()),
        false => Err(refused("has ${...} references inside one another without end", "do they go in circles?")),
    }
}

/// Cuts a text into literal pieces, `$$` undone, and the bodies of its references.
fn split(text: &str, mut warn: impl FnMut(String)) -> Vec<Piece> {
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = from.strip_prefix("$$") {
            literal.push('$');
            rest = after;
        } else if let Some(inside) = from.strip_prefix("${") {
            let Some(end) = closing(inside) else {
                warn(format!("a ${{ without its }} stands for itself: {from}"));
                literal.push_str(from);
                rest = "";
                break;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            let (body, after) = inside.split_at(end);
            pieces.push(Piece::Reference(body.to_owned()));
            rest = after.strip_prefix('}').unwrap_or(after);
        } else {
            literal.push('$');
            rest = from.strip_prefix('$').unwrap_or_default();
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

/// Where the reference that just began ends; references inside it are skipped.
fn closing(inside: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut previous = ' ';
    for (at, c) in inside.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

fn relocate(node: &mut Node, position: &Position) {
    node.position = position.clone();
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, position)),
        Value::Map(entries) => {
            for entry in entries {
                entry.position = position.clone();
                relocate(&mut entry.node, position);
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}::{key}") }
}

#[cfg(test)]
#[path = "expand/tests.rs"]
mod tests;
