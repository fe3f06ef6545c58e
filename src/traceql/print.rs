//! Trees as text that parses back to the same tree.
//!
//! Like in Tempo, an operand that is an operation itself stands in parentheses whether it needs them or not: the texts are
//! in errors and in the labels of `by(...)`. Fields are printed as answers name them.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{
    Aggregate, Arithmetic, Attribute, Comparison, Expression, Field, FirstStage, Fold, Form, Hint, Intrinsic, Metrics,
    Operator, OverTime, Pipeline, Query, Relation, Root, Scalar, Scope, SecondStage, Spanset, SpansetOperator, Stage,
    Unary,
};
use super::lexer::ends_name;
use super::value::{Kind, Status, Value};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Search(pipeline) => write!(f, "{pipeline}")?,
            Root::Metrics(metrics) => write!(f, "{metrics}")?,
        }
        if !self.hints.is_empty() {
            f.write_str(" with(")?;
            list(f, &self.hints)?;
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl Display for Hint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, stage) in self.stages.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{stage}")?;
        }
        Ok(())
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spanset(set) => write!(f, "{set}"),
            Self::Filter { op, left, right } => write!(f, "{} {op} {}", Wrapped(left), Wrapped(right)),
            Self::By(by) => write!(f, "by({by})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(fields) => {
                f.write_str("select(")?;
                list(f, fields)?;
                f.write_str(")")
            }
        }
    }
}

impl Display for Spanset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spans(None) => f.write_str("{}"),
            Self::Spans(Some(filter)) => write!(f, "{{ {filter} }}"),
            Self::Binary { op, left, right } => write!(f, "{} {op} {}", Wrapped(&**left), Wrapped(&**right)),
            Self::Pipeline(pipeline) => write!(f, "({pipeline})"),
        }
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregate(aggregate) => write!(f, "{aggregate}"),
            Self::Literal(value) => write!(f, "{value}"),
            Self::Binary { op, left, right } => write!(f, "{} {op} {}", Wrapped(&**left), Wrapped(&**right)),
            Self::Pipeline { pipeline, aggregate } => write!(f, "({pipeline} | {aggregate})"),
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count()"),
            Self::Of(fold, of) => write!(f, "{fold}({of})"),
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => write!(f, "{value}"),
            Self::Pattern(pattern) => write!(f, "{}", Value::String(pattern.text().clone())),
            Self::Field(field) => write!(f, "{field}"),
            Self::Binary { op, left, right } => {
                // A minus sign in front takes what binds tighter than `+`.
                let takes_more =
                    matches!(op, Operator::Arithmetic(op) if !matches!(op, Arithmetic::Add | Arithmetic::Subtract));
                if takes_more && is_negative(left) {
                    write!(f, "({left}) {op} {}", Wrapped(&**right))
                } else {
                    write!(f, "{} {op} {}", Wrapped(&**left), Wrapped(&**right))
                }
            }
            Self::Unary { op, operand } => write!(f, "{op}{}", Wrapped(&**operand)),
            Self::Exists { operand, exists } => {
                write!(f, "{} {} nil", Wrapped(&**operand), if *exists { "!=" } else { "=" })
            }
        }
    }
}

impl Display for Metrics {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series { pipeline, first } => write!(f, "{pipeline} | {first}"),
            Self::Staged { of, stages } => {
                write!(f, "{of}")?;
                stages.iter().try_for_each(|stage| match stage {
                    SecondStage::TopK(limit) => write!(f, " | topk({limit})"),
                    SecondStage::BottomK(limit) => write!(f, " | bottomk({limit})"),
                    SecondStage::Filter(op, value) => write!(f, " {op} {value}"),
                })
            }
            Self::Binary { op, left, right } => write!(f, "{} {op} {}", Wrapped(&**left), Wrapped(&**right)),
            Self::Constant(value) => write!(f, "{value}"),
        }
    }
}

impl Display for FirstStage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over { function, by } => {
                write!(f, "{function}")?;
                if !by.is_empty() {
                    f.write_str(" by(")?;
                    list(f, by)?;
                    f.write_str(")")?;
                }
                Ok(())
            }
            Self::Compare { selection, top, window } => {
                write!(f, "compare({selection}")?;
                if let Some(top) = top {
                    write!(f, ", {top}")?;
                }
                if let Some((start, end)) = window {
                    write!(f, ", {start}, {end}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl OverTime {
    /// Its name in queries, which is also the name of its series.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Count => "count_over_time",
            Self::Min(_) => "min_over_time",
            Self::Max(_) => "max_over_time",
            Self::Avg(_) => "avg_over_time",
            Self::Sum(_) => "sum_over_time",
            Self::Histogram(_) => "histogram_over_time",
            Self::Quantile(..) => "quantile_over_time",
        }
    }
}

impl Display for OverTime {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name())?;
        if let Some(field) = self.field() {
            write!(f, "{field}")?;
        }
        if let Self::Quantile(_, quantiles) = self {
            quantiles.iter().try_for_each(|quantile| write!(f, ", {}", Value::Float(*quantile)))?;
        }
        f.write_str(")")
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => write!(f, "{attribute}"),
            Self::Intrinsic(intrinsic) => write!(f, "{intrinsic}"),
        }
    }
}

impl Display for Intrinsic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.of_parent {
            f.write_str("parent.")?;
        }
        match self.scope {
            Some(scope) => write!(f, "{scope}.")?,
            None if !self.of_parent => f.write_char('.')?,
            None => {}
        }
        let name = self.name.as_str();
        let bare = self.scope.is_none();
        let quoted = name.is_empty()
            || name.contains(|next| ends_name(next) || next == '"')
            // `.5x` would be a number, `parent.span.x` an attribute of the parent's span.
            || (bare && name.starts_with(|next: char| next.is_ascii_digit()))
            || (bare && self.of_parent && (name.starts_with("span.") || name.starts_with("resource.")));
        if !quoted {
            return f.write_str(name);
        }
        f.write_char('"')?;
        for next in name.chars() {
            if matches!(next, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(next)?;
        }
        f.write_char('"')
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(string) => write_string(f, string),
            // Its digits alone would be out of range.
            Self::Int(i64::MIN) => f.write_str("minInt"),
            Self::Int(int) => write!(f, "{int}"),
            Self::Float(float) => write_float(f, *float),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Duration(duration) => write_duration(f, *duration),
            Self::Status(status) => write!(f, "{status}"),
            Self::Kind(kind) => write!(f, "{kind}"),
            Self::Array(values) => {
                f.write_str("[")?;
                list(f, values)?;
                f.write_str("]")
            }
        }
    }
}

fn write_string(f: &mut Formatter<'_>, string: &str) -> fmt::Result {
    // Back quotes as in Tempo, where they can hold the string.
    if !string.contains(|next: char| next == '`' || next.is_control()) {
        return write!(f, "`{string}`");
    }
    f.write_char('"')?;
    for next in string.chars() {
        match next {
            '"' | '\\' => write!(f, "\\{next}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            other if other.is_control() => write!(f, "\\u{:04x}", u32::from(other))?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

/// Always with a point or an exponent: it is no integer.
fn write_float(f: &mut Formatter<'_>, float: f64) -> fmt::Result {
    let size = float.abs();
    if size >= 1e21 || (size < 1e-4 && size > 0.0) {
        return write!(f, "{float:e}");
    }
    if float.fract() == 0.0 { write!(f, "{float:.1}") } else { write!(f, "{float}") }
}

/// As Go writes it: `1m30s`, `1.5s`, `100µs`.
fn write_duration(f: &mut Formatter<'_>, duration: i64) -> fmt::Result {
    if duration < 0 {
        f.write_char('-')?;
    }
    let nanoseconds = duration.unsigned_abs();
    let (unit, size) = match nanoseconds {
        0 => return f.write_str("0s"),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (whole, rest) = (nanoseconds / size, nanoseconds % size);
    let mut seconds = whole;
    if unit == "s" {
        let minutes = whole / 60;
        seconds = whole % 60;
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
    }
    write!(f, "{seconds}")?;
    if rest > 0 {
        let digits = size.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        write!(f, ".{}", fraction.trim_end_matches('0'))?;
    }
    f.write_str(unit)
}

/// An operand: in parentheses where it is an operation.
struct Wrapped<T>(T);

trait Operand: Display {
    fn stands_alone(&self) -> bool;
}

impl<T: Operand> Display for Wrapped<&T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.stands_alone() { write!(f, "{}", self.0) } else { write!(f, "({})", self.0) }
    }
}

impl Operand for Expression {
    fn stands_alone(&self) -> bool {
        matches!(self, Self::Literal(_) | Self::Pattern(_) | Self::Field(_))
    }
}

impl Operand for Scalar {
    fn stands_alone(&self) -> bool {
        !matches!(self, Self::Binary { .. })
    }
}

impl Operand for Spanset {
    fn stands_alone(&self) -> bool {
        !matches!(self, Self::Binary { .. })
    }
}

impl Operand for Metrics {
    fn stands_alone(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

fn is_negative(expression: &Expression) -> bool {
    match expression {
        Expression::Literal(Value::Int(int)) => *int < 0 && *int != i64::MIN,
        Expression::Literal(Value::Float(float)) => float.is_sign_negative(),
        Expression::Literal(Value::Duration(duration)) => *duration < 0,
        _ => false,
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(index, item)| {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write!(f, "{item}")
    })
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arithmetic(op) => write!(f, "{op}"),
            Self::Comparison(op) => write!(f, "{op}"),
            Self::Matches => f.write_str("=~"),
            Self::MatchesNot => f.write_str("!~"),
            Self::And => f.write_str("&&"),
            Self::Or => f.write_str("||"),
        }
    }
}

impl Display for SpansetOperator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And => f.write_str("&&"),
            Self::Or => f.write_str("||"),
            Self::Structural { relation, form } => {
                f.write_str(match form {
                    Form::Plain => "",
                    Form::Negated => "!",
                    Form::Union => "&",
                })?;
                f.write_str(match relation {
                    Relation::Child => ">",
                    Relation::Parent => "<",
                    Relation::Descendant => ">>",
                    Relation::Ancestor => "<<",
                    Relation::Sibling => "~",
                })
            }
        }
    }
}

/// Types that are written as one fixed text per value.
macro_rules! display {
    ($($type:ty { $($value:ident => $text:expr,)* })*) => {$(
        impl Display for $type {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$value => $text,)* })
            }
        }
    )*};
}

display! {
    Arithmetic { Add => "+", Subtract => "-", Multiply => "*", Divide => "/", Modulo => "%", Power => "^", }
    Comparison {
        Equal => "=", NotEqual => "!=", Less => "<", LessOrEqual => "<=", Greater => ">", GreaterOrEqual => ">=",
    }
    Unary { Not => "!", Negate => "-", }
    Fold { Min => "min", Max => "max", Avg => "avg", Sum => "sum", }
}

impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
