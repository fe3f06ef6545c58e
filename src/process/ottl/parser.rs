//! Tokens into a tree: recursive descent.
//!
//! Conditions and values share their beginnings (`(`, a converter), so both are read by one ladder, and what was read
//! says what it is: [`Read::Logic`] or [`Read::Value`]. Precedence, low to high: `or`; `and`; `not`; comparisons, which do
//! not chain; `+ -`; `* /`; a sign in front.

use super::ast::{Argument, Call, Comparison, Expression, Logic, Node, Operator, Path, Segment, Statement};
use super::lexer::{Lexer, Token};
use super::problem::{Place, Problem};

/// Longer statements are refused: nobody writes them, and everything that walks one is bounded by it.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Brackets and signs that may be open at once: each costs several frames of the stack, here and wherever the tree is walked.
const DEPTH_MAX: u32 = 48;

/// Reads `editor(...) where ...`.
///
/// # Errors
/// The text is no statement. Whether it makes sense is for [`super::compile`].
pub fn statement(text: &str) -> Result<Statement, Problem> {
    let mut parser = Parser::new(text)?;
    let (token, place) = parser.advance()?;
    let name = match token {
        Token::Lower(name) | Token::Mixed(name) if name.starts_with(|first: char| first.is_ascii_lowercase()) => name,
        Token::Upper(name) | Token::Mixed(name) => {
            let reason = format!("{name} is no editor: the names of editors begin in lower case");
            return Err(parser.problem(place, reason, "a statement is e.g. set(span.name, Concat([...], \"\"))"));
        }
        other => {
            let reason = format!("expected an editor like set(...), got {}", described(&other));
            return Err(parser.problem(place, reason, ""));
        }
    };
    let mut editor = parser.call(name, place)?;
    if let Some(key) = editor.keys.first() {
        return Err(parser.problem(
            key.place,
            "what an editor does cannot be indexed",
            "only paths and converters can",
        ));
    }
    editor.keys = Vec::new();
    let condition = match parser.token == Token::Lower("where".to_owned()) {
        true => {
            parser.advance()?;
            Some(parser.condition()?)
        }
        false => None,
    };
    parser.end(if condition.is_some() { "`and`, `or` or the end" } else { "`where` or the end" })?;
    Ok(Statement { editor, condition })
}

/// Reads a condition alone.
///
/// # Errors
/// The text is none.
pub fn condition(text: &str) -> Result<Logic, Problem> {
    let mut parser = Parser::new(text)?;
    let condition = parser.condition()?;
    parser.end("`and`, `or` or the end")?;
    Ok(condition)
}

/// What the ladder read.
enum Read {
    Logic(Logic, Place),
    Value { value: Expression, in_parentheses: bool },
}

struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    token: Token,
    place: Place,
    depth: u32,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Result<Self, Problem> {
        if text.len() > TEXT_BYTES_MAX {
            let reason = format!("the text has {} bytes, more than {TEXT_BYTES_MAX}", text.len());
            return Err(Problem::new("", Place::default(), reason, "split it into several"));
        }
        let mut lexer = Lexer::new(text);
        let (token, place) = lexer.next()?;
        Ok(Self { text, lexer, token, place, depth: 0 })
    }

    /// Takes the token that is there and reads the next.
    fn advance(&mut self) -> Result<(Token, Place), Problem> {
        let (token, place) = self.lexer.next()?;
        Ok((std::mem::replace(&mut self.token, token), std::mem::replace(&mut self.place, place)))
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    fn take(&mut self, sign: &str) -> Result<bool, Problem> {
        let found = self.is(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &str, expected: &str) -> Result<(), Problem> {
        if self.take(sign)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn end(&self, expected: &str) -> Result<(), Problem> {
        if self.token == Token::End { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &str) -> Problem {
        let remedy = if self.is("=") { "equality is ==" } else { "" };
        self.problem(self.place, format!("expected {expected}, got {}", described(&self.token)), remedy)
    }

    fn problem(&self, place: Place, reason: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(self.text, place, reason, remedy)
    }

    /// Reads something one level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        if self.depth == DEPTH_MAX {
            let reason = format!("nested more than {DEPTH_MAX} deep");
            return Err(self.problem(self.place, reason, "split it into several statements"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn condition(&mut self) -> Result<Logic, Problem> {
        let read = self.or()?;
        if self.is("=") {
            return Err(self.unexpected("a comparison"));
        }
        self.logic(read)
    }

    fn value(&mut self) -> Result<Expression, Problem> {
        let read = self.sum()?;
        self.plain(read)
    }

    fn or(&mut self) -> Result<Read, Problem> {
        let first = self.and()?;
        if !self.is("or") {
            return Ok(first);
        }
        let place = self.place;
        let mut operands = vec![self.logic(first)?];
        while self.take("or")? {
            let next = self.and()?;
            operands.push(self.logic(next)?);
        }
        Ok(Read::Logic(Logic::Or(operands), place))
    }

    fn and(&mut self) -> Result<Read, Problem> {
        let first = self.not()?;
        if !self.is("and") {
            return Ok(first);
        }
        let place = self.place;
        let mut operands = vec![self.logic(first)?];
        while self.take("and")? {
            let next = self.not()?;
            operands.push(self.logic(next)?);
        }
        Ok(Read::Logic(Logic::And(operands), place))
    }

    fn not(&mut self) -> Result<Read, Problem> {
        let place = self.place;
        if !self.take("not")? {
            return self.comparison();
        }
        if self.is("not") {
            return Err(self.problem(self.place, "`not` stands once", "put the inner one in parentheses"));
        }
        let operand = self.comparison()?;
        Ok(Read::Logic(Logic::Not(Box::new(self.logic(operand)?)), place))
    }

    fn comparison(&mut self) -> Result<Read, Problem> {
        let left = self.sum()?;
        let Some(comparison) = self.comparison_sign() else { return Ok(left) };
        let place = self.place;
        let left = self.plain(left)?;
        self.advance()?;
        let right = self.value()?;
        if self.comparison_sign().is_some() {
            return Err(self.problem(self.place, "comparisons do not chain", "join two of them by `and`"));
        }
        Ok(Read::Logic(Logic::Comparison { left, comparison, right }, place))
    }

    fn comparison_sign(&self) -> Option<Comparison> {
        let Token::Sign(sign) = self.token else { return None };
        Some(match sign {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn sum(&mut self) -> Result<Read, Problem> {
        self.chain(false, Self::product)
    }

    fn product(&mut self) -> Result<Read, Problem> {
        self.chain(true, Self::signed)
    }

    /// Operators of one level, left to right.
    fn chain(&mut self, tight: bool, next: fn(&mut Self) -> Result<Read, Problem>) -> Result<Read, Problem> {
        let first = next(self)?;
        if self.operator(tight).is_none() {
            return Ok(first);
        }
        let first = self.operand(first)?;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator(tight) {
            self.advance()?;
            let right = next(self)?;
            rest.push((operator, self.operand(right)?));
        }
        let place = first.place;
        let node = Node::Arithmetic { first: Box::new(first), rest };
        Ok(Read::Value { value: Expression { place, node }, in_parentheses: false })
    }

    fn operator(&self, tight: bool) -> Option<Operator> {
        let Token::Sign(sign) = self.token else { return None };
        let operator = match sign {
            "+" => Operator::Add,
            "-" => Operator::Subtract,
            "*" => Operator::Multiply,
            "/" => Operator::Divide,
            _ => return None,
        };
        (operator.binds_tighter() == tight).then_some(operator)
    }

    fn signed(&mut self) -> Result<Read, Problem> {
        let place = self.place;
        let minus = match self.token {
            Token::Sign("-") => true,
            Token::Sign("+") => false,
            _ => return self.primary(),
        };
        self.advance()?;
        if matches!(self.token, Token::Sign("+" | "-")) {
            return Err(self.problem(self.place, "a sign stands once", ""));
        }
        let read = self.primary()?;
        let grouped = matches!(read, Read::Value { in_parentheses: true, .. });
        let operand = self.operand(read)?;
        let node = match operand.node {
            node if !minus => node,
            Node::Int(value) if !grouped => Node::Int(-value),
            Node::Double(value) if !grouped => Node::Double(-value),
            node => Node::Negated(Box::new(Expression { place: operand.place, node })),
        };
        Ok(Read::Value { value: Expression { place, node }, in_parentheses: false })
    }

    fn primary(&mut self) -> Result<Read, Problem> {
        if self.is("(") {
            return self.deeper(Self::group);
        }
        let value = self.deeper(Self::atom)?;
        Ok(Read::Value { value, in_parentheses: false })
    }

    /// Parentheses hold a condition or arithmetic; `(true)` is a condition.
    fn group(&mut self) -> Result<Read, Problem> {
        let place = self.place;
        self.advance()?;
        let read = self.or()?;
        self.expect(")", "`)`")?;
        match read {
            Read::Logic(logic, _) => Ok(Read::Logic(logic, place)),
            Read::Value { value, .. } => match value.node {
                Node::Bool(literal) => Ok(Read::Logic(Logic::Literal(literal), place)),
                _ => Ok(Read::Value { value: self.arithmetic(value)?, in_parentheses: true }),
            },
        }
    }

    fn atom(&mut self) -> Result<Expression, Problem> {
        let place = self.place;
        match &self.token {
            Token::Sign("[") => return self.list(),
            Token::Sign("{") => return self.map(),
            Token::Sign("nil" | "true" | "false")
            | Token::Lower(_)
            | Token::Upper(_)
            | Token::Mixed(_)
            | Token::Text(_)
            | Token::Int(_)
            | Token::Double(_)
            | Token::Bytes(_) => {}
            Token::End | Token::Sign(_) => return Err(self.unexpected("a value")),
        }
        let (token, _) = self.advance()?;
        let node = match token {
            Token::Sign("nil") => Node::Nil,
            Token::Sign(sign) => Node::Bool(sign == "true"),
            Token::Text(text) => Node::Text(text),
            Token::Int(value) => Node::Int(value),
            Token::Double(value) => Node::Double(value),
            Token::Bytes(bytes) => Node::Bytes(bytes),
            Token::Upper(name) if self.is("(") => Node::Call(self.call(name, place)?),
            Token::Upper(name) => Node::Enum(name),
            Token::Mixed(name) | Token::Lower(name) if self.is("(") => {
                if name.starts_with(|first: char| first.is_ascii_lowercase()) {
                    let reason = format!("{name} is no converter: their names begin with a capital letter");
                    return Err(self.problem(place, reason, "an editor stands alone, at the beginning of a statement"));
                }
                Node::Call(self.call(name, place)?)
            }
            Token::Mixed(name) if name.starts_with(|first: char| first.is_ascii_uppercase()) => Node::Function(name),
            Token::Mixed(name) => {
                let reason = format!("{name} is no path: the names in paths are lower case");
                return Err(self.problem(place, reason, ""));
            }
            Token::Lower(name) => Node::Path(self.path(name, place)?),
            Token::End => Node::Nil,
        };
        Ok(Expression { place, node })
    }

    fn path(&mut self, name: String, place: Place) -> Result<Path, Problem> {
        let keys = self.keys()?;
        let mut segments = vec![Segment { name, place, keys }];
        while self.take(".")? {
            let (token, place) = self.advance()?;
            let name = match token {
                Token::Lower(name) => name,
                Token::Mixed(name) | Token::Upper(name) => {
                    let remedy = format!("the keys of attributes stand in brackets: [\"{name}\"]");
                    return Err(self.problem(place, "the names in paths are lower case", remedy));
                }
                other => {
                    let reason = format!("expected a name, got {}", described(&other));
                    return Err(self.problem(place, reason, ""));
                }
            };
            let keys = self.keys()?;
            segments.push(Segment { name, place, keys });
        }
        Ok(Path { segments })
    }

    fn keys(&mut self) -> Result<Vec<Expression>, Problem> {
        let mut keys = Vec::new();
        while self.take("[")? {
            let key = self.value()?;
            match key.node {
                Node::Text(_)
                | Node::Int(_)
                | Node::Path(_)
                | Node::Call(_)
                | Node::Arithmetic { .. }
                | Node::Negated(_) => {}
                _ => {
                    let reason = "a key is a text, a whole number, a path or a converter";
                    return Err(self.problem(key.place, reason, ""));
                }
            }
            keys.push(key);
            self.expect("]", "`]`")?;
        }
        Ok(keys)
    }

    /// What stands behind the name of a function.
    fn call(&mut self, name: String, place: Place) -> Result<Call, Problem> {
        if !self.is("(") {
            return Err(self.unexpected(&format!("`(` and the arguments of {name}")));
        }
        self.advance()?;
        let mut arguments = Vec::new();
        if !self.is(")") {
            loop {
                arguments.push(self.argument()?);
                if !self.take(",")? {
                    break;
                }
            }
        }
        self.expect(")", "`,` or `)`")?;
        let keys = self.keys()?;
        Ok(Call { name, place, arguments, keys })
    }

    fn argument(&mut self) -> Result<Argument, Problem> {
        let place = self.place;
        let name = match &self.token {
            Token::Lower(name) | Token::Mixed(name) => Some(name.clone()),
            _ => None,
        };
        // Only an equals sign behind a word tells a name from the path that it may be as well.
        let named = name.is_some() && {
            let mut ahead = self.lexer.clone();
            matches!(ahead.next(), Ok((Token::Sign("="), _)))
        };
        if named {
            self.advance()?;
            self.advance()?;
        }
        let value = self.value()?;
        Ok(Argument { name: name.filter(|_| named), place, value })
    }

    fn list(&mut self) -> Result<Expression, Problem> {
        let place = self.place;
        self.advance()?;
        let mut items = Vec::new();
        if !self.is("]") {
            loop {
                items.push(self.value()?);
                if !self.take(",")? {
                    break;
                }
            }
        }
        self.expect("]", "`,` or `]`")?;
        Ok(Expression { place, node: Node::List(items) })
    }

    /// Commas may be left out, as in a Collector.
    fn map(&mut self) -> Result<Expression, Problem> {
        let place = self.place;
        self.advance()?;
        let mut entries = Vec::new();
        while !self.is("}") {
            let Token::Text(key) = &self.token else { return Err(self.unexpected("a key in double quotes or `}`")) };
            let key = key.clone();
            self.advance()?;
            self.expect(":", "`:`")?;
            entries.push((key, self.value()?));
            self.take(",")?;
        }
        self.advance()?;
        Ok(Expression { place, node: Node::Map(entries) })
    }

    /// What was read, as a condition.
    fn logic(&self, read: Read) -> Result<Logic, Problem> {
        match read {
            Read::Logic(logic, _) => Ok(logic),
            Read::Value { value, .. } => match value.node {
                Node::Bool(literal) => Ok(Logic::Literal(literal)),
                Node::Call(call) => Ok(Logic::Call(call)),
                _ => {
                    let reason = format!("{value} is no condition by itself");
                    Err(self.problem(value.place, reason, "compare it, e.g. with == true or != nil"))
                }
            },
        }
    }

    /// What was read, as a value.
    fn plain(&self, read: Read) -> Result<Expression, Problem> {
        match read {
            Read::Value { value, .. } => Ok(value),
            Read::Logic(_, place) => Err(self.problem(place, "a condition stands where a value is wanted", "")),
        }
    }

    fn operand(&self, read: Read) -> Result<Expression, Problem> {
        let value = self.plain(read)?;
        self.arithmetic(value)
    }

    fn arithmetic(&self, value: Expression) -> Result<Expression, Problem> {
        match value.node {
            Node::Int(_)
            | Node::Double(_)
            | Node::Path(_)
            | Node::Call(_)
            | Node::Negated(_)
            | Node::Arithmetic { .. } => Ok(value),
            _ => {
                let reason = format!("{value} cannot be calculated with");
                Err(self.problem(value.place, reason, "numbers, paths and converters can"))
            }
        }
    }
}

/// A token in words.
fn described(token: &Token) -> String {
    match token {
        Token::End => "the end".to_owned(),
        Token::Sign(sign) => format!("`{sign}`"),
        Token::Lower(word) | Token::Upper(word) | Token::Mixed(word) => format!("`{word}`"),
        Token::Text(_) => "a text".to_owned(),
        Token::Int(_) | Token::Double(_) => "a number".to_owned(),
        Token::Bytes(_) => "bytes".to_owned(),
    }
}
