//! Text into tokens, one at a time, as Tempo's lexer cuts it.
//!
//! The base is Go's: identifiers, numbers, strings in double quotes with escapes or in back quotes without, comments. Two
//! things are TraceQL's own: a number right before unit letters is a duration, and behind a sign like `span.` stands a
//! name that goes on until a character that no name has ([`ends_name`]), so that `-`, `/` or `:` belong to it.

mod number;
mod string;

use std::sync::Arc;

use super::error::{ParseError, Problem};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    End,
    /// A keyword, an operator, a bracket, or the beginning of a field (`span.`, `event:`).
    Sign(&'static str),
    /// A word that is no keyword, or a character that is no sign.
    Identifier,
    /// The name of an attribute, quotes taken off. Only behind a sign that ends in a dot.
    Name(Arc<str>),
    String(Arc<str>),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// What is no token.
    Bad(String),
}

/// Words with a meaning of their own. Everything else that looks like a word is an identifier.
const KEYWORDS: [&str; 52] = [
    "true",
    "false",
    "nil",
    "ok",
    "error",
    "unset",
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
    "duration",
    "childCount",
    "name",
    "status",
    "statusMessage",
    "kind",
    "rootName",
    "rootServiceName",
    "rootService",
    "traceDuration",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
    "id",
    "traceID",
    "spanID",
    "parentID",
    "timeSinceStart",
    "version",
    "parent",
    "count",
    "avg",
    "max",
    "min",
    "sum",
    "by",
    "coalesce",
    "select",
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
    "topk",
    "bottomk",
    "with",
];

/// Longest first where one begins another.
const SIGNS: [&str; 35] = [
    "!>>", "!<<", "&>>", "&<<", "!=", "!~", "!>", "!<", "=~", ">=", ">>", "<=", "<<", "&&", "&~", "&>", "&<", "||",
    "!", "=", ">", "<", "|", "~", "+", "-", "*", "/", "%", "^", ",", "{", "}", "(", ")",
];

/// What a word and the character behind it make together.
const PREFIXES: [&str; 11] = [
    "parent.",
    "resource.",
    "span.",
    "event.",
    "link.",
    "instrumentation.",
    "trace:",
    "span:",
    "event:",
    "link:",
    "instrumentation:",
];

/// Cuts a text. Positions are byte offsets.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
    behind: Behind,
}

/// What the last token asks of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    /// `span.` and its like: a name.
    Dot,
    /// `parent.`: a name, or `span.` or `resource.` and then a name.
    Parent,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let position = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, position, behind: Behind::Nothing }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> (Token, usize) {
        let behind = std::mem::replace(&mut self.behind, Behind::Nothing);
        if behind != Behind::Nothing && self.peek().is_some_and(|next| !ends_name(next)) {
            let start = self.position;
            if behind == Behind::Parent
                && let Some(scope) = ["span.", "resource."].into_iter().find(|scope| self.rest().starts_with(scope))
            {
                self.position += scope.len();
                self.behind = Behind::Dot;
                return (Token::Sign(scope), start);
            }
            return (self.name(), start);
        }
        if let Err(start) = self.skip_blanks() {
            return (Token::Bad("comment not terminated".to_owned()), start);
        }
        let start = self.position;
        (self.token(), start)
    }

    /// Where the last token ended.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// A place in the text and what is wrong there.
    pub(super) fn error_at(text: &str, position: usize, problem: Problem) -> ParseError {
        let before = text.get(..position).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |feed| feed + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        ParseError {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            problem,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Goes on to the next character that is neither blank nor in a comment; fails with the start of a comment without end.
    fn skip_blanks(&mut self) -> Result<(), usize> {
        loop {
            let rest = self.rest();
            if rest.starts_with([' ', '\t', '\n', '\r']) {
                self.position += 1;
            } else if rest.starts_with("//") {
                self.position += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(length) => self.position += length + 4,
                    None => {
                        let start = self.position;
                        self.position = self.text.len();
                        return Err(start);
                    }
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Token {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Token::End };
        let digit_behind = rest.chars().nth(1).is_some_and(|next| next.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && digit_behind) {
            let (token, length) = number::scan(rest);
            self.position += length;
            return token;
        }
        if first == '"' || first == '`' {
            let (token, length) = string::scan(rest);
            self.position += length;
            return token;
        }
        if first == '_' || first.is_alphabetic() {
            return self.word();
        }
        if first == '.' {
            self.position += 1;
            self.behind = Behind::Dot;
            return Token::Sign(".");
        }
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            self.position += sign.len();
            return Token::Sign(sign);
        }
        self.position += first.len_utf8();
        Token::Identifier
    }

    fn word(&mut self) -> Token {
        let rest = self.rest();
        let length = rest.find(|next: char| next != '_' && !next.is_alphanumeric()).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or(rest);
        let is_prefix = |prefix: &&str| prefix.len() == length + 1 && rest.starts_with(prefix);
        if let Some(prefix) = PREFIXES.into_iter().find(is_prefix) {
            self.position += prefix.len();
            self.behind = match prefix {
                "parent." => Behind::Parent,
                _ if prefix.ends_with('.') => Behind::Dot,
                _ => Behind::Nothing,
            };
            return Token::Sign(prefix);
        }
        self.position += length;
        KEYWORDS.into_iter().find(|keyword| *keyword == word).map_or(Token::Identifier, Token::Sign)
    }

    fn name(&mut self) -> Token {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            if next == '"' {
                match string::quoted_part(self.rest(), &mut name) {
                    Ok(length) => self.position += length,
                    Err(problem) => {
                        self.position = self.text.len();
                        return Token::Bad(problem.to_owned());
                    }
                }
            } else if ends_name(next) {
                break;
            } else {
                name.push(next);
                self.position += next.len_utf8();
            }
        }
        Token::Name(name.into())
    }
}

/// Whether a name without quotes cannot hold a character.
pub(super) fn ends_name(next: char) -> bool {
    next.is_whitespace() || matches!(next, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',')
}
