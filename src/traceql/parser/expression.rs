//! Expressions over one span, and the fields in them.

use super::{
    Deep, LEVEL_ADD, LEVEL_COMPARE, LEVEL_LOGIC, LEVEL_MULTIPLY, LEVEL_POWER, Parser, arithmetic, bound, comparison,
};
use crate::traceql::ast::{Arithmetic, Attribute, Comparison, Expression, Field, Intrinsic, Operator, Scope, Unary};
use crate::traceql::error::ParseError;
use crate::traceql::lexer::Token;
use crate::traceql::pattern::Pattern;
use crate::traceql::value::Value;

/// What an expression may begin with.
pub(super) const OPERAND: &[&str] = &["attribute", "value", "(", "!", "-"];

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Deep<Expression>, ParseError> {
        self.climb(LEVEL_LOGIC)
    }

    /// An operand and all operators behind it of this level and higher.
    fn climb(&mut self, least: u8) -> Result<Deep<Expression>, ParseError> {
        let mut left = self.nested(Self::operand)?;
        while let Some((op, level)) = self.sign().and_then(operator) {
            if level < least {
                break;
            }
            if level == LEVEL_LOGIC {
                left = self.chain(left, op)?;
                continue;
            }
            if level == LEVEL_POWER {
                left = self.power(left)?;
                continue;
            }
            self.advance();
            if let Operator::Comparison(equal @ (Comparison::Equal | Comparison::NotEqual)) = op
                && self.take("nil")
            {
                left = self.exists(left, equal == Comparison::NotEqual)?;
                continue;
            }
            let right = self.climb(level + 1)?;
            left = self.above(left, right, |left, right| binary(op, left, right))?;
        }
        Ok(left)
    }

    /// `left && b && c`: the operators that are alike, joined at once.
    fn chain(&mut self, left: Deep<Expression>, op: Operator) -> Result<Deep<Expression>, ParseError> {
        let mut operands = vec![left];
        while self.sign().and_then(operator).is_some_and(|(next, _)| next == op) {
            self.advance();
            operands.push(self.climb(LEVEL_COMPARE)?);
        }
        let joined = self.join(operands, &|left, right| binary(op, left, right))?;
        joined.ok_or_else(|| self.unexpected(OPERAND))
    }

    /// `left ^ b ^ c`, grouped to the right.
    fn power(&mut self, left: Deep<Expression>) -> Result<Deep<Expression>, ParseError> {
        let mut bases = vec![left];
        while self.take("^") {
            bases.push(self.climb(LEVEL_POWER + 1)?);
        }
        let mut bases = bases.into_iter().rev();
        let mut power = bases.next().ok_or_else(|| self.unexpected(OPERAND))?;
        for base in bases {
            let op = Operator::Arithmetic(Arithmetic::Power);
            power = self.above(base, power, |base, power| binary(op, base, power))?;
        }
        Ok(power)
    }

    fn operand(&mut self) -> Result<Deep<Expression>, ParseError> {
        match self.sign() {
            Some("(") => {
                self.advance();
                let inner = self.climb(LEVEL_LOGIC)?;
                self.expect(")", &[")", "operator"])?;
                Ok(inner)
            }
            Some("-") => {
                self.advance();
                let operand = self.climb(LEVEL_ADD + 1)?;
                self.prefixed(operand, |operand| match operand {
                    Expression::Literal(value) => match negated(&value) {
                        Some(negated) => Expression::Literal(negated),
                        None => unary(Unary::Negate, Expression::Literal(value)),
                    },
                    other => unary(Unary::Negate, other),
                })
            }
            Some("!") => {
                self.advance();
                let operand = self.climb(LEVEL_MULTIPLY)?;
                self.prefixed(operand, |operand| unary(Unary::Not, operand))
            }
            Some("nil") => {
                self.advance();
                let exists = self.at("!=");
                if !exists && !self.at("=") {
                    return Err(self.unexpected(&["=", "!="]));
                }
                self.advance();
                if self.take("nil") {
                    // Tempo has both forms false.
                    return Ok(Deep::flat(Expression::Literal(Value::Bool(false))));
                }
                let operand = self.climb(LEVEL_COMPARE + 1)?;
                self.exists(operand, exists)
            }
            None if self.token == Token::Identifier && bound(self.word_at(self.start)).is_none() => Err(self.unknown()),
            _ if self.at_field() => Ok(Deep::flat(Expression::Field(self.field()?))),
            _ => Ok(Deep::flat(Expression::Literal(self.literal(OPERAND)?))),
        }
    }

    /// An attribute without dot and scope, by far the most frequent mistake.
    fn unknown(&self) -> ParseError {
        let word = self.word_at(self.start);
        let advice = if word.starts_with(char::is_alphabetic) {
            format!("; attributes begin with a dot or a scope, like .{word} or span.{word}")
        } else {
            String::new()
        };
        self.wrong_at(self.start, format!("unknown identifier: {word}{advice}"))
    }

    /// Printed, the operand may stand in parentheses behind its sign: both are open then.
    fn prefixed(
        &self,
        operand: Deep<Expression>,
        make: impl FnOnce(Expression) -> Expression,
    ) -> Result<Deep<Expression>, ParseError> {
        let node = Box::new(make(*operand.node));
        if let Expression::Literal(_) = *node {
            return Ok(Deep { node, depth: 1 });
        }
        self.raised(operand.depth + 1, node)
    }

    fn exists(&self, operand: Deep<Expression>, exists: bool) -> Result<Deep<Expression>, ParseError> {
        match *operand.node {
            // A literal is there.
            Expression::Literal(_) => Ok(Deep::flat(Expression::Literal(Value::Bool(exists)))),
            _ => self.raised(operand.depth, Box::new(Expression::Exists { operand: operand.node, exists })),
        }
    }

    /// Whether a field begins here.
    pub(super) fn at_field(&self) -> bool {
        self.sign().is_some_and(|sign| sign.ends_with(['.', ':']) || unscoped(sign).is_some())
    }

    pub(super) fn field(&mut self) -> Result<Field, ParseError> {
        let Some(sign) = self.sign().filter(|_| self.at_field()) else {
            return Err(self.unexpected(&["attribute"]));
        };
        let start = self.start;
        self.advance();
        if let Some(intrinsic) = unscoped(sign) {
            return Ok(Field::Intrinsic(intrinsic));
        }
        if sign.ends_with(':') {
            let intrinsic = self.sign().and_then(|word| scoped(sign, word));
            let intrinsic = intrinsic.ok_or_else(|| self.unexpected(scoped_words(sign)))?;
            self.advance();
            return Ok(Field::Intrinsic(intrinsic));
        }
        let of_parent = sign == "parent.";
        let mut scope = scope_of(sign);
        let adjacent = start + sign.len() == self.start;
        if of_parent
            && adjacent
            && let Some(inner) = self.sign().and_then(scope_of)
        {
            scope = Some(inner);
            self.advance();
        }
        let Token::Name(name) = &self.token else { return Err(self.unexpected(&["attribute name"])) };
        let name = String::from(&**name);
        self.advance();
        Ok(Field::Attribute(Attribute { scope, of_parent, name }))
    }

    /// Fields separated by commas, at least one, up to and with the closing parenthesis.
    pub(super) fn fields(&mut self) -> Result<Vec<Field>, ParseError> {
        let mut fields = vec![self.field()?];
        while self.take(",") {
            fields.push(self.field()?);
        }
        self.expect(")", &[")", ","])?;
        Ok(fields)
    }
}

fn binary(op: Operator, left: Expression, right: Expression) -> Expression {
    let right = match (op, right) {
        // Whatever else stands there, validation refuses.
        (Operator::Matches | Operator::MatchesNot, Expression::Literal(Value::String(text))) => {
            Expression::Pattern(Pattern::new(text))
        }
        (_, right) => right,
    };
    Expression::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn unary(op: Unary, operand: Expression) -> Expression {
    Expression::Unary { op, operand: Box::new(operand) }
}

/// A number with the other sign; `None` for what is no number.
pub(super) fn negated(value: &Value) -> Option<Value> {
    match value {
        Value::Int(int) => Some(Value::Int(int.wrapping_neg())),
        Value::Float(float) => Some(Value::Float(-float)),
        Value::Duration(duration) => Some(Value::Duration(duration.wrapping_neg())),
        _ => None,
    }
}

fn operator(sign: &'static str) -> Option<(Operator, u8)> {
    if let Some((op, level)) = arithmetic(sign) {
        return Some((Operator::Arithmetic(op), level));
    }
    if let Some(op) = comparison(sign) {
        return Some((Operator::Comparison(op), LEVEL_COMPARE));
    }
    match sign {
        "=~" => Some((Operator::Matches, LEVEL_COMPARE)),
        "!~" => Some((Operator::MatchesNot, LEVEL_COMPARE)),
        "&&" => Some((Operator::And, LEVEL_LOGIC)),
        "||" => Some((Operator::Or, LEVEL_LOGIC)),
        _ => None,
    }
}

fn scope_of(sign: &'static str) -> Option<Scope> {
    let name = sign.strip_suffix('.')?;
    Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
}

fn unscoped(word: &str) -> Option<Intrinsic> {
    Some(match word {
        "duration" => Intrinsic::Duration,
        "name" => Intrinsic::Name,
        "status" => Intrinsic::Status,
        "statusMessage" => Intrinsic::StatusMessage,
        "kind" => Intrinsic::Kind,
        "parent" => Intrinsic::Parent,
        "rootName" => Intrinsic::RootName,
        "rootServiceName" => Intrinsic::RootServiceName,
        "traceDuration" => Intrinsic::TraceDuration,
        "nestedSetLeft" => Intrinsic::NestedSetLeft,
        "nestedSetRight" => Intrinsic::NestedSetRight,
        "nestedSetParent" => Intrinsic::NestedSetParent,
        _ => return None,
    })
}

fn scoped(scope: &str, word: &str) -> Option<Intrinsic> {
    Some(match (scope, word) {
        ("trace:", "duration") => Intrinsic::TraceDuration,
        ("trace:", "rootName") => Intrinsic::RootName,
        ("trace:", "rootService") => Intrinsic::RootServiceName,
        ("trace:", "id") => Intrinsic::TraceId,
        ("span:", "duration") => Intrinsic::Duration,
        ("span:", "name") => Intrinsic::Name,
        ("span:", "kind") => Intrinsic::Kind,
        ("span:", "status") => Intrinsic::Status,
        ("span:", "statusMessage") => Intrinsic::StatusMessage,
        ("span:", "id") => Intrinsic::SpanId,
        ("span:", "parentID") => Intrinsic::ParentId,
        ("span:", "childCount") => Intrinsic::ChildCount,
        ("event:", "name") => Intrinsic::EventName,
        ("event:", "timeSinceStart") => Intrinsic::EventTimeSinceStart,
        ("link:", "traceID") => Intrinsic::LinkTraceId,
        ("link:", "spanID") => Intrinsic::LinkSpanId,
        ("instrumentation:", "name") => Intrinsic::InstrumentationName,
        ("instrumentation:", "version") => Intrinsic::InstrumentationVersion,
        _ => return None,
    })
}

/// What may stand behind a scope with a colon, for errors.
fn scoped_words(scope: &str) -> &'static [&'static str] {
    match scope {
        "trace:" => &["duration", "rootName", "rootService", "id"],
        "span:" => &["duration", "name", "kind", "status", "statusMessage", "id", "parentID", "childCount"],
        "event:" => &["name", "timeSinceStart"],
        "link:" => &["traceID", "spanID"],
        _ => &["name", "version"],
    }
}
