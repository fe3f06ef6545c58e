//! TraceQL: the language, and its evaluation over columns.
//!
//! In: the text of a query, and segments of spans ([`segment::Source`]). Out: traces with matched spans, series of numbers,
//! names and values of attributes ([`answer`]).
//!
//! ```text
//! text ─▶ lexer ─▶ parser ─▶ ast ─▶ validate ─▶ plan ─┬▶ search     newest segment first, until the limit
//!                                                     ├▶ metrics    every segment in the range, folded into series
//! segments: dictionaries, codes, times ───────────────┴▶ tags       names and values, by dictionaries where possible
//! ```
//!
//! Invariants: a query reads only the columns it names; a predicate on an attribute is decided once per distinct value;
//! memory and time are bounded by [`control::Control`], and a query whose client left ends. The room knows neither RocksDB
//! nor HTTP.

pub mod answer;
pub mod ast;
mod coded;
pub mod column;
pub mod control;
pub mod datum;
pub mod error;
pub mod filter;
pub mod keys;
mod lenient;
mod lexer;
pub mod mask;
pub mod metrics;
mod parser;
pub mod pattern;
mod print;
pub mod reader;
pub mod request;
pub mod search;
pub mod segment;
pub mod tags;
pub mod trace;
mod validate;
pub mod value;
mod walk;
pub mod wanted;

pub use error::{Invalid, ParseError, QueryError, TooManyGroups};
pub use lenient::{lenient, pinned};
pub use parser::{field, parse};
pub use validate::check;

/// Parses and checks a query.
///
/// # Errors
/// The text is no query, or the query makes no sense.
pub fn read(text: &str) -> Result<ast::Query, QueryError> {
    let query = parse(text)?;
    check(&query)?;
    Ok(query)
}

#[cfg(test)]
pub(crate) mod tests;
