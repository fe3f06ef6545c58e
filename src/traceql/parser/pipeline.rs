//! What stands outside of braces: spansets, their pipelines, and numbers of spansets.

// Without optimisation a part that is handed on by value has a place on the stack of each function that contains itself.
#![expect(clippy::boxed_local, reason = "parts stay in their boxes between functions")]

use super::expression::negated;
use super::{Deep, LEVEL_ADD, LEVEL_COMPARE, LEVEL_LOGIC, LEVEL_POWER, Parser, arithmetic, comparison};
use crate::traceql::ast::{
    Aggregate, Arithmetic, Comparison, FirstStage, Fold, Form, Metrics, Pipeline, Relation, Scalar, SecondStage,
    Spanset, SpansetOperator, Stage,
};
use crate::traceql::error::ParseError;
use crate::traceql::lexer::Token;
use crate::traceql::value::Value;

/// Something that was parsed outside of braces, by what may be done with it.
#[derive(Debug)]
pub(super) enum Part {
    /// `piped`: a pipeline in parentheses is in it, and no further stage may follow it.
    Spanset {
        set: Spanset,
        piped: bool,
    },
    /// `by(...)`, `select(...)`, `coalesce()`, `count() > 2`.
    Stage(Stage),
    /// A number with an aggregate in it.
    Scalar(Scalar),
    /// Numbers, folded.
    Constant(Value),
    /// A number of pipelines in parentheses: `({...} | count())`.
    Piped(Scalar),
    /// A comparison of such numbers: a whole query.
    PipedFilter(Stage),
    Metrics(Metrics),
    /// At least two stages.
    Pipeline(Pipeline),
}

/// An operator between parts. Some signs are two operators; the left operand tells which.
#[derive(Debug, Clone, Copy)]
enum Joint {
    Spanset(SpansetOperator),
    Compare(Comparison),
    Compute(Arithmetic),
}

const SPANSET: &[&str] = &["{", "("];
const NUMBER: &[&str] = &["INTEGER", "FLOAT", "DURATION"];

/// What a query, or what stands in parentheses, begins with.
const QUERY: &[&str] = &["{", "(", "by", "select", "aggregate", "number"];

/// What may stand behind `|`.
const STAGE: &[&str] = &["{", "by", "select", "coalesce", "aggregate", "metrics function"];

/// What may stand behind an operator with this on its left.
fn behind(joint: Joint, left: &Part) -> &'static [&'static str] {
    match (joint, left) {
        (Joint::Spanset(_), _) => SPANSET,
        (Joint::Compare(_), Part::Constant(_)) => &["aggregate"],
        (Joint::Compare(_), Part::Metrics(_)) => NUMBER,
        (_, Part::Piped(_)) => &["number", "pipeline in parentheses"],
        (_, Part::Metrics(_)) => &["number", "metrics in parentheses"],
        _ => &["number", "aggregate", "("],
    }
}

/// What may stand behind a part that is no pipeline and begins none.
fn after(part: &Part) -> &'static [&'static str] {
    match part {
        Part::Constant(_) => &["operator"],
        Part::Scalar(_) | Part::Piped(_) => &["comparison operator"],
        Part::Spanset { .. } => &["&&", "||", "structural operator", "with"],
        _ => &["$end"],
    }
}

impl Parser<'_> {
    /// Parts separated by `|`. With `nested`, a closing parenthesis is to follow.
    pub(super) fn sequence(&mut self, nested: bool) -> Result<Deep<Part>, ParseError> {
        let mut whole = self.stage(true)?;
        while self.at("|") {
            let Deep { node, depth } = whole;
            if let Part::Metrics(_) = *node {
                whole = self.ranked(node, depth)?;
                continue;
            }
            let pipeline = self.pipeline(node)?;
            self.advance();
            if let Some(first) = self.first_stage()? {
                whole = self.series(pipeline, first, depth)?;
                continue;
            }
            let (token, start) = (self.token.clone(), self.start);
            let next = self.stage(false)?;
            let depth = depth.max(next.depth);
            let node = self.continued(pipeline, next.node, nested, (token, start))?;
            whole = Deep { node, depth };
        }
        Ok(whole)
    }

    /// Series, a bar and what ranks them.
    fn ranked(&mut self, node: Box<Part>, depth: u32) -> Result<Deep<Part>, ParseError> {
        let Part::Metrics(metrics) = *node else { return Err(self.unexpected(&[])) };
        self.advance();
        let ranked = self.ranking()?;
        Ok(self.filters(Deep { node: Box::new(metrics.then(ranked)), depth })?.map(Part::Metrics))
    }

    /// A pipeline with a function of metrics behind it.
    fn series(&mut self, pipeline: Pipeline, first: Deep<FirstStage>, depth: u32) -> Result<Deep<Part>, ParseError> {
        let depth = depth.max(first.depth) + 1;
        let series = Metrics::Series { pipeline, first: *first.node };
        Ok(self.filters(Deep { node: Box::new(series), depth })?.map(Part::Metrics))
    }

    /// A pipeline with one more stage, which began at a token and place.
    fn continued(
        &self,
        mut pipeline: Pipeline,
        next: Box<Part>,
        nested: bool,
        (token, start): (Token, usize),
    ) -> Result<Box<Part>, ParseError> {
        Ok(Box::new(match *next {
            Part::Stage(stage) => {
                pipeline.stages.push(stage);
                Part::Pipeline(pipeline)
            }
            Part::Spanset { set, piped: false } => {
                pipeline.stages.push(Stage::Spanset(set));
                Part::Pipeline(pipeline)
            }
            Part::Scalar(Scalar::Aggregate(aggregate)) if nested && self.at(")") => {
                Part::Piped(Scalar::Pipeline { pipeline, aggregate })
            }
            Part::Scalar(_) => return Err(self.unexpected(&["comparison operator"])),
            _ => return Err(self.unexpected_at(&token, start, STAGE)),
        }))
    }

    /// The pipeline that a part is or begins; fails at the current token, which cannot follow.
    pub(super) fn pipeline(&self, part: Box<Part>) -> Result<Pipeline, ParseError> {
        match *part {
            Part::Pipeline(pipeline) => Ok(pipeline),
            Part::Stage(stage) => Ok(Pipeline { stages: vec![stage] }),
            Part::Spanset { set, piped: false } => Ok(Pipeline { stages: vec![Stage::Spanset(set)] }),
            other => Err(self.unexpected(after(&other))),
        }
    }

    /// A part as a whole search.
    pub(super) fn search(&self, part: Part) -> Result<Pipeline, ParseError> {
        match part {
            // Parentheses around the whole query.
            Part::Spanset { set: Spanset::Pipeline(pipeline), .. } => Ok(pipeline),
            Part::Spanset { set, .. } => Ok(Pipeline { stages: vec![Stage::Spanset(set)] }),
            Part::PipedFilter(stage) => Ok(Pipeline { stages: vec![stage] }),
            other => self.pipeline(Box::new(other)),
        }
    }

    fn stage(&mut self, first: bool) -> Result<Deep<Part>, ParseError> {
        match self.sign() {
            Some("by") => {
                self.advance();
                self.expect("(", &["("])?;
                let by = self.expression()?;
                self.expect(")", &[")", "operator"])?;
                Ok(by.map(|by| Part::Stage(Stage::By(by))))
            }
            Some("select") => {
                self.advance();
                self.expect("(", &["("])?;
                Ok(Deep::flat(Part::Stage(Stage::Select(self.fields()?))))
            }
            Some("coalesce") if !first => {
                self.advance();
                self.expect("(", &["("])?;
                self.expect(")", &[")"])?;
                Ok(Deep::flat(Part::Stage(Stage::Coalesce)))
            }
            _ => {
                self.expected = if first { QUERY } else { STAGE };
                self.parts(LEVEL_LOGIC)
            }
        }
    }

    /// A part and all operators behind it of this level and higher.
    pub(super) fn parts(&mut self, least: u8) -> Result<Deep<Part>, ParseError> {
        let mut left = self.nested(Self::part)?;
        while let Some((joint, level)) = self.sign().and_then(|sign| joint(sign, &left.node)) {
            if level < least {
                break;
            }
            if let (Joint::Spanset(op), LEVEL_LOGIC) = (joint, level) {
                left = self.spanset_chain(left, op)?;
                continue;
            }
            self.advance();
            if matches!(joint, Joint::Spanset(_)) {
                self.at_spanset()?;
            }
            let (token, start) = (self.token.clone(), self.start);
            let expected = behind(joint, &left.node);
            self.expected = expected;
            // Powers group to the right.
            let power = level == LEVEL_POWER;
            let right = match power {
                true => self.nested(|parser| parser.parts(level))?,
                false => self.parts(level + 1)?,
            };
            let depth = left.depth.max(right.depth) + u32::from(power);
            let joined = self.joined(joint, left.node, right.node, start)?;
            let Some(node) = joined else {
                return Err(self.unexpected_at(&token, start, expected));
            };
            // Numbers were folded into one.
            left = if let Part::Constant(_) = *node { Deep { node, depth: 1 } } else { self.raised(depth, node)? };
        }
        Ok(left)
    }

    fn spanset_chain(&mut self, left: Deep<Part>, op: SpansetOperator) -> Result<Deep<Part>, ParseError> {
        let mut any_piped = false;
        let mut operands = Vec::new();
        let mut next = Some((left, self.token.clone(), self.start));
        while let Some((part, token, start)) = next.take() {
            let Part::Spanset { set, piped } = *part.node else {
                return Err(self.unexpected_at(&token, start, SPANSET));
            };
            any_piped |= piped;
            operands.push(Deep { node: Box::new(set), depth: part.depth });
            let again = self.sign().and_then(logic).is_some_and(|next| next == op);
            if again {
                self.advance();
                self.at_spanset()?;
                let (token, start) = (self.token.clone(), self.start);
                next = Some((self.parts(LEVEL_COMPARE)?, token, start));
            }
        }
        let joined = self.join(operands, &|left, right| spansets(op, left, right))?;
        let joined = joined.ok_or_else(|| self.unexpected(SPANSET))?;
        Ok(joined.map(|set| Part::Spanset { set, piped: any_piped }))
    }

    /// Fails early, and so at the right place, where no operand of a spanset operator begins.
    fn at_spanset(&self) -> Result<(), ParseError> {
        if self.at("{") || self.at("(") { Ok(()) } else { Err(self.unexpected(SPANSET)) }
    }

    /// `None`: the right operand, which begins at `start`, does not go with the left one.
    fn joined(
        &self,
        joint: Joint,
        left: Box<Part>,
        right: Box<Part>,
        start: usize,
    ) -> Result<Option<Box<Part>>, ParseError> {
        let compare = |op, left, right| Stage::Filter { op, left, right };
        Ok(Some(Box::new(match (joint, *left, *right) {
            (Joint::Spanset(op), Part::Spanset { set: left, piped: a }, Part::Spanset { set: right, piped: b }) => {
                Part::Spanset { set: spansets(op, left, right), piped: a || b }
            }
            (Joint::Compare(op), Part::Scalar(left), Part::Scalar(right)) => Part::Stage(compare(op, left, right)),
            (Joint::Compare(op), Part::Scalar(left), Part::Constant(right)) => {
                Part::Stage(compare(op, left, Scalar::Literal(right)))
            }
            (Joint::Compare(op), Part::Constant(left), Part::Scalar(right)) => {
                Part::Stage(compare(op, Scalar::Literal(left), right))
            }
            (Joint::Compare(op), Part::Piped(left), Part::Piped(right)) => Part::PipedFilter(compare(op, left, right)),
            (Joint::Compare(op), Part::Piped(left), Part::Constant(right)) => {
                Part::PipedFilter(compare(op, left, Scalar::Literal(right)))
            }
            (Joint::Compare(op), Part::Metrics(left), Part::Constant(right)) => {
                Part::Metrics(left.then(SecondStage::Filter(op, right)))
            }
            (Joint::Compute(op), Part::Scalar(left), Part::Scalar(right)) => Part::Scalar(scalars(op, left, right)),
            (Joint::Compute(op), Part::Scalar(left), Part::Constant(right)) => {
                Part::Scalar(scalars(op, left, Scalar::Literal(right)))
            }
            (Joint::Compute(op), Part::Constant(left), Part::Scalar(right)) => {
                Part::Scalar(scalars(op, Scalar::Literal(left), right))
            }
            (Joint::Compute(op), Part::Piped(left), Part::Piped(right)) => Part::Piped(scalars(op, left, right)),
            (Joint::Compute(Arithmetic::Modulo | Arithmetic::Power), ..) => return Ok(None),
            (Joint::Compute(op), Part::Constant(left), Part::Constant(right)) => {
                Part::Constant(folded(op, &left, &right).map_err(|problem| self.wrong_at(start, problem))?)
            }
            (Joint::Compute(op), Part::Metrics(left), Part::Metrics(right)) => Part::Metrics(left.with(op, right)),
            (Joint::Compute(op), Part::Metrics(left), Part::Constant(right)) => {
                Part::Metrics(left.with(op, factor(right).map_err(|problem| self.wrong_at(start, problem))?))
            }
            (Joint::Compute(op), Part::Constant(left), Part::Metrics(right)) => {
                Part::Metrics(factor(left).map_err(|problem| self.wrong_at(start, problem))?.with(op, right))
            }
            _ => return Ok(None),
        })))
    }

    fn part(&mut self) -> Result<Deep<Part>, ParseError> {
        match self.sign() {
            Some("{") => {
                let spans = self.braces()?;
                Ok(spans.map(|set| Part::Spanset { set, piped: false }))
            }
            Some("(") => {
                self.advance();
                let inner = self.sequence(true)?;
                self.expect(")", &[")", "|"])?;
                self.in_parentheses(inner)
            }
            Some("-") => {
                self.advance();
                let (token, start) = (self.token.clone(), self.start);
                self.expected = NUMBER;
                let operand = self.parts(LEVEL_POWER + 1)?;
                let negative = if let Part::Constant(value) = &*operand.node { negated(value) } else { None };
                let negative = negative.ok_or_else(|| self.unexpected_at(&token, start, NUMBER))?;
                Ok(Deep::flat(Part::Constant(negative)))
            }
            Some("count") => {
                self.advance();
                self.expect("(", &["("])?;
                self.expect(")", &[")"])?;
                Ok(Deep::flat(Part::Scalar(Scalar::Aggregate(Aggregate::Count))))
            }
            Some(word) if fold(word).is_some() => {
                let fold = fold(word).unwrap_or(Fold::Sum);
                self.advance();
                self.expect("(", &["("])?;
                let of = self.expression()?;
                self.expect(")", &[")", "operator"])?;
                Ok(of.map(|of| Part::Scalar(Scalar::Aggregate(Aggregate::Of(fold, of)))))
            }
            None if matches!(self.token, Token::Int(_) | Token::Float(_) | Token::Duration(_)) => {
                Ok(Deep::flat(Part::Constant(self.literal(NUMBER)?)))
            }
            _ => Err(self.unexpected(self.expected)),
        }
    }

    fn in_parentheses(&self, inner: Deep<Part>) -> Result<Deep<Part>, ParseError> {
        let Deep { node, depth } = inner;
        let pipeline = match *node {
            Part::Pipeline(pipeline) => pipeline,
            Part::Stage(stage) => Pipeline { stages: vec![stage] },
            Part::PipedFilter(_) => return Err(self.unexpected(&["$end"])),
            other => return Ok(Deep { node: Box::new(other), depth }),
        };
        self.raised(depth, Box::new(Part::Spanset { set: Spanset::Pipeline(pipeline), piped: true }))
    }

    /// `{ expression }`
    pub(super) fn braces(&mut self) -> Result<Deep<Spanset>, ParseError> {
        self.expect("{", &["{"])?;
        if self.take("}") {
            return Ok(Deep::flat(Spanset::Spans(None)));
        }
        if self.token == Token::End {
            return Err(self.unexpected(&["}", "attribute", "value"]));
        }
        let filter = self.expression()?;
        self.expect("}", &["}", "operator"])?;
        self.raised(filter.depth, Box::new(Spanset::Spans(Some(*filter.node))))
    }

    /// A number at the level of sums, as second stages compare with.
    pub(super) fn constant(&mut self) -> Result<Value, ParseError> {
        let (token, start) = (self.token.clone(), self.start);
        self.expected = NUMBER;
        match *self.parts(LEVEL_ADD)?.node {
            Part::Constant(value) => Ok(value),
            _ => Err(self.unexpected_at(&token, start, NUMBER)),
        }
    }
}

/// Tempo would go on with a wrapped number, or an infinity that no answer can show.
const OUT_OF_RANGE: &str = "constant out of range";

/// Numbers of metrics expressions: whole ones stay whole, so `1 / 2` is 0.
fn folded(op: Arithmetic, left: &Value, right: &Value) -> Result<Value, &'static str> {
    let float = |value: &Value| match value {
        Value::Int(int) => Ok(*int as f64),
        Value::Float(float) => Ok(*float),
        _ => Err("duration cannot be used in scalar arithmetic"),
    };
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        let result = match op {
            Arithmetic::Add => left.checked_add(*right),
            Arithmetic::Subtract => left.checked_sub(*right),
            Arithmetic::Multiply => left.checked_mul(*right),
            _ if *right == 0 => return Err("division by zero"),
            _ => left.checked_div(*right),
        };
        return result.map(Value::Int).ok_or(OUT_OF_RANGE);
    }
    let (left, right) = (float(left)?, float(right)?);
    let result = match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        _ => left / right,
    };
    if result.is_finite() { Ok(Value::Float(result)) } else { Err(OUT_OF_RANGE) }
}

/// A number that series are computed with.
fn factor(value: Value) -> Result<Metrics, &'static str> {
    match value {
        Value::Duration(_) => Err("duration cannot be used as a scalar operand in metric arithmetic"),
        number => Ok(Metrics::Constant(number)),
    }
}

fn fold(word: &str) -> Option<Fold> {
    Some(match word {
        "min" => Fold::Min,
        "max" => Fold::Max,
        "avg" => Fold::Avg,
        "sum" => Fold::Sum,
        _ => return None,
    })
}

fn scalars(op: Arithmetic, left: Scalar, right: Scalar) -> Scalar {
    Scalar::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn spansets(op: SpansetOperator, left: Spanset, right: Spanset) -> Spanset {
    Spanset::Binary { op, left: Box::new(left), right: Box::new(right) }
}

/// The operator that a sign is behind such a part, and its level.
fn joint(sign: &'static str, left: &Part) -> Option<(Joint, u8)> {
    match left {
        Part::Spanset { .. } => logic(sign)
            .map(|op| (Joint::Spanset(op), LEVEL_LOGIC))
            .or_else(|| Some((Joint::Spanset(structural(sign)?), LEVEL_COMPARE))),
        Part::Metrics(_) if matches!(sign, "%" | "^") => None,
        Part::Scalar(_) | Part::Constant(_) | Part::Piped(_) | Part::Metrics(_) => arithmetic(sign)
            .map(|(op, level)| (Joint::Compute(op), level))
            .or_else(|| Some((Joint::Compare(comparison(sign)?), LEVEL_COMPARE))),
        Part::Stage(_) | Part::PipedFilter(_) | Part::Pipeline(_) => None,
    }
}

fn logic(sign: &str) -> Option<SpansetOperator> {
    match sign {
        "&&" => Some(SpansetOperator::And),
        "||" => Some(SpansetOperator::Or),
        _ => None,
    }
}

fn structural(sign: &str) -> Option<SpansetOperator> {
    let (form, plain) = match sign.strip_prefix('!') {
        Some(plain) => (Form::Negated, plain),
        None => sign.strip_prefix('&').map_or((Form::Plain, sign), |plain| (Form::Union, plain)),
    };
    let relation = match plain {
        ">" => Relation::Child,
        "<" => Relation::Parent,
        ">>" => Relation::Descendant,
        "<<" => Relation::Ancestor,
        "~" => Relation::Sibling,
        _ => return None,
    };
    Some(SpansetOperator::Structural { relation, form })
}
