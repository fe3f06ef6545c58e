//! How long questions took when they were asked last: whoever asks what takes long waits among its like.
//!
//! A dashboard asks the same questions again and again, and what a question costs cannot be told from its text.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::otlp::wire::Fields;

/// A question that takes as long is a long one.
const LONG_MIN: Duration = Duration::from_secs(1);

/// Questions that are remembered, the latest ones.
const KNOWN_MAX: usize = 256;

/// A query by its text, whatever its range. Two texts may share a number: then one waits longer than it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Short,
    Long,
}

/// What is remembered, the latest at the front.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    known: Mutex<VecDeque<(Question, Length)>>,
}

impl Question {
    /// One that nothing is remembered of.
    pub const UNKNOWN: Self = Self(0);

    pub fn of(text: impl AsRef<[u8]>) -> Self {
        Self(FixedState::default().hash_one(text.as_ref()) | 1)
    }

    /// The one whose text is this field of a message.
    pub fn of_message(message: &[u8], field: u32) -> Self {
        let text = Fields::new(message).map_while(Result::ok).find_map(|other| other.bytes(field));
        text.map_or(Self::UNKNOWN, Self::of)
    }
}

impl Lengths {
    pub fn of(&self, question: Question) -> Option<Length> {
        self.known().iter().find(|(known, _)| *known == question).map(|(_, length)| *length)
    }

    pub fn learn(&self, question: Question, took: Duration) {
        if question == Question::UNKNOWN {
            return;
        }
        let length = if took >= LONG_MIN { Length::Long } else { Length::Short };
        let mut known = self.known();
        known.retain(|(other, _)| *other != question);
        known.truncate(KNOWN_MAX - 1);
        known.push_front((question, length));
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<(Question, Length)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_counts_and_only_so_many_are_remembered() {
        let lengths = Lengths::default();
        let question = Question::of("{}");
        assert_eq!(lengths.of(question), None);
        lengths.learn(question, LONG_MIN);
        assert_eq!(lengths.of(question), Some(Length::Long));
        lengths.learn(question, LONG_MIN / 2);
        assert_eq!(lengths.of(question), Some(Length::Short));
        lengths.learn(Question::UNKNOWN, LONG_MIN);
        assert_eq!(lengths.of(Question::UNKNOWN), None);
        for number in 0..KNOWN_MAX {
            lengths.learn(Question::of(number.to_string()), LONG_MIN);
        }
        assert_eq!((lengths.of(question), lengths.known().len()), (None, KNOWN_MAX));
    }
}
