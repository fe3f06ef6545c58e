//! What is done with series: the best of them, filters, arithmetic.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::lines::{Labels, Line, NAME_LABEL};
use crate::traceql::ast::{Arithmetic, Comparison};
use crate::traceql::keys::write_key;
use crate::traceql::value::Value;

/// The `limit` greatest (or least) numbers of each interval; the others go, and with them series that have none left.
#[must_use]
pub fn best(mut lines: Vec<Line>, limit: usize, greatest: bool) -> Vec<Line> {
    if lines.len() <= limit {
        return lines;
    }
    // Of equal numbers that of the series first in this order stays.
    lines.sort_by(|left, right| {
        let order = tie_order(&left.labels, &right.labels);
        if greatest { order } else { order.reverse() }
    });
    let intervals = lines.iter().map(|line| line.numbers.len()).max().unwrap_or(0);
    let mut ranked: Vec<(f64, usize)> = Vec::with_capacity(lines.len());
    for interval in 0..intervals {
        ranked.clear();
        let numbers = lines.iter().enumerate().filter_map(|(index, line)| Some((*line.numbers.get(interval)?, index)));
        ranked.extend(numbers.filter(|(number, _)| !number.is_nan()));
        // Stable: equal numbers stay in the order of the series.
        ranked.sort_by(|(left, _), (right, _)| {
            let order = left.partial_cmp(right).unwrap_or(Ordering::Equal);
            if greatest { order.reverse() } else { order }
        });
        for (_, index) in ranked.iter().skip(limit) {
            if let Some(number) = lines.get_mut(*index).and_then(|line| line.numbers.get_mut(interval)) {
                *number = f64::NAN;
            }
        }
    }
    lines.retain(|line| line.numbers.iter().any(|number| !number.is_nan()));
    lines
}

/// Keeps the numbers for which the comparison holds, and the series that have such.
#[must_use]
pub fn filter(mut lines: Vec<Line>, op: Comparison, limit: f64) -> Vec<Line> {
    let holds = |number: f64| match op {
        Comparison::Equal => number == limit,
        Comparison::NotEqual => number != limit,
        Comparison::Less => number < limit,
        Comparison::LessOrEqual => number <= limit,
        Comparison::Greater => number > limit,
        Comparison::GreaterOrEqual => number >= limit,
    };
    for line in &mut lines {
        for number in &mut line.numbers {
            if number.is_nan() || !holds(*number) {
                *number = f64::NAN;
            }
        }
        line.exemplars.retain(|mark| mark.value.is_nan() || holds(mark.value));
    }
    lines.retain(|line| line.numbers.iter().any(|number| !number.is_nan()));
    lines
}

/// Each number of the series, and a constant.
#[must_use]
pub fn scale(mut lines: Vec<Line>, apply: impl Fn(f64) -> f64) -> Vec<Line> {
    for line in &mut lines {
        line.numbers.iter_mut().for_each(|number| *number = apply(*number));
        line.exemplars.iter_mut().for_each(|mark| mark.value = apply(mark.value));
    }
    lines
}

/// Joins series with equal labels. The one series of a side that has no labels goes with each of the other side.
#[must_use]
pub fn join(op: Arithmetic, left: &[Line], right: &[Line]) -> Vec<Line> {
    let (lefts, rights) = (by_labels(left), by_labels(right));
    let unlabelled: &[u8] = &[];
    let target = if rights.contains_key(unlabelled) { left } else { right };
    let joined = target.iter().filter_map(|line| {
        let key = key(&line.labels);
        let find = |lines: &HashMap<Box<[u8]>, usize>, side: &[Line]| {
            let exact = lines.get(&key[..]).map(|index| (*index, true));
            let (index, exact) = exact.or_else(|| lines.get(unlabelled).map(|index| (*index, false)))?;
            side.get(index).cloned().map(|line| (line, exact))
        };
        let ((left, left_exact), (right, right_exact)) = (find(&lefts, left)?, find(&rights, right)?);
        let numbers = left.numbers.iter().zip(&right.numbers).map(|(left, right)| apply(op, *left, *right)).collect();
        let labels = join_labels(op, left.labels, right.labels);
        let mut exemplars = if left_exact || !right_exact { left.exemplars } else { Vec::new() };
        if right_exact || !left_exact {
            exemplars.extend(right.exemplars);
        }
        Some(Line { labels, numbers, exemplars })
    });
    joined.collect()
}

/// NaN where there is no result.
#[must_use]
pub fn apply(op: Arithmetic, left: f64, right: f64) -> f64 {
    match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide if right == 0.0 => f64::NAN,
        Arithmetic::Divide => left / right,
        // The grammar has no others between series.
        Arithmetic::Modulo | Arithmetic::Power => f64::NAN,
    }
}

/// Labels that both sides have once; of two names of functions one.
fn join_labels(op: Arithmetic, left: Labels, right: Labels) -> Labels {
    let name_of = |labels: &Labels| {
        labels.iter().find_map(|(name, value)| match value {
            Some(Value::String(value)) if name == NAME_LABEL => Some(value.clone()),
            _ => None,
        })
    };
    let name = name_of(&left).zip(name_of(&right)).map(|(left, right)| format!("({left} {op} {right})"));
    let mut joined = Labels::new();
    for (label, value) in left.into_iter().chain(right) {
        if label != NAME_LABEL && joined.iter().all(|(known, _)| *known != label) {
            joined.push((label, value));
        }
    }
    if let Some(name) = name {
        joined.insert(0, (NAME_LABEL.into(), Some(Value::String(name.into()))));
    }
    joined
}

fn by_labels(lines: &[Line]) -> HashMap<Box<[u8]>, usize> {
    lines.iter().enumerate().map(|(index, line)| (key(&line.labels).into(), index)).collect()
}

/// All labels but the name of the function.
fn key(labels: &Labels) -> Vec<u8> {
    let mut key = Vec::new();
    for (name, value) in labels.iter().filter(|(name, _)| name != NAME_LABEL) {
        key.extend_from_slice(&(name.len() as u32).to_le_bytes());
        key.extend_from_slice(name.as_bytes());
        write_key(value.as_ref(), &mut key);
    }
    key
}

/// Which of two series with one number Tempo keeps: strings and names in their order, other values the greater first.
fn tie_order(left: &Labels, right: &Labels) -> Ordering {
    let parts = |labels: &Labels, index: usize| {
        let label = labels.iter().filter(|(name, _)| name != NAME_LABEL).nth(index);
        label.map_or((String::new(), String::new(), (0, 0)), |(name, value)| {
            (tie_text(value.as_ref()), name.clone(), tie_code(value.as_ref()))
        })
    };
    (0..left.len().max(right.len()))
        .map(|index| {
            let (left_text, left_name, left_code) = parts(left, index);
            let (right_text, right_name, right_code) = parts(right, index);
            left_text.cmp(&right_text).then_with(|| left_name.cmp(&right_name)).then_with(|| right_code.cmp(&left_code))
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Status, kind, durations and nil are strings by then, as they are in answers.
fn tie_text(value: Option<&Value>) -> String {
    match value {
        None => "nil".to_owned(),
        Some(Value::String(text)) => text.to_string(),
        Some(value @ (Value::Status(_) | Value::Kind(_) | Value::Duration(_))) => value.to_string(),
        Some(_) => String::new(),
    }
}

fn tie_code(value: Option<&Value>) -> (u8, u64) {
    match value {
        Some(Value::Int(int)) => (1, *int as u64),
        Some(Value::Float(float)) => (2, float.to_bits()),
        Some(Value::String(_) | Value::Status(_) | Value::Kind(_) | Value::Duration(_)) | None => (3, 0),
        Some(Value::Bool(bool)) => (4, u64::from(*bool)),
        Some(Value::Array(_)) => (5, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceql::value::Status;

    const NIL: f64 = f64::NAN;

    fn line(labels: &[(&str, &str)], numbers: &[f64]) -> Line {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), Some(Value::String((*value).into()))));
        Line { labels: labels.collect(), numbers: numbers.to_vec(), exemplars: Vec::new() }
    }

    /// The value of the first label, and the numbers.
    fn shown(lines: &[Line]) -> Vec<String> {
        let mut shown: Vec<String> = lines
            .iter()
            .map(|line| {
                let label = match line.labels.first() {
                    Some((_, Some(Value::String(text)))) => text.to_string(),
                    other => format!("{other:?}"),
                };
                format!("{label} {:?}", line.numbers)
            })
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn the_best_are_chosen_for_each_interval_on_its_own() {
        let lines = || {
            vec![
                line(&[("x", "a")], &[1.0, 9.0, NIL]),
                line(&[("x", "b")], &[2.0, 8.0, 1.0]),
                line(&[("x", "c")], &[3.0, 7.0, NIL]),
            ]
        };
        assert_eq!(shown(&best(lines(), 1, true)), ["a [NaN, 9.0, NaN]", "b [NaN, NaN, 1.0]", "c [3.0, NaN, NaN]"]);
        assert_eq!(shown(&best(lines(), 1, false)), ["a [1.0, NaN, NaN]", "b [NaN, NaN, 1.0]", "c [NaN, 7.0, NaN]"]);
        assert_eq!(shown(&best(lines(), 3, true)), shown(&lines()));
    }

    #[test]
    fn of_equal_numbers_topk_keeps_the_first_label_and_bottomk_the_last() {
        let lines = || ["b", "c", "a"].map(|label| line(&[("x", label)], &[5.0])).to_vec();
        assert_eq!(shown(&best(lines(), 2, true)), ["a [5.0]", "b [5.0]"]);
        assert_eq!(shown(&best(lines(), 2, false)), ["b [5.0]", "c [5.0]"]);
    }

    #[test]
    fn ties_between_numbers_go_to_the_greater_and_states_are_texts() {
        let of = |value: Value| Line { labels: vec![("x".into(), Some(value))], numbers: vec![1.0], exemplars: vec![] };
        let ints = || vec![of(Value::Int(1)), of(Value::Int(2))];
        assert_eq!(best(ints(), 1, true), [of(Value::Int(2))]);
        assert_eq!(best(ints(), 1, false), [of(Value::Int(1))]);
        let states = vec![of(Value::Status(Status::Unset)), of(Value::Status(Status::Error))];
        assert_eq!(best(states, 1, true), [of(Value::Status(Status::Error))]);
    }

    #[test]
    fn a_filter_drops_numbers_and_then_empty_series() {
        let lines = vec![line(&[("x", "a")], &[1.0, 5.0, NIL]), line(&[("x", "b")], &[1.0, 2.0, 3.0])];
        assert_eq!(shown(&filter(lines.clone(), Comparison::Greater, 3.0)), ["a [NaN, 5.0, NaN]"]);
        assert_eq!(shown(&filter(lines, Comparison::NotEqual, 1.0)), ["a [NaN, 5.0, NaN]", "b [NaN, 2.0, 3.0]"]);
    }

    #[test]
    fn series_with_equal_labels_are_joined_and_the_others_dropped() {
        let left = [line(&[("x", "a")], &[6.0, 1.0]), line(&[("x", "b")], &[1.0, 1.0])];
        let right = [line(&[("x", "a")], &[3.0, 0.0]), line(&[("x", "c")], &[1.0, 1.0])];
        assert_eq!(shown(&join(Arithmetic::Divide, &left, &right)), ["a [2.0, NaN]"]);
    }

    #[test]
    fn a_series_without_labels_goes_with_each_of_the_other_side() {
        let total = [line(&[(NAME_LABEL, "rate")], &[10.0])];
        let parts = [line(&[("x", "a")], &[1.0]), line(&[("x", "b")], &[4.0])];
        assert_eq!(shown(&join(Arithmetic::Divide, &parts, &total)), ["a [0.1]", "b [0.4]"]);
        assert_eq!(shown(&join(Arithmetic::Subtract, &total, &parts)), ["a [9.0]", "b [6.0]"]);
    }

    #[test]
    fn two_names_of_functions_become_one() {
        let (left, right) =
            ([line(&[(NAME_LABEL, "rate")], &[1.0])], [line(&[(NAME_LABEL, "count_over_time")], &[2.0])]);
        assert_eq!(shown(&join(Arithmetic::Add, &left, &right)), ["(rate + count_over_time) [3.0]"]);
    }

    #[test]
    fn division_by_zero_has_no_result() {
        assert!(apply(Arithmetic::Divide, 1.0, 0.0).is_nan());
        assert_eq!(apply(Arithmetic::Divide, 0.0, 2.0), 0.0);
    }
}
