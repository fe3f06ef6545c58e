//! `min`, `max`, `avg` and `sum` over the spans of a spanset.

use crate::traceql::ast::{Comparison, Fold};
use crate::traceql::datum::{Datum, Scalar, scalars_compare};

/// Numbers while they are folded; everything else is left out.
#[derive(Debug, Default)]
pub struct Folded {
    count: u64,
    ints: u64,
    durations: u64,
    whole_sum: i64,
    sum: f64,
    least: Option<Scalar<'static>>,
    most: Option<Scalar<'static>>,
}

impl Folded {
    /// `None` is nil. Of the values of several events the first counts.
    pub fn add(&mut self, datum: Option<Datum<'_>>) {
        let number = match datum {
            Some(Datum::Int(int)) => Scalar::Int(int),
            Some(Datum::Duration(duration)) => Scalar::Duration(duration),
            Some(Datum::Float(float)) => Scalar::Float(float),
            Some(Datum::Many(values)) => return self.add(values.first().map(Datum::borrowed)),
            _ => return,
        };
        self.add_number(number);
    }

    /// Not for anything else than a number.
    #[inline]
    pub fn add_number(&mut self, number: Scalar<'static>) {
        self.count += 1;
        match number {
            Scalar::Int(whole) | Scalar::Duration(whole) => {
                self.ints += u64::from(matches!(number, Scalar::Int(_)));
                self.durations += u64::from(matches!(number, Scalar::Duration(_)));
                self.whole_sum = self.whole_sum.wrapping_add(whole);
                self.sum += whole as f64;
            }
            Scalar::Float(float) => self.sum += float,
            _ => {}
        }
        if self.least.is_none_or(|least| is_less(number, least)) {
            self.least = Some(number);
        }
        if self.most.is_none_or(|most| is_less(most, number)) {
            self.most = Some(number);
        }
    }

    /// `None` if there was no number. Numbers of one type give that type, but for the average of ints; of several, floats.
    #[must_use]
    pub fn value(&self, fold: Fold) -> Option<Scalar<'static>> {
        if self.count == 0 {
            return None;
        }
        match fold {
            Fold::Min => self.least,
            Fold::Max => self.most,
            Fold::Sum if self.ints == self.count => Some(Scalar::Int(self.whole_sum)),
            Fold::Sum if self.durations == self.count => Some(Scalar::Duration(self.whole_sum)),
            Fold::Sum => Some(Scalar::Float(self.sum)),
            Fold::Avg if self.durations == self.count => Some(Scalar::Duration(self.whole_sum / self.count as i64)),
            Fold::Avg => Some(Scalar::Float(self.sum / self.count as f64)),
        }
    }
}

#[inline]
fn is_less(left: Scalar<'_>, right: Scalar<'_>) -> bool {
    match (left, right) {
        // Nearly always: whole numbers.
        (Scalar::Int(left) | Scalar::Duration(left), Scalar::Int(right) | Scalar::Duration(right)) => left < right,
        _ => scalars_compare(Comparison::Less, left, right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceql::value::Value;

    fn folded(values: &[Value], fold: Fold) -> Option<Scalar<'static>> {
        let mut folded = Folded::default();
        folded.add(None);
        values.iter().for_each(|value| folded.add(Some(value.clone().into())));
        folded.value(fold)
    }

    #[test]
    fn numbers_of_one_type_keep_it() {
        let durations = [Value::Duration(1), Value::Duration(4)];
        assert_eq!(folded(&durations, Fold::Sum), Some(Scalar::Duration(5)));
        assert_eq!(folded(&durations, Fold::Avg), Some(Scalar::Duration(2)));
        assert_eq!(folded(&durations, Fold::Max), Some(Scalar::Duration(4)));
        let ints = [Value::Int(1), Value::Int(4)];
        assert_eq!(folded(&ints, Fold::Sum), Some(Scalar::Int(5)));
        assert_eq!(folded(&ints, Fold::Avg), Some(Scalar::Float(2.5)));
        assert_eq!(folded(&[Value::Int(1), Value::Float(0.5)], Fold::Sum), Some(Scalar::Float(1.5)));
        assert_eq!(folded(&[Value::Int(1), Value::Float(0.5)], Fold::Min), Some(Scalar::Float(0.5)));
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        assert_eq!(folded(&["a".into(), Value::Int(3)], Fold::Min), Some(Scalar::Int(3)));
        assert_eq!(folded(&["a".into(), true.into()], Fold::Sum), None);
    }
}
