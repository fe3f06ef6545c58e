//! A query as a tree. What the parser accepts it can hold; what makes sense of it is for validation to say.
//!
//! Precedence is in the shape of the tree, so parentheses are not kept; the printer puts every operand that is an operation
//! itself in parentheses.

use super::pattern::Pattern;
use super::value::Value;

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub root: Root,
    /// `with(name=value, ...)`, in the order written.
    pub hints: Vec<Hint>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Root {
    Search(Pipeline),
    Metrics(Metrics),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    pub name: String,
    pub value: Value,
}

/// Stages separated by `|`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Spanset(Spanset),
    /// `count() > 2`: keeps the spansets for which it holds.
    Filter {
        op: Comparison,
        left: Scalar,
        right: Scalar,
    },
    By(Expression),
    Coalesce,
    Select(Vec<Field>),
}

/// What yields spansets of a trace.
#[derive(Debug, Clone, PartialEq)]
pub enum Spanset {
    /// `{ expression }`; `{}` has none and takes every span.
    Spans(Option<Expression>),
    Binary {
        op: SpansetOperator,
        left: Box<Spanset>,
        right: Box<Spanset>,
    },
    /// A pipeline in parentheses, as an operand.
    Pipeline(Pipeline),
}

/// `&&`, `||`, or a relation between spans of the right side and spans of the left side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpansetOperator {
    And,
    Or,
    Structural { relation: Relation, form: Form },
}

/// How a span of the right side stands to one of the left side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `>`: it is its child.
    Child,
    /// `<`: it is its parent.
    Parent,
    /// `>>`
    Descendant,
    /// `<<`
    Ancestor,
    /// `~`
    Sibling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The spans of the right side that are in the relation.
    Plain,
    /// `!`: the spans of the right side that are not.
    Negated,
    /// `&`: the spans of both sides that are.
    Union,
}

/// A number per spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Aggregate(Aggregate),
    Literal(Value),
    Binary {
        op: Arithmetic,
        left: Box<Scalar>,
        right: Box<Scalar>,
    },
    /// `({...} | count())`: parsed, and refused by validation, as Tempo has it.
    Pipeline {
        pipeline: Pipeline,
        aggregate: Aggregate,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Aggregate {
    Count,
    Of(Fold, Expression),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fold {
    Min,
    Max,
    Avg,
    Sum,
}

/// An expression over one span.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Literal(Value),
    /// On the right of `=~` and `!~`.
    Pattern(Pattern),
    Field(Field),
    Binary {
        op: Operator,
        left: Box<Expression>,
        right: Box<Expression>,
    },
    Unary {
        op: Unary,
        operand: Box<Expression>,
    },
    /// `x = nil` (`exists: false`) or `x != nil` (`exists: true`).
    Exists {
        operand: Box<Expression>,
        exists: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Arithmetic(Arithmetic),
    Comparison(Comparison),
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
    And,
    Or,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `!`
    Not,
    /// `-`
    Negate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What can be asked of a span by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    Attribute(Attribute),
    Intrinsic(Intrinsic),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attribute {
    /// `None`: written `.name`, and looked for in all scopes, in the order of [`Scope::ALL`].
    pub scope: Option<Scope>,
    /// `parent.name`; refused by validation, as Tempo has it.
    pub of_parent: bool,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Span,
    Resource,
    Event,
    Link,
    Instrumentation,
}

impl Scope {
    pub const ALL: [Scope; 5] = [Self::Span, Self::Resource, Self::Event, Self::Link, Self::Instrumentation];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Span => "span",
            Self::Resource => "resource",
            Self::Event => "event",
            Self::Link => "link",
            Self::Instrumentation => "instrumentation",
        }
    }
}

/// Fields that every span has by its nature. `duration` and `span:duration` are the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    Duration,
    Name,
    Status,
    StatusMessage,
    Kind,
    ChildCount,
    SpanId,
    ParentId,
    TraceDuration,
    RootName,
    RootServiceName,
    TraceId,
    NestedSetLeft,
    NestedSetRight,
    NestedSetParent,
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,
    /// `parent`; refused by validation, as Tempo has it.
    Parent,
}

impl Intrinsic {
    /// The name that stands for it in answers and when a query is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Name => "name",
            Self::Status => "status",
            Self::StatusMessage => "statusMessage",
            Self::Kind => "kind",
            Self::ChildCount => "span:childCount",
            Self::SpanId => "span:id",
            Self::ParentId => "span:parentID",
            Self::TraceDuration => "traceDuration",
            Self::RootName => "rootName",
            Self::RootServiceName => "rootServiceName",
            Self::TraceId => "trace:id",
            Self::NestedSetLeft => "nestedSetLeft",
            Self::NestedSetRight => "nestedSetRight",
            Self::NestedSetParent => "nestedSetParent",
            Self::EventName => "event:name",
            Self::EventTimeSinceStart => "event:timeSinceStart",
            Self::LinkTraceId => "link:traceID",
            Self::LinkSpanId => "link:spanID",
            Self::InstrumentationName => "instrumentation:name",
            Self::InstrumentationVersion => "instrumentation:version",
            Self::Parent => "parent",
        }
    }
}

/// A metrics query, or an expression of several.
#[derive(Debug, Clone, PartialEq)]
pub enum Metrics {
    Series {
        pipeline: Pipeline,
        first: FirstStage,
    },
    /// Second stages behind a series or an expression, in order.
    Staged {
        of: Box<Metrics>,
        stages: Vec<SecondStage>,
    },
    Binary {
        op: Arithmetic,
        left: Box<Metrics>,
        right: Box<Metrics>,
    },
    Constant(Value),
}

/// What turns spans into series.
#[derive(Debug, Clone, PartialEq)]
pub enum FirstStage {
    Over {
        function: OverTime,
        by: Vec<Field>,
    },
    /// `compare({selection}, top, start, end)`
    Compare {
        selection: Spanset,
        top: Option<i64>,
        window: Option<(i64, i64)>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum OverTime {
    Rate,
    Count,
    Min(Field),
    Max(Field),
    Avg(Field),
    Sum(Field),
    Histogram(Field),
    Quantile(Field, Vec<f64>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum SecondStage {
    TopK(i64),
    BottomK(i64),
    Filter(Comparison, Value),
}
