//! OTTL: the language in which `filter` and `transform` are told what to do, and `tail_sampling` what to keep.
//!
//! In: the text of a statement or condition and the context it is about. Out: a [`Statement`] or [`Condition`] that runs
//! over [`crate::otlp::edit`].
//!
//! ```text
//! text ─▶ lexer ─▶ parser ─▶ ast ─▶ compile ─▶ Test, Expr, Editing ─▶ evaluate over View / Frame
//!                             └ infer: the context     │
//!                                        functions ────┘ one table of editors and converters
//! ```
//!
//! Invariants: everything that can be wrong with a text is found when it is loaded, with its place; patterns are compiled
//! once; text length, nesting and compiled patterns are bounded; running never panics and reads without allocating where
//! it can. What the Collector has and is not here is refused by name. What happens after a [`Failure`] is the caller's
//! to say (`error_mode`).

pub mod ast;
mod compile;
mod converters;
mod editors;
mod evaluate;
pub mod failure;
mod frame;
pub mod functions;
mod infer;
mod json;
mod lexer;
mod like;
pub mod parser;
mod path;
mod pattern;
mod print;
pub mod problem;
pub mod settings;
#[cfg(test)]
mod tests;
mod value;

pub use failure::Failure;
pub use frame::{Frame, View};
pub use infer::{NoContext, infer};
pub use path::{CONTEXTS, Context, Prefixes};
pub use problem::Problem;

use compile::{Compiler, Editing, Test};
use std::fmt;

/// A condition, ready to be asked.
pub struct Condition {
    text: String,
    test: Test,
}

/// A statement, ready to run.
pub struct Statement {
    text: String,
    editing: Editing,
    condition: Option<Test>,
}

/// What was loaded, and what about it is allowed but can never work.
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    pub warnings: Vec<Problem>,
}

impl Condition {
    /// Reads a condition about messages of a context.
    ///
    /// # Errors
    /// The text is no condition, or names what there is not.
    pub fn parse(text: &str, context: Context, prefixes: Prefixes) -> Result<Loaded<Self>, Problem> {
        let tree = parser::condition(text)?;
        let mut compiler = Compiler::new(text, context, prefixes);
        let test = compiler.test(&tree)?;
        Ok(Loaded { value: Self { text: text.to_owned(), test }, warnings: compiler.warnings })
    }

    /// Whether it holds for a message.
    ///
    /// # Errors
    /// It cannot be said: a value is of a type that a function does not take, say.
    pub fn holds(&self, view: View<'_, '_>) -> Result<bool, Failure> {
        evaluate::test(&self.test, view)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Statement {
    /// Reads a statement about messages of a context.
    ///
    /// # Errors
    /// The text is no statement, or names what there is not.
    pub fn parse(text: &str, context: Context, prefixes: Prefixes) -> Result<Loaded<Self>, Problem> {
        let tree = parser::statement(text)?;
        let mut compiler = Compiler::new(text, context, prefixes);
        let (editing, condition) = compiler.statement(&tree)?;
        Ok(Loaded { value: Self { text: text.to_owned(), editing, condition }, warnings: compiler.warnings })
    }

    /// Runs its editor on a message if its condition holds.
    ///
    /// # Errors
    /// Either of them did not work. What the editor had changed before stays changed.
    pub fn run<'a>(&'a self, frame: &mut Frame<'_, 'a>) -> Result<(), Failure> {
        let holds = self.condition.as_ref().map_or(Ok(true), |test| evaluate::test(test, frame.view()))?;
        if holds { (self.editing.edit)(&self.editing.arguments, frame) } else { Ok(()) }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Settings are compared to find out what changed: the same text means the same.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
