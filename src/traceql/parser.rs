//! Tokens into a tree: recursive descent, and precedence climbing where there are operators.
//!
//! What stands outside of braces is parsed as a [`Part`] first, because a parenthesis may open spansets, a pipeline, numbers
//! or series alike; which operators and stages may follow depends on what the part turned out to be.
//!
//! Precedence, low to high: `|`; `&& ||`; comparisons and structural operators; `+ -`; `!`; `* / %`; `^` (to the right).
//! All of one level group to the left. A minus sign takes what binds tighter than `+`: `-.a * 2` is `-(.a * 2)`.

mod expression;
mod metrics;
mod pipeline;

use super::ast::{Arithmetic, Comparison, Field, Hint, Query, Root};
use super::error::{ParseError, Problem};
use super::lexer::{Lexer, Token};
use super::value::{Kind, Status, Value};
use pipeline::Part;

/// Levels that a tree may have, prefix operators counted twice. Everything that walks a tree recurses that deep at most.
const DEPTH_MAX: u32 = 64;

/// Parentheses and prefix operators that may be open at once: each costs the parser several frames of its stack. Every
/// tree within [`DEPTH_MAX`] can be read again when it was printed.
const OPEN_MAX: u32 = DEPTH_MAX + 4;

/// Chains of one `&&` or `||` up to this many operands group to the left as they are written; longer ones are halved, so
/// that a query of thousands of alternatives is not thousands of levels deep.
const CHAIN_MAX: usize = 16;

const LEVEL_LOGIC: u8 = 1;
const LEVEL_COMPARE: u8 = 2;
const LEVEL_ADD: u8 = 3;
const LEVEL_MULTIPLY: u8 = 5;
const LEVEL_POWER: u8 = 6;

/// Parses a query.
///
/// # Errors
/// The text is none. Whether what it says makes sense is for [`super::validate::check`].
pub fn parse(text: &str) -> Result<Query, ParseError> {
    let mut parser = Parser::new(text);
    let part = parser.sequence(false)?;
    let root = match *part.node {
        Part::Metrics(metrics) => Root::Metrics(metrics),
        other => Root::Search(parser.search(other)?),
    };
    let mut hints = Vec::new();
    while parser.take("with") {
        // A second list replaces the first, as in Tempo.
        hints = parser.hints()?;
    }
    let expected: &[_] = if hints.is_empty() { &["|", "with"] } else { &["with"] };
    if parser.token == Token::End { Ok(Query { root, hints }) } else { Err(parser.unexpected(expected)) }
}

/// Parses the name of a field alone: `resource.service.name`, `.http.method`, `span:kind`.
///
/// # Errors
/// The text is none.
pub fn field(text: &str) -> Result<Field, ParseError> {
    let mut parser = Parser::new(text);
    let field = parser.field()?;
    if parser.token == Token::End { Ok(field) } else { Err(parser.unexpected(&["$end"])) }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The token to be looked at next, and where it begins.
    token: Token,
    start: usize,
    /// Parentheses and prefix operators that are open.
    open: u32,
    /// What the part to be parsed next may begin with, for errors.
    expected: &'static [&'static str],
}

/// A tree and how many levels it has. Boxed, so that the frames of functions that contain themselves stay small: without
/// optimisation each place that a tree passes through is one of its own on the stack.
#[derive(Debug)]
struct Deep<T> {
    node: Box<T>,
    depth: u32,
}

impl<T> Deep<T> {
    fn flat(node: T) -> Self {
        Self { node: Box::new(node), depth: 1 }
    }

    fn map<U>(self, make: impl FnOnce(T) -> U) -> Deep<U> {
        Deep { node: Box::new(make(*self.node)), depth: self.depth }
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut lexer = Lexer::new(text);
        let (token, start) = lexer.next();
        Self { text, lexer, token, start, open: 0, expected: &[] }
    }

    /// Goes on to the next token and returns the one it stood at.
    fn advance(&mut self) -> Token {
        let (token, start) = self.lexer.next();
        self.start = start;
        std::mem::replace(&mut self.token, token)
    }

    fn at(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    fn sign(&self) -> Option<&'static str> {
        if let Token::Sign(sign) = self.token { Some(sign) } else { None }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.at(sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &'static str, expected: &'static [&'static str]) -> Result<(), ParseError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static [&'static str]) -> ParseError {
        self.unexpected_at(&self.token, self.start, expected)
    }

    fn unexpected_at(&self, token: &Token, start: usize, expected: &'static [&'static str]) -> ParseError {
        let problem = match token {
            Token::Bad(problem) => Problem::Other(problem.clone()),
            Token::End => Problem::Unexpected { found: "$end".to_owned(), expected },
            Token::Sign(sign) => Problem::Unexpected { found: (*sign).to_owned(), expected },
            Token::Identifier => Problem::Unexpected { found: format!("IDENTIFIER {}", self.word_at(start)), expected },
            Token::Name(name) => Problem::Unexpected { found: format!("IDENTIFIER {name}"), expected },
            Token::String(_) => Problem::Unexpected { found: "STRING".to_owned(), expected },
            Token::Int(_) => Problem::Unexpected { found: "INTEGER".to_owned(), expected },
            Token::Float(_) => Problem::Unexpected { found: "FLOAT".to_owned(), expected },
            Token::Duration(_) => Problem::Unexpected { found: "DURATION".to_owned(), expected },
        };
        Lexer::error_at(self.text, start, problem)
    }

    /// The identifier that begins at a place.
    fn word_at(&self, start: usize) -> &'a str {
        let rest = self.text.get(start..).unwrap_or_default();
        let letters = rest.find(|next: char| next != '_' && !next.is_alphanumeric()).unwrap_or(rest.len());
        let length = if letters == 0 { rest.chars().next().map_or(0, char::len_utf8) } else { letters };
        rest.get(..length).unwrap_or_default()
    }

    fn wrong_at(&self, start: usize, text: impl Into<String>) -> ParseError {
        Lexer::error_at(self.text, start, Problem::Other(text.into()))
    }

    /// Runs a part of the grammar that may contain itself.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.open >= OPEN_MAX {
            return Err(self.too_deep());
        }
        self.open += 1;
        let result = parse(self);
        self.open -= 1;
        result
    }

    fn too_deep(&self) -> ParseError {
        self.wrong_at(self.start, format!("the query is nested more than {DEPTH_MAX} levels deep"))
    }

    /// A node above two others.
    fn above<A, B, T>(
        &self,
        left: Deep<A>,
        right: Deep<B>,
        make: impl FnOnce(A, B) -> T,
    ) -> Result<Deep<T>, ParseError> {
        self.raised(left.depth.max(right.depth), Box::new(make(*left.node, *right.node)))
    }

    /// A node above others that have this many levels.
    fn raised<T>(&self, below: u32, node: Box<T>) -> Result<Deep<T>, ParseError> {
        if below >= DEPTH_MAX { Err(self.too_deep()) } else { Ok(Deep { node, depth: below + 1 }) }
    }

    /// Operands of one associative operator, joined two by two.
    fn join<T>(&self, mut operands: Vec<Deep<T>>, make: &impl Fn(T, T) -> T) -> Result<Option<Deep<T>>, ParseError> {
        if operands.len() > CHAIN_MAX {
            let right = operands.split_off(operands.len() / 2);
            let (Some(left), Some(right)) = (self.join(operands, make)?, self.join(right, make)?) else {
                return Ok(None);
            };
            return self.above(left, right, make).map(Some);
        }
        let mut operands = operands.into_iter();
        let Some(mut joined) = operands.next() else { return Ok(None) };
        for operand in operands {
            joined = self.above(joined, operand, make)?;
        }
        Ok(Some(joined))
    }

    /// A literal as it stands, without a sign.
    fn literal(&mut self, expected: &'static [&'static str]) -> Result<Value, ParseError> {
        let value = match &self.token {
            Token::String(string) => Value::String(string.clone()),
            Token::Int(int) => Value::Int(*int),
            Token::Float(float) => Value::Float(*float),
            Token::Duration(duration) => Value::Duration(*duration),
            Token::Sign("true") => Value::Bool(true),
            Token::Sign("false") => Value::Bool(false),
            Token::Sign(sign) => {
                let status = Status::ALL.into_iter().find(|status| status.as_str() == *sign).map(Value::Status);
                let kind = || Kind::ALL.into_iter().find(|kind| kind.as_str() == *sign).map(Value::Kind);
                status.or_else(kind).ok_or_else(|| self.unexpected(expected))?
            }
            Token::Identifier => {
                let word = self.word_at(self.start);
                bound(word)
                    .map(Value::Int)
                    .ok_or_else(|| self.wrong_at(self.start, format!("unknown identifier: {word}")))?
            }
            _ => return Err(self.unexpected(expected)),
        };
        self.advance();
        Ok(value)
    }

    fn hints(&mut self) -> Result<Vec<Hint>, ParseError> {
        self.expect("(", &["("])?;
        let mut hints = Vec::new();
        loop {
            if self.token != Token::Identifier {
                return Err(self.unexpected(&["IDENTIFIER"]));
            }
            let name = self.word_at(self.start).to_owned();
            self.advance();
            self.expect("=", &["="])?;
            hints.push(Hint { name, value: self.literal(&["value"])? });
            if !self.take(",") {
                break;
            }
        }
        self.expect(")", &[")", ","])?;
        Ok(hints)
    }
}

/// The words for the ends of the integers.
fn bound(word: &str) -> Option<i64> {
    match word {
        "minInt" => Some(i64::MIN),
        "maxInt" => Some(i64::MAX),
        _ => None,
    }
}

fn comparison(sign: &str) -> Option<Comparison> {
    Some(match sign {
        "=" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

/// An arithmetic operator and its level.
fn arithmetic(sign: &str) -> Option<(Arithmetic, u8)> {
    Some(match sign {
        "+" => (Arithmetic::Add, LEVEL_ADD),
        "-" => (Arithmetic::Subtract, LEVEL_ADD),
        "*" => (Arithmetic::Multiply, LEVEL_MULTIPLY),
        "/" => (Arithmetic::Divide, LEVEL_MULTIPLY),
        "%" => (Arithmetic::Modulo, LEVEL_MULTIPLY),
        "^" => (Arithmetic::Power, LEVEL_POWER),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
