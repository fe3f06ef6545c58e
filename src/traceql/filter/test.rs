//! A test of one value against something known when the query is read, and how it is decided once per distinct value.

use regex::Regex;

use super::codes::CodeSet;
use crate::traceql::ast::Comparison;
use crate::traceql::column::{Cell, Code, Dictionary, Entry};
use crate::traceql::datum::{self, Datum, Scalar, elements_pass, scalars_compare};
use crate::traceql::segment::{SKETCH_ANY, sketch};
use crate::traceql::value::Value;

#[derive(Debug, Clone)]
pub enum Test {
    /// With a value that is no array.
    Compare(Comparison, Value),
    Matches {
        regex: Regex,
        /// `!~`
        negated: bool,
    },
    /// It is this boolean.
    Is(bool),
    /// It is there.
    Exists,
}

fn matches(regex: &Regex, text: &str) -> bool {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
    regex.is_match(text)
}

#[cfg(test)]
thread_local! {
    /// How often a text was looked at by an expression on this thread.
    pub static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Test {
    /// Whether a value passes.
    #[must_use]
    pub fn passes(&self, value: &Datum<'_>) -> bool {
        match self {
            Self::Compare(op, literal) => datum::compare(*op, value, &Datum::borrowed(literal)),
            Self::Matches { .. } => match value {
                Datum::String(text) => self.passes_scalar(Scalar::String(text.as_str())),
                Datum::Array(values) => {
                    elements_pass(values, self.is_negation(), |element| self.passes_scalar(element))
                }
                Datum::Many(values) => values.iter().any(|value| self.passes_value(value)),
                _ => false,
            },
            Self::Is(expected) => value.is(*expected),
            Self::Exists => true,
        }
    }

    fn passes_cell(&self, cell: &Cell) -> bool {
        match cell {
            Cell::One(value) => self.passes_value(value),
            Cell::Many(values) => values.iter().any(|value| self.passes_value(value)),
        }
    }

    fn passes_value(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Is(_), Value::Array(_)) => false,
            (_, Value::Array(values)) => {
                elements_pass(values, self.is_negation(), |element| self.passes_scalar(element))
            }
            (_, value) => Scalar::of(value).is_some_and(|scalar| self.passes_scalar(scalar)),
        }
    }

    fn passes_scalar(&self, scalar: Scalar<'_>) -> bool {
        match (self, scalar) {
            (Self::Compare(op, literal), scalar) => {
                Scalar::of(literal).is_some_and(|literal| scalars_compare(*op, scalar, literal))
            }
            (Self::Matches { regex, negated }, Scalar::String(text)) => matches(regex, text) != *negated,
            (Self::Is(expected), Scalar::Bool(bool)) => bool == *expected,
            (Self::Exists, _) => true,
            _ => false,
        }
    }

    /// Of an array, all elements have to pass.
    fn is_negation(&self) -> bool {
        matches!(self, Self::Compare(Comparison::NotEqual, _) | Self::Matches { negated: true, .. })
    }

    /// The codes of the values that pass.
    #[must_use]
    pub fn codes(&self, dictionary: &Dictionary) -> CodeSet {
        let (strings, ints) = (dictionary.strings.len(), dictionary.ints.len());
        if matches!(self, Self::Exists) {
            return CodeSet::range(0, dictionary.len());
        }
        let mut set = CodeSet::default();
        match self {
            Self::Compare(op, Value::String(literal)) => {
                let below = partition(strings, |index| {
                    dictionary.strings.get(index).is_some_and(|string| string < literal.as_ref())
                });
                let equal = usize::from(dictionary.strings.get(below) == Some(literal));
                set.push_compared(*op, 0, strings, below, equal);
            }
            Self::Compare(op, literal @ (Value::Int(_) | Value::Duration(_) | Value::Float(_))) => {
                let holds = |op, index: usize| match (dictionary.ints.get(index), Scalar::of(literal)) {
                    (Some(int), Some(literal)) => scalars_compare(op, Scalar::Int(*int), literal),
                    _ => false,
                };
                if matches!(literal, Value::Float(float) if float.is_nan()) {
                    if *op == Comparison::NotEqual {
                        set.push(strings, strings + ints);
                    }
                } else {
                    let below = partition(ints, |index| holds(Comparison::Less, index));
                    let equal = partition(ints, |index| holds(Comparison::LessOrEqual, index)) - below;
                    set.push_compared(*op, strings, strings + ints, strings + below, equal);
                }
            }
            Self::Matches { regex, negated } => {
                for (index, string) in dictionary.strings.iter().enumerate() {
                    if matches(regex, string) != *negated {
                        set.push(index, index + 1);
                    }
                }
            }
            Self::Compare(..) | Self::Is(_) | Self::Exists => {}
        }
        for (index, other) in dictionary.others.iter().enumerate() {
            if self.passes_cell(other) {
                let place = strings + ints + index;
                set.push(place, place + 1);
            }
        }
        set
    }

    /// Whether the value of a code passes.
    #[must_use]
    pub fn passes_code(&self, dictionary: &Dictionary, code: Code) -> bool {
        match dictionary.get(code) {
            Some(Entry::String(string)) => self.passes_scalar(Scalar::String(string)),
            Some(Entry::Int(int)) => self.passes_scalar(Scalar::Int(int)),
            Some(Entry::Other(cell)) => self.passes_cell(cell),
            None => false,
        }
    }

    /// The sketch that values which pass must have, besides those that are sketched as anything.
    #[must_use]
    pub fn sketch(&self) -> Option<u16> {
        match self {
            Self::Compare(Comparison::Equal, Value::String(literal)) => Some(sketch(literal)),
            // Other values than strings are sketched as anything.
            Self::Compare(_, literal) if !matches!(literal, Value::String(_)) => Some(SKETCH_ANY),
            Self::Is(_) => Some(SKETCH_ANY),
            _ => None,
        }
    }
}

/// How many of `count` pass, if those that do come first.
fn partition(count: usize, passes: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if passes(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPERATORS: [Comparison; 6] = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[a-c]{0,2}".prop_map(|string| Value::from(string.as_str())),
            (-3_i64..4).prop_map(Value::Int),
            (-3_i64..4).prop_map(Value::Duration),
            (-6_i64..7).prop_map(|half| Value::Float(half as f64 / 2.0)),
            Just(Value::Float(f64::NAN)),
            any::<bool>().prop_map(Value::Bool),
        ]
    }

    fn test() -> impl Strategy<Value = Test> {
        prop_oneof![
            (0..OPERATORS.len(), value()).prop_map(|(op, value)| Test::Compare(OPERATORS[op], value)),
            ("a?b*|c", any::<bool>()).prop_map(|(regex, negated)| Test::Matches {
                regex: Regex::new(&format!("^(?s:{regex})$")).unwrap(),
                negated
            }),
            any::<bool>().prop_map(Test::Is),
            Just(Test::Exists),
        ]
    }

    fn dictionary() -> impl Strategy<Value = Dictionary> {
        let strings = proptest::collection::btree_set("[a-c]{0,2}", 0..6);
        let ints = proptest::collection::btree_set(-3_i64..4, 0..6);
        let others = proptest::collection::vec(
            prop_oneof![
                value()
                    .prop_filter("has a place of its own", |value| !matches!(value, Value::String(_) | Value::Int(_)))
                    .prop_map(Cell::One),
                proptest::collection::vec(value(), 0..3).prop_map(|values| Cell::One(Value::Array(values.into()))),
                proptest::collection::vec(value(), 1..3).prop_map(|values| Cell::Many(values.into())),
            ],
            0..4,
        );
        (strings, ints, others).prop_map(|(strings, ints, others)| {
            let mut dictionary = Dictionary { ints: ints.into_iter().collect(), others, ..Dictionary::default() };
            strings.iter().for_each(|string| dictionary.strings.push(string));
            dictionary
        })
    }

    proptest! {
        #[test]
        fn a_dictionary_gives_the_codes_of_the_values_that_pass(test in test(), dictionary in dictionary()) {
            let codes = test.codes(&dictionary);
            prop_assert!(!codes.contains(0));
            for (code, entry) in dictionary.iter() {
                let datum = match entry {
                    Entry::String(string) => Datum::text(string),
                    Entry::Int(int) => Datum::Int(int),
                    Entry::Other(Cell::One(value)) => value.clone().into(),
                    Entry::Other(Cell::Many(values)) => Datum::Many(values.clone()),
                };
                prop_assert_eq!(codes.contains(code), test.passes(&datum), "{:?}", entry);
                prop_assert_eq!(test.passes_code(&dictionary, code), test.passes(&datum), "{:?}", entry);
            }
        }
    }
}
