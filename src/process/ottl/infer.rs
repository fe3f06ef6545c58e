//! Which context a group of statements and conditions is about, when nobody says.

use super::ast::{Call, Expression, Logic, Node, Path};
use super::functions;
use super::parser;
use super::path::{CONTEXTS, Context};
use super::problem::Problem;

/// Why no context was found.
#[derive(Debug)]
pub enum NoContext {
    /// The statement at this index is none.
    Statement(usize, Problem),
    /// The condition at this index is none.
    Condition(usize, Problem),
    /// No path says whose it is.
    NoPath,
    /// None has all the functions and enums that are used.
    NoneFits,
}

/// What decides.
#[derive(Default)]
struct Hints {
    innermost: Option<Context>,
    needs_enums: bool,
    needs_span: bool,
}

/// The innermost context that a path names; one further in if functions or enums need it, as the Collector chooses it.
///
/// # Errors
/// A text cannot be parsed, or there is no such context.
pub fn infer(statements: &[&str], conditions: &[&str]) -> Result<Context, NoContext> {
    let mut hints = Hints::default();
    for (index, text) in statements.iter().enumerate() {
        let statement = parser::statement(text).map_err(|problem| NoContext::Statement(index, problem))?;
        hints.call(&statement.editor);
        if let Some(condition) = &statement.condition {
            hints.logic(condition);
        }
    }
    for (index, text) in conditions.iter().enumerate() {
        let condition = parser::condition(text).map_err(|problem| NoContext::Condition(index, problem))?;
        hints.logic(&condition);
    }
    let innermost = hints.innermost.ok_or(NoContext::NoPath)?;
    let fits = |context: Context| {
        (!hints.needs_enums || context.has_enums()) && (!hints.needs_span || context == Context::Span)
    };
    // The innermost first.
    let further_in = CONTEXTS.into_iter().rev().filter(|context| *context > innermost);
    std::iter::once(innermost).chain(further_in).find(|context| fits(*context)).ok_or(NoContext::NoneFits)
}

impl Hints {
    fn logic(&mut self, logic: &Logic) {
        match logic {
            Logic::Or(operands) | Logic::And(operands) => operands.iter().for_each(|operand| self.logic(operand)),
            Logic::Not(operand) => self.logic(operand),
            Logic::Literal(_) => {}
            Logic::Call(call) => self.call(call),
            Logic::Comparison { left, right, .. } => {
                self.expression(left);
                self.expression(right);
            }
        }
    }

    fn call(&mut self, call: &Call) {
        self.needs_span |= functions::find(&call.name).is_some_and(|function| function.only_spans);
        call.arguments.iter().for_each(|argument| self.expression(&argument.value));
        call.keys.iter().for_each(|key| self.expression(key));
    }

    fn expression(&mut self, expression: &Expression) {
        match &expression.node {
            Node::Nil
            | Node::Bool(_)
            | Node::Int(_)
            | Node::Double(_)
            | Node::Text(_)
            | Node::Bytes(_)
            | Node::Function(_) => {}
            // A name in capitals may also be that of a function.
            Node::Enum(name) => self.needs_enums |= functions::find(name).is_none(),
            Node::List(items) => items.iter().for_each(|item| self.expression(item)),
            Node::Map(entries) => entries.iter().for_each(|(_, value)| self.expression(value)),
            Node::Path(path) => self.path(path),
            Node::Call(call) => self.call(call),
            Node::Negated(operand) => self.expression(operand),
            Node::Arithmetic { first, rest } => {
                self.expression(first);
                rest.iter().for_each(|(_, operand)| self.expression(operand));
            }
        }
    }

    fn path(&mut self, path: &Path) {
        let named = path.segments.first().filter(|_| path.segments.len() > 1).and_then(|it| Context::named(&it.name));
        self.innermost = self.innermost.max(named);
        path.segments.iter().flat_map(|segment| &segment.keys).for_each(|key| self.expression(key));
    }
}
