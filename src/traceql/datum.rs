//! Values while they are computed with, and how they compare.

use std::cmp::Ordering;
use std::sync::Arc;

use super::ast::{Arithmetic, Comparison};
use super::value::{Kind, Status, Value};

/// A value of one span, borrowed from a dictionary where that is possible.
#[derive(Debug, Clone)]
pub enum Datum<'a> {
    String(Text<'a>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    Status(Status),
    Kind(Kind),
    /// An array of one attribute.
    Array(Arc<[Value]>),
    /// What several events or links have: a condition holds if it holds for one of them.
    Many(Arc<[Value]>),
}

#[derive(Debug, Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

/// One value that is no array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    String(&'a str),
    Int(i64),
    Float(f64),
    Bool(bool),
    Duration(i64),
    Status(Status),
    Kind(Kind),
}

impl Text<'_> {
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Datum<'a> {
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    /// A value, borrowed where that saves a copy.
    #[must_use]
    pub fn borrowed(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            other => other.clone().into(),
        }
    }

    /// The value if there is one of it; of several the first.
    #[must_use]
    pub fn into_value(self) -> Option<Value> {
        Some(match self {
            Self::String(Text::Borrowed(text)) => Value::String(text.into()),
            Self::String(Text::Shared(text)) => Value::String(text),
            Self::Int(int) => Value::Int(int),
            Self::Float(float) => Value::Float(float),
            Self::Bool(bool) => Value::Bool(bool),
            Self::Duration(duration) => Value::Duration(duration),
            Self::Status(status) => Value::Status(status),
            Self::Kind(kind) => Value::Kind(kind),
            Self::Array(values) => Value::Array(values),
            Self::Many(values) => values.first()?.clone(),
        })
    }

    /// `None` for arrays and values of several events.
    fn scalar(&self) -> Option<Scalar<'_>> {
        Some(match self {
            Self::String(text) => Scalar::String(text.as_str()),
            Self::Int(int) => Scalar::Int(*int),
            Self::Float(float) => Scalar::Float(*float),
            Self::Bool(bool) => Scalar::Bool(*bool),
            Self::Duration(duration) => Scalar::Duration(*duration),
            Self::Status(status) => Scalar::Status(*status),
            Self::Kind(kind) => Scalar::Kind(*kind),
            Self::Array(_) | Self::Many(_) => return None,
        })
    }

    /// Whether it is true: the boolean, or one of several events' booleans.
    #[must_use]
    pub fn is(&self, expected: bool) -> bool {
        match self {
            Self::Bool(bool) => *bool == expected,
            Self::Many(values) => values.contains(&Value::Bool(expected)),
            _ => false,
        }
    }
}

impl From<Value> for Datum<'static> {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::String(Text::Shared(text)),
            Value::Int(int) => Self::Int(int),
            Value::Float(float) => Self::Float(float),
            Value::Bool(bool) => Self::Bool(bool),
            Value::Duration(duration) => Self::Duration(duration),
            Value::Status(status) => Self::Status(status),
            Value::Kind(kind) => Self::Kind(kind),
            Value::Array(values) => Self::Array(values),
        }
    }
}

impl Scalar<'_> {
    /// `None` for what is no number.
    #[must_use]
    pub fn into_number(self) -> Option<Value> {
        match self {
            Self::Int(int) => Some(Value::Int(int)),
            Self::Duration(duration) => Some(Value::Duration(duration)),
            Self::Float(float) => Some(Value::Float(float)),
            _ => None,
        }
    }
}

impl<'a> Scalar<'a> {
    /// `None` for arrays.
    #[must_use]
    pub fn of(value: &'a Value) -> Option<Self> {
        Some(match value {
            Value::String(text) => Self::String(text),
            Value::Int(int) => Self::Int(*int),
            Value::Float(float) => Self::Float(*float),
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Duration(duration) => Self::Duration(*duration),
            Value::Status(status) => Self::Status(*status),
            Value::Kind(kind) => Self::Kind(*kind),
            Value::Array(_) => return None,
        })
    }
}

/// The order of two values of comparable types; `None` if they are not, or one is not a number.
fn order(left: Scalar<'_>, right: Scalar<'_>) -> Option<Ordering> {
    use Scalar::{Bool, Duration, Float, Int, Kind, Status, String};
    match (left, right) {
        (String(left), String(right)) => Some(left.cmp(right)),
        (Int(left) | Duration(left), Int(right) | Duration(right)) => Some(left.cmp(&right)),
        (Int(left) | Duration(left), Float(right)) => (left as f64).partial_cmp(&right),
        (Float(left), Int(right) | Duration(right)) => left.partial_cmp(&(right as f64)),
        (Float(left), Float(right)) => left.partial_cmp(&right),
        (Bool(left), Bool(right)) => Some(left.cmp(&right)),
        (Status(left), Status(right)) => Some(left.cmp(&right)),
        (Kind(left), Kind(right)) => Some(left.cmp(&right)),
        _ => None,
    }
}

/// Whether a comparison holds between two values; never between types that do not compare.
#[must_use]
pub fn scalars_compare(op: Comparison, left: Scalar<'_>, right: Scalar<'_>) -> bool {
    let unordered = matches!(left, Scalar::Bool(_) | Scalar::Status(_) | Scalar::Kind(_));
    let Some(order) = order(left, right) else {
        // A float that is not a number differs from every number, itself included.
        let numbers = is_number(left) && is_number(right);
        return numbers && op == Comparison::NotEqual;
    };
    match op {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        _ if unordered => false,
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

fn is_number(scalar: Scalar<'_>) -> bool {
    matches!(scalar, Scalar::Int(_) | Scalar::Float(_) | Scalar::Duration(_))
}

/// Whether a test of single values holds for an array: for all elements of it if the test is a negation, else for one.
pub fn elements_pass(values: &[Value], negation: bool, test: impl Fn(Scalar<'_>) -> bool) -> bool {
    let mut elements = values.iter().filter_map(Scalar::of);
    if negation { elements.all(test) } else { elements.any(test) }
}

/// Whether a comparison holds between what two expressions yield for a span. Two arrays do not compare.
#[must_use]
pub fn compare(op: Comparison, left: &Datum<'_>, right: &Datum<'_>) -> bool {
    let negation = op == Comparison::NotEqual;
    match (left, right) {
        (Datum::Many(values), right) => values.iter().any(|value| compare(op, &Datum::borrowed(value), right)),
        (left, Datum::Many(values)) => values.iter().any(|value| compare(op, left, &Datum::borrowed(value))),
        (Datum::Array(values), right) => {
            let Some(right) = right.scalar() else { return false };
            elements_pass(values, negation, |element| scalars_compare(op, element, right))
        }
        (left, Datum::Array(values)) => {
            let Some(left) = left.scalar() else { return false };
            elements_pass(values, negation, |element| scalars_compare(op, left, element))
        }
        (left, right) => match (left.scalar(), right.scalar()) {
            (Some(left), Some(right)) => scalars_compare(op, left, right),
            _ => false,
        },
    }
}

/// The result of an operation on two numbers. `None` for other types, and for a whole number divided by zero.
#[must_use]
pub fn calculate(op: Arithmetic, left: &Datum<'_>, right: &Datum<'_>) -> Option<Datum<'static>> {
    if let Datum::Many(values) = left {
        return several(values.iter().filter_map(|value| calculate(op, &Datum::borrowed(value), right)));
    }
    if let Datum::Many(values) = right {
        return several(values.iter().filter_map(|value| calculate(op, left, &Datum::borrowed(value))));
    }
    Some(match calculate_scalars(op, left.scalar()?, right.scalar()?)? {
        Scalar::Int(int) => Datum::Int(int),
        Scalar::Float(float) => Datum::Float(float),
        _ => return None,
    })
}

/// The same for single values.
#[must_use]
pub fn calculate_scalars(op: Arithmetic, left: Scalar<'_>, right: Scalar<'_>) -> Option<Scalar<'static>> {
    if let (Scalar::Int(left), Scalar::Int(right)) = (left, right) {
        return whole(op, left, right).map(Scalar::Int);
    }
    let (left, right) = (number(left)?, number(right)?);
    Some(Scalar::Float(match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Modulo => left % right,
        Arithmetic::Power => left.powf(right),
    }))
}

fn several(data: impl Iterator<Item = Datum<'static>>) -> Option<Datum<'static>> {
    let values: Arc<[Value]> = data.filter_map(Datum::into_value).collect();
    (!values.is_empty()).then_some(Datum::Many(values))
}

fn number(scalar: Scalar<'_>) -> Option<f64> {
    match scalar {
        Scalar::Int(int) | Scalar::Duration(int) => Some(int as f64),
        Scalar::Float(float) => Some(float),
        _ => None,
    }
}

fn whole(op: Arithmetic, left: i64, right: i64) -> Option<i64> {
    Some(match op {
        Arithmetic::Add => left.wrapping_add(right),
        Arithmetic::Subtract => left.wrapping_sub(right),
        Arithmetic::Multiply => left.wrapping_mul(right),
        Arithmetic::Divide if right == 0 => return None,
        Arithmetic::Divide => left.wrapping_div(right),
        Arithmetic::Modulo if right == 0 => return None,
        Arithmetic::Modulo => left.wrapping_rem(right),
        // Saturates beyond 64 bits, and a negative exponent gives a fraction, cut to 0.
        Arithmetic::Power => (left as f64).powf(right as f64) as i64,
    })
}

/// `None` for what is no number.
#[must_use]
pub fn negate(datum: Datum<'_>) -> Option<Datum<'static>> {
    Some(match datum {
        Datum::Int(int) => Datum::Int(int.wrapping_neg()),
        Datum::Float(float) => Datum::Float(-float),
        Datum::Duration(duration) => Datum::Duration(duration.wrapping_neg()),
        Datum::Many(values) => {
            return several(values.iter().filter_map(|value| negate(value.clone().into())));
        }
        _ => return None,
    })
}

/// A length of time as TraceQL has it; clients may send any.
pub(super) fn nanos(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Comparison; 6] = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];

    fn holding(left: impl Into<Value>, right: impl Into<Value>) -> Vec<Comparison> {
        let (left, right) = (Datum::from(left.into()), Datum::from(right.into()));
        ALL.into_iter().filter(|op| compare(*op, &left, &right)).collect()
    }

    #[test]
    fn numbers_compare_across_their_types() {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        assert_eq!(holding(2, 2.0), [Equal, LessOrEqual, GreaterOrEqual]);
        assert_eq!(holding(Value::Duration(5), 4), [NotEqual, Greater, GreaterOrEqual]);
        assert_eq!(holding(1.5, Value::Duration(2)), [NotEqual, Less, LessOrEqual]);
        assert_eq!(holding(f64::NAN, 1.0), [NotEqual]);
        assert_eq!(holding(i64::MAX, i64::MAX - 1), [NotEqual, Greater, GreaterOrEqual]);
    }

    #[test]
    fn other_types_never_compare() {
        assert_eq!(holding("1", 1), []);
        assert_eq!(holding(true, 1), []);
        assert_eq!(holding(Value::Status(Status::Error), "error"), []);
        assert_eq!(holding(["a"], ["a"]), []);
    }

    #[test]
    fn booleans_status_and_kind_have_no_order() {
        assert_eq!(holding(false, true), [Comparison::NotEqual]);
        assert_eq!(holding(Value::Status(Status::Error), Value::Status(Status::Error)), [Comparison::Equal]);
        assert_eq!(holding(Value::Kind(Kind::Client), Value::Kind(Kind::Server)), [Comparison::NotEqual]);
    }

    #[test]
    fn of_an_array_one_element_is_enough_but_all_must_differ() {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        assert_eq!(holding(["a", "b"], "b"), [Equal, Less, LessOrEqual, GreaterOrEqual]);
        assert_eq!(holding(["a", "b"], "c"), [NotEqual, Less, LessOrEqual]);
        assert_eq!(holding(2, [1, 3]), [NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
        assert_eq!(holding(["a"], 1), []);
    }

    #[test]
    fn of_several_events_one_is_enough() {
        let many = Datum::Many(Arc::from([Value::from("a"), Value::from(["b", "c"])]));
        assert!(compare(Comparison::NotEqual, &many, &Datum::text("a")));
        assert!(compare(Comparison::Equal, &Datum::text("c"), &many));
        assert!(!compare(Comparison::Equal, &many, &Datum::text("d")));
    }

    #[test]
    fn whole_numbers_stay_whole_and_division_by_zero_yields_nothing() {
        let int = |op, left, right| match calculate(op, &Datum::Int(left), &Datum::Int(right)) {
            Some(Datum::Int(int)) => Some(int),
            other => {
                assert!(other.is_none(), "{other:?}");
                None
            }
        };
        assert_eq!(int(Arithmetic::Divide, 7, 2), Some(3));
        assert_eq!(int(Arithmetic::Modulo, -7, 2), Some(-1));
        assert_eq!(int(Arithmetic::Power, 2, 3), Some(8));
        assert_eq!(int(Arithmetic::Divide, 7, 0), None);
        assert_eq!(int(Arithmetic::Modulo, 7, 0), None);
        let mixed = calculate(Arithmetic::Divide, &Datum::Duration(3), &Datum::Int(2));
        assert!(matches!(mixed, Some(Datum::Float(half)) if half == 1.5));
        assert!(calculate(Arithmetic::Add, &Datum::text("1"), &Datum::Int(2)).is_none());
    }
}
