//! Trees into what runs: names resolved, types checked, patterns compiled, all once when the configuration is loaded.

use super::ast::{self, Comparison, Expression, Logic, Node, Operator};
use super::functions::{self, Arguments, Convert, Edit, Function, Run};
use super::path::{self, Context, ENUMS, FieldPath, Prefixes};
use super::problem::{Place, Problem};
use super::value::Types;
use crate::config::diagnostic::suggestion;

/// A condition that can be asked about a span.
#[derive(Debug)]
pub enum Test {
    Or(Vec<Test>),
    And(Vec<Test>),
    Not(Box<Test>),
    Literal(bool),
    Call(Call),
    Comparison { left: Expr, comparison: Comparison, right: Expr },
}

/// A value that can be asked of a span.
#[derive(Debug)]
pub enum Expr {
    Literal(Literal),
    Field(FieldPath),
    List(Vec<Expr>),
    Map(Vec<(String, Expr)>),
    Call(Box<Call>),
    Negated(Box<Expr>),
    Arithmetic { first: Box<Expr>, rest: Vec<(Operator, Expr)> },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A converter with its arguments.
pub struct Call {
    pub(super) convert: Convert,
    pub(super) arguments: Arguments,
    pub(super) keys: Vec<Key>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("arguments", &self.arguments).field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub enum Key {
    Text(String),
    Index(i64),
    Expr(Expr),
}

/// An editor with its arguments.
pub(super) struct Editing {
    pub edit: Edit,
    pub arguments: Arguments,
}

/// What may be called: conditions cannot change anything.
pub(super) struct Compiler<'t> {
    text: &'t str,
    context: Context,
    prefixes: Prefixes,
    /// What is allowed but can never work.
    pub warnings: Vec<Problem>,
}

impl<'t> Compiler<'t> {
    pub fn new(text: &'t str, context: Context, prefixes: Prefixes) -> Self {
        Self { text, context, prefixes, warnings: Vec::new() }
    }

    pub fn statement(&mut self, statement: &ast::Statement) -> Result<(Editing, Option<Test>), Problem> {
        let editor = &statement.editor;
        let function = self.find(&editor.name, editor.place)?;
        let Run::Edit(edit) = function.run else {
            return Err(self.problem(editor.place, format!("{} is no editor", editor.name), ""));
        };
        let arguments = self.arguments(function, editor)?;
        if function.name == "set" {
            self.check_set(editor);
        }
        let condition = statement.condition.as_ref().map(|condition| self.test(condition)).transpose()?;
        Ok((Editing { edit, arguments }, condition))
    }

    fn tests(&mut self, operands: &[Logic]) -> Result<Vec<Test>, Problem> {
        operands.iter().map(|operand| self.test(operand)).collect()
    }

    pub fn test(&mut self, logic: &Logic) -> Result<Test, Problem> {
        Ok(match logic {
            // A literal that decides does so whatever becomes of the others, as in the Collector.
            Logic::Or(operands) => match self.tests(operands)? {
                tests if tests.iter().any(|test| matches!(test, Test::Literal(true))) => Test::Literal(true),
                tests => Test::Or(tests),
            },
            Logic::And(operands) => match self.tests(operands)? {
                tests if tests.iter().any(|test| matches!(test, Test::Literal(false))) => Test::Literal(false),
                tests => Test::And(tests),
            },
            Logic::Not(operand) => Test::Not(Box::new(self.test(operand)?)),
            Logic::Literal(value) => Test::Literal(*value),
            Logic::Call(call) => {
                let (compiled, gives) = self.call(call)?;
                if gives.and(Types::BOOL).is_empty() {
                    let reason = format!("{} gives {} and is no condition", call.name, gives.words());
                    return Err(self.problem(call.place, reason, "compare it, e.g. with == or != nil"));
                }
                Test::Call(compiled)
            }
            Logic::Comparison { left, comparison, right } => {
                let (left_expr, left_types) = self.expr(left)?;
                let (right_expr, right_types) = self.expr(right)?;
                if never_equal(left_types, right_types) {
                    let always = if *comparison == Comparison::NotEqual { "always" } else { "never" };
                    let (left_words, right_words) = (left_types.words(), right_types.words());
                    let reason = format!("this is {always} true: {left_words} is compared with {right_words}");
                    self.warn(left.place, reason, remedy_for_types(left, right));
                }
                Test::Comparison { left: left_expr, comparison: *comparison, right: right_expr }
            }
        })
    }

    /// A value and the types it may have.
    pub fn expr(&mut self, expression: &Expression) -> Result<(Expr, Types), Problem> {
        let literal = |literal, types| Ok((Expr::Literal(literal), types));
        match &expression.node {
            Node::Nil => literal(Literal::Nil, Types::NIL),
            Node::Bool(value) => literal(Literal::Bool(*value), Types::BOOL),
            Node::Int(value) => literal(Literal::Int(*value), Types::INT),
            Node::Double(value) => literal(Literal::Double(*value), Types::DOUBLE),
            Node::Text(text) => literal(Literal::Text(text.clone()), Types::TEXT),
            Node::Bytes(bytes) => literal(Literal::Bytes(bytes.clone()), Types::BYTES),
            Node::Enum(name) => literal(Literal::Int(self.symbol(name, expression.place)?), Types::INT),
            Node::Function(name) => {
                let remedy = format!("a call is {name}(...)");
                Err(self.problem(
                    expression.place,
                    format!("the function {name} stands where a value is wanted"),
                    remedy,
                ))
            }
            Node::List(items) => {
                let items = items.iter().map(|item| Ok(self.expr(item)?.0)).collect::<Result<_, _>>()?;
                Ok((Expr::List(items), Types::LIST))
            }
            Node::Map(entries) => {
                let mut compiled: Vec<(String, Expr)> = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let value = self.expr(value)?.0;
                    match compiled.iter_mut().find(|(known, _)| known == key) {
                        Some((_, known)) => *known = value,
                        None => compiled.push((key.clone(), value)),
                    }
                }
                Ok((Expr::Map(compiled), Types::MAP))
            }
            Node::Path(path) => {
                let (path, gives) = self.path(path)?;
                Ok((Expr::Field(path), gives))
            }
            Node::Call(call) => {
                let (call, gives) = self.call(call)?;
                Ok((Expr::Call(Box::new(call)), gives))
            }
            Node::Negated(operand) => {
                let (operand, types) = self.expr(operand)?;
                Ok((Expr::Negated(Box::new(operand)), types.and(Types::NUMBER)))
            }
            Node::Arithmetic { first, rest } => {
                let (first, _) = self.expr(first)?;
                let rest =
                    rest.iter()
                        .map(|(operator, right)| Ok((*operator, self.expr(right)?.0)))
                        .collect::<Result<_, Problem>>()?;
                let gives = Types::NUMBER.or(Types::TIME).or(Types::DURATION);
                Ok((Expr::Arithmetic { first: Box::new(first), rest }, gives))
            }
        }
    }

    pub fn path(&mut self, path: &ast::Path) -> Result<(FieldPath, Types), Problem> {
        let (context, field) = path::resolve(path, self.context, self.prefixes)
            .map_err(|(place, reason, remedy)| self.problem(place, reason, remedy))?;
        let last = path.segments.last();
        let keys = last.map_or(&[][..], |segment| segment.keys.as_slice());
        let fits = keys.is_empty() || field.has_keys();
        if let (false, Some(key)) = (fits, keys.first()) {
            return Err(self.problem(key.place, format!("{path} cannot be indexed"), ""));
        }
        if field == path::Field::TraceState
            && let Some(key) = keys.iter().enumerate().find(|(at, key)| *at > 0 || !matches!(key.node, Node::Text(_)))
        {
            return Err(self.problem(key.1.place, "trace_state has one key, a text", ""));
        }
        let gives = field.gives(!keys.is_empty());
        Ok((FieldPath { context, field, keys: self.keys(keys)? }, gives))
    }

    fn keys(&mut self, keys: &[Expression]) -> Result<Vec<Key>, Problem> {
        keys.iter()
            .map(|key| {
                let (expr, types) = self.expr(key)?;
                if types.and(Types::TEXT.or(Types::INT)).is_empty() {
                    let reason = format!("a key is a text or a whole number, not {}", types.words());
                    return Err(self.problem(key.place, reason, ""));
                }
                Ok(match expr {
                    Expr::Literal(Literal::Text(text)) => Key::Text(text),
                    Expr::Literal(Literal::Int(index)) => Key::Index(index),
                    other => Key::Expr(other),
                })
            })
            .collect()
    }

    fn call(&mut self, call: &ast::Call) -> Result<(Call, Types), Problem> {
        let function = self.find(&call.name, call.place)?;
        let Run::Convert(convert) = function.run else {
            return Err(self.problem(call.place, format!("{} gives no value", call.name), ""));
        };
        let arguments = self.arguments(function, call)?;
        let keys = self.keys(&call.keys)?;
        let gives = if keys.is_empty() { function.gives } else { Types::ATTRIBUTE };
        if let (true, Some(key)) = (function.gives.and(Types::LIST.or(Types::MAP)).is_empty(), call.keys.first()) {
            let reason = format!("{} gives {}, which cannot be indexed", call.name, function.gives.words());
            return Err(self.problem(key.place, reason, ""));
        }
        Ok((Call { convert, arguments, keys }, gives))
    }

    /// Finds a function that the context has.
    pub fn find(&self, name: &str, place: Place) -> Result<&'static Function, Problem> {
        let Some(function) = functions::find(name) else {
            if functions::COLLECTORS.contains(&name) {
                let remedy = format!("supported are {}", functions::names().join(", "));
                return Err(self.problem(place, format!("the function {name} is not supported"), remedy));
            }
            let remedy = suggestion(name, "there are", functions::names());
            return Err(self.problem(place, format!("there is no function {name}"), remedy));
        };
        if function.only_spans && self.context != Context::Span {
            let reason =
                format!("{name} is only there in the span context, not in the {} context", self.context.word());
            return Err(self.problem(place, reason, ""));
        }
        Ok(function)
    }

    fn symbol(&self, name: &str, place: Place) -> Result<i64, Problem> {
        if !self.context.has_enums() {
            let reason = format!("the {} context has no names like {name}", self.context.word());
            return Err(self.problem(place, reason, "write the number, or use the context span"));
        }
        ENUMS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
            let known = ENUMS.iter().map(|(known, _)| *known);
            self.problem(place, format!("{name} is not known"), suggestion(name, "known are", known))
        })
    }

    pub fn problem(&self, place: Place, reason: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(self.text, place, reason, remedy)
    }

    pub fn warn(&mut self, place: Place, reason: impl Into<String>, remedy: impl Into<String>) {
        let warning = self.problem(place, reason, remedy);
        self.warnings.push(warning);
    }
}

/// Numbers compare with numbers, everything else with its own type.
fn never_equal(left: Types, right: Types) -> bool {
    let numbers = |types: Types| if types.and(Types::NUMBER).is_empty() { types } else { types.or(Types::NUMBER) };
    // Empty bytes are nil.
    let nil = |types: Types| if types.and(Types::BYTES).is_empty() { types } else { types.or(Types::NIL) };
    numbers(nil(left)).and(numbers(nil(right))).is_empty()
}

/// `span.kind == "Server"` and its like.
fn remedy_for_types(left: &Expression, right: &Expression) -> String {
    let suffix = |path: &Expression, other: &Expression| match (&path.node, &other.node) {
        (Node::Path(path), Node::Text(_)) => {
            let last = path.segments.last().map_or("", |segment| segment.name.as_str());
            match last {
                "kind" | "trace_id" | "span_id" | "parent_span_id" => format!("{path}.string is a text"),
                "code" => "the codes are STATUS_CODE_UNSET, STATUS_CODE_OK and STATUS_CODE_ERROR".to_owned(),
                _ => String::new(),
            }
        }
        _ => String::new(),
    };
    Some(suffix(left, right)).filter(|found| !found.is_empty()).unwrap_or_else(|| suffix(right, left))
}
