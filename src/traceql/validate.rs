//! Whether a query makes sense: types that go together, expressions that mention the span, features that there are.
//!
//! Attributes have no type before they are read, so they go with everything; at run time what does not fit is false. The
//! order of the checks is Tempo's, because the first failure is what the user sees.

use std::collections::BTreeSet;

use super::ast::{
    Aggregate, Arithmetic, Attribute, Comparison, Expression, Field, FirstStage, Intrinsic, Metrics, Operator,
    OverTime, Pipeline, Query, Root, Scalar, Scope, SecondStage, Spanset, Stage, Unary,
};
use super::error::Invalid;
use super::value::Value;

/// Labels that metrics may be grouped by.
const GROUP_BY_MAX: usize = 5;
/// Values per attribute that `compare()` may list.
const COMPARE_TOP_MAX: i64 = 1000;

/// What is known of a value before any span is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// Of an attribute: anything.
    Any,
    String,
    Int,
    Float,
    Bool,
    Duration,
    Status,
    Kind,
    /// Of `parent`, which is not there.
    Nil,
}

/// [`Query::parts`] of one query: each is compiled, and asked of every segment. Some things are as many levels deep.
const PARTS_MAX: usize = 256;
/// Attributes and intrinsics of one query, each however often: each is looked for in every segment, and compared with all
/// others when it is planned.
const FIELDS_MAX: usize = 256;
/// Regular expressions of one query: each may take a mebibyte, and its time to be compiled.
const PATTERNS_MAX: usize = 64;

/// Of a regular expression that is refused so much is quoted: the reason stands behind it.
const PATTERN_CHARS_SHOWN: usize = 200;

/// Checks a parsed query.
///
/// # Errors
/// The first thing that makes no sense, or that is not supported.
pub fn check(query: &Query) -> Result<(), Invalid> {
    check_size(query)?;
    match &query.root {
        Root::Search(pipeline) => pipeline.check(),
        Root::Metrics(metrics) => {
            let series = metrics.series();
            series.iter().try_for_each(|(pipeline, _)| pipeline.check())?;
            series.iter().try_for_each(|(_, first)| first.check())?;
            metrics.check()?;
            let compares = series.iter().any(|(_, first)| matches!(first, FirstStage::Compare { .. }));
            let alone = matches!(metrics, Metrics::Series { .. });
            if compares && !alone { Err(Invalid::CompareStaged) } else { Ok(()) }
        }
    }
}

/// Before anything is compiled.
fn check_size(query: &Query) -> Result<(), Invalid> {
    if query.parts() > PARTS_MAX {
        let what = "stages, filters, aggregates, attributes to group by or to show, and quantiles";
        return Err(Invalid::TooMany { max: PARTS_MAX, what });
    }
    let mut expressions = Vec::new();
    for pipeline in query.pipelines() {
        pipeline.expressions(&mut |expression| expressions.push(expression));
    }
    check_expressions(&expressions)
}

fn check_expressions(expressions: &[&Expression]) -> Result<(), Invalid> {
    if expressions.iter().map(|expression| patterns_in(expression)).sum::<usize>() > PATTERNS_MAX {
        return Err(Invalid::TooMany { max: PATTERNS_MAX, what: "regular expressions" });
    }
    let fields: BTreeSet<&Field> = expressions.iter().flat_map(|expression| expression.fields()).collect();
    match fields.len() > FIELDS_MAX {
        true => Err(Invalid::TooMany { max: FIELDS_MAX, what: "different attributes" }),
        false => Ok(()),
    }
}

fn patterns_in(expression: &Expression) -> usize {
    match expression {
        Expression::Binary { op, left, right } => {
            let own = usize::from(matches!(op, Operator::Matches | Operator::MatchesNot));
            own + patterns_in(left) + patterns_in(right)
        }
        Expression::Unary { operand, .. } | Expression::Exists { operand, .. } => patterns_in(operand),
        Expression::Literal(_) | Expression::Pattern(_) | Expression::Field(_) => 0,
    }
}

impl Type {
    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    fn goes_with(self, other: Self) -> bool {
        self == other
            || (self.is_number() && other.is_number())
            || [self, other].iter().any(|side| matches!(side, Self::Any | Self::Nil))
    }

    fn takes(self, op: Operator) -> bool {
        use Comparison::{Equal, NotEqual};
        match self {
            Self::Any => true,
            Self::Bool => {
                matches!(op, Operator::And | Operator::Or | Operator::Comparison(Equal | NotEqual))
            }
            Self::Int | Self::Float | Self::Duration => {
                matches!(op, Operator::Arithmetic(_) | Operator::Comparison(_))
            }
            Self::String => {
                matches!(op, Operator::Comparison(_) | Operator::Matches | Operator::MatchesNot)
            }
            Self::Status | Self::Kind | Self::Nil => matches!(op, Operator::Comparison(Equal | NotEqual)),
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::String,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::Bool(_) => Self::Bool,
            Value::Duration(_) => Self::Duration,
            Value::Status(_) => Self::Status,
            Value::Kind(_) => Self::Kind,
            // There is no literal for it.
            Value::Array(_) => Self::Any,
        }
    }

    fn of_field(field: &Field) -> Self {
        let Field::Intrinsic(intrinsic) = field else { return Self::Any };
        match intrinsic {
            Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart => Self::Duration,
            Intrinsic::Status => Self::Status,
            Intrinsic::Kind => Self::Kind,
            Intrinsic::ChildCount
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => Self::Int,
            Intrinsic::Name
            | Intrinsic::StatusMessage
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::TraceId
            | Intrinsic::EventName
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId => Self::String,
            // Tempo lets these be compared with anything.
            Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => Self::Any,
            Intrinsic::Parent => Self::Nil,
        }
    }
}

impl Pipeline {
    fn check(&self) -> Result<(), Invalid> {
        self.stages.iter().try_for_each(|stage| match stage {
            Stage::Spanset(set) => set.check(),
            Stage::Filter { op, left, right } => check_filter(stage, *op, left, right),
            Stage::By(by) => {
                if !by.mentions_span() {
                    return Err(Invalid::GroupingWithoutSpan(stage.to_string()));
                }
                by.check()
            }
            Stage::Coalesce => Ok(()),
            Stage::Select(fields) => fields.iter().try_for_each(Field::check),
        })
    }
}

impl Spanset {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Spans(None) => Ok(()),
            Self::Spans(Some(filter)) => {
                filter.check()?;
                if !matches!(filter.kind(), Type::Any | Type::Bool) {
                    return Err(Invalid::FilterNotBoolean(self.to_string()));
                }
                Ok(())
            }
            Self::Binary { left, right, .. } => {
                left.check()?;
                right.check()
            }
            Self::Pipeline(pipeline) => pipeline.check(),
        }
    }
}

fn check_filter(stage: &Stage, op: Comparison, left: &Scalar, right: &Scalar) -> Result<(), Invalid> {
    left.check()?;
    right.check()?;
    check_types(Operator::Comparison(op), left.kind(), right.kind(), || stage.to_string())?;
    // Only an aggregate compared with a number can be evaluated.
    let unsupported = |side, scalar: &Scalar| {
        let kind = match scalar {
            Scalar::Aggregate(_) => "aggregate",
            Scalar::Literal(_) => "number",
            Scalar::Binary { .. } => "operation",
            Scalar::Pipeline { .. } => "pipeline",
        };
        Err(Invalid::Unsupported(format!("scalar filter {side} of type ({kind})")))
    };
    match (left, right) {
        (Scalar::Aggregate(_), Scalar::Literal(_)) => Ok(()),
        (Scalar::Aggregate(_), _) => unsupported("rhs", right),
        _ => unsupported("lhs", left),
    }
}

fn check_types(op: Operator, left: Type, right: Type, text: impl Fn() -> String) -> Result<(), Invalid> {
    if !left.goes_with(right) {
        return Err(Invalid::DifferentTypes(text()));
    }
    if !left.takes(op) || !right.takes(op) {
        return Err(Invalid::IllegalBinary(text()));
    }
    Ok(())
}

impl Scalar {
    fn kind(&self) -> Type {
        match self {
            Self::Literal(value) => Type::of(value),
            Self::Aggregate(aggregate) | Self::Pipeline { aggregate, .. } => aggregate.kind(),
            Self::Binary { left, right, .. } => match left.kind() {
                Type::Any => right.kind(),
                known => known,
            },
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Literal(_) => Ok(()),
            Self::Aggregate(aggregate) => aggregate.check(),
            Self::Binary { op, left, right } => {
                left.check()?;
                right.check()?;
                check_types(Operator::Arithmetic(*op), left.kind(), right.kind(), || self.to_string())
            }
            Self::Pipeline { pipeline, aggregate } => {
                pipeline.check()?;
                aggregate.check()
            }
        }
    }
}

impl Aggregate {
    fn kind(&self) -> Type {
        match self {
            Self::Count => Type::Int,
            Self::Of(_, of) => of.kind(),
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        let Self::Of(_, of) = self else { return Ok(()) };
        of.check()?;
        if of.kind() != Type::Any && !of.kind().is_number() {
            return Err(Invalid::AggregateNotNumber(self.to_string()));
        }
        if !of.mentions_span() {
            return Err(Invalid::AggregateWithoutSpan(self.to_string()));
        }
        Ok(())
    }
}

impl Expression {
    fn kind(&self) -> Type {
        match self {
            Self::Literal(value) => Type::of(value),
            Self::Pattern(_) => Type::String,
            Self::Field(field) => Type::of_field(field),
            Self::Binary { op: Operator::Arithmetic(_), left, right } => match left.kind() {
                Type::Any => right.kind(),
                known => known,
            },
            Self::Binary { .. } | Self::Exists { .. } => Type::Bool,
            Self::Unary { operand, .. } => operand.kind(),
        }
    }

    /// Whether the expression can be evaluated; it need not be a condition.
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Literal(_) | Self::Pattern(_) => Ok(()),
            Self::Field(field) => field.check(),
            Self::Binary { op, left, right } => {
                left.check()?;
                right.check()?;
                check_types(*op, left.kind(), right.kind(), || self.to_string())?;
                if matches!(op, Operator::Matches | Operator::MatchesNot) { check_pattern(right) } else { Ok(()) }
            }
            Self::Unary { op, operand } => {
                operand.check()?;
                let fits = match (op, operand.kind()) {
                    (_, Type::Any) => true,
                    (Unary::Not, kind) => kind == Type::Bool,
                    (Unary::Negate, kind) => kind.is_number(),
                };
                if fits { Ok(()) } else { Err(Invalid::IllegalUnary(self.to_string())) }
            }
            Self::Exists { operand, exists } => {
                operand.check()?;
                match &**operand {
                    Self::Field(field @ Field::Intrinsic(_)) if !exists => {
                        Err(Invalid::IntrinsicNil(field.to_string()))
                    }
                    Self::Field(field) if !exists && is_service_name(field) => Err(Invalid::ServiceNameNil),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn check_pattern(right: &Expression) -> Result<(), Invalid> {
    let Expression::Pattern(pattern) = right else { return Err(Invalid::RegexType(right.to_string())) };
    let wrong = |reason| {
        let text = right.to_string();
        let shown: String = text.chars().take(PATTERN_CHARS_SHOWN).collect();
        let rest = if shown.len() < text.len() { "..." } else { "" };
        Invalid::Regex(format!("{shown}{rest}: {reason}"))
    };
    pattern.regex().map(|_| ()).map_err(wrong)
}

fn is_service_name(field: &Field) -> bool {
    matches!(field, Field::Attribute(Attribute { scope: Some(Scope::Resource), of_parent: false, name })
        if name == "service.name")
}

impl Field {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Attribute(attribute) if attribute.of_parent => Err(Invalid::Unsupported("parent".to_owned())),
            Self::Intrinsic(Intrinsic::Parent) => Err(Invalid::Unsupported("intrinsic (parent)".to_owned())),
            _ => Ok(()),
        }
    }
}

impl FirstStage {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Over { function, by } => {
                // Of these a label is their own.
                let own = matches!(function, OverTime::Avg(_) | OverTime::Histogram(_) | OverTime::Quantile(..));
                if by.len() > GROUP_BY_MAX - usize::from(own) {
                    return Err(Invalid::Unsupported(format!("metrics group by {} values", by.len())));
                }
                if let OverTime::Quantile(_, quantiles) = function
                    && let Some(wrong) = quantiles.iter().find(|quantile| !(0.0..=1.0).contains(*quantile))
                {
                    return Err(Invalid::Quantile(wrong.to_string()));
                }
                by.iter().chain(function.field()).try_for_each(Field::check)
            }
            Self::Compare { selection, top, window } => {
                selection.check()?;
                if top.is_some_and(|top| !(1..=COMPARE_TOP_MAX).contains(&top)) {
                    return Err(Invalid::CompareTop(COMPARE_TOP_MAX));
                }
                match *window {
                    None | Some((0, 0)) => Ok(()),
                    Some((start, end)) if start <= 0 || end <= 0 => Err(Invalid::CompareTimes),
                    Some((start, end)) if end <= start => Err(Invalid::CompareOrder),
                    Some(_) => Ok(()),
                }
            }
        }
    }
}

impl Metrics {
    /// Second stages and what is computed with series.
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Series { .. } | Self::Constant(_) => Ok(()),
            Self::Staged { of, stages } => {
                of.check()?;
                stages.iter().try_for_each(|stage| match stage {
                    SecondStage::TopK(limit) | SecondStage::BottomK(limit) if *limit <= 0 => Err(Invalid::Limit),
                    SecondStage::TopK(_) | SecondStage::BottomK(_) | SecondStage::Filter(..) => Ok(()),
                })
            }
            Self::Binary { op, left, right } => {
                if matches!(op, Arithmetic::Modulo | Arithmetic::Power) {
                    return Err(Invalid::Unsupported(format!("{op} between series")));
                }
                left.check()?;
                right.check()
            }
        }
    }
}
