//! For how many spans one stands that a sampler let pass: what consistent sampling writes into `tracestate`.
//!
//! `ot=th:T` says that spans whose 56 random bits are below T were left out. So this one stands for `2^56 / (2^56 - T)`
//! spans, which is mostly no whole number: it is rounded by chance, so that sums come out right.

use std::hash::{BuildHasher as _, RandomState};

const BITS: u32 = 56;
const DIGITS: usize = BITS as usize / 4;
const ALL: u64 = 1 << BITS;

/// Counts spans of sampled traces for those that were left out.
#[derive(Debug)]
pub struct Extrapolation {
    /// Of a xorshift generator; never zero.
    state: u64,
}

impl Default for Extrapolation {
    fn default() -> Self {
        Self { state: RandomState::new().hash_one(0) | 1 }
    }
}

impl Extrapolation {
    /// How many spans one with this `tracestate` stands for; `None`: nothing is said, so for itself.
    pub fn count(&mut self, trace_state: &[u8]) -> Option<u64> {
        let passed = ALL - threshold(trace_state)?;
        let (whole, rest) = (ALL / passed, ALL % passed);
        Some(whole + u64::from(rest > 0 && self.random() % passed < rest))
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

/// The rejection threshold, below [`ALL`].
fn threshold(trace_state: &[u8]) -> Option<u64> {
    let member = trace_state.split(|byte| *byte == b',').find_map(|it| it.trim_ascii().strip_prefix(b"ot="))?;
    let digits = member.split(|byte| *byte == b';').find_map(|it| it.strip_prefix(b"th:"))?;
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let mut threshold = 0;
    for digit in digits {
        threshold = threshold << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    // Digits at the end are zeros that were left out.
    Some(threshold << (4 * (DIGITS - digits.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_stands_for_those_that_were_left_out() {
        let mut extrapolation = Extrapolation::default();
        for (state, expected) in [
            ("", None),
            ("vendor=x", None),
            ("ot=rv:abcdef01234567", None),
            ("ot=th:zz", None),
            ("ot=th:000000000000000", None),
            ("ot=th:0", Some(1)),
            ("ot=th:8", Some(2)),
            ("vendor=x, ot=rv:ffffffffffffff;th:c", Some(4)),
            ("ot=th:ffffffffffffff", Some(ALL)),
        ] {
            assert_eq!(extrapolation.count(state.as_bytes()), expected, "{state}");
        }
    }

    #[test]
    fn what_is_no_whole_number_comes_out_right_in_the_sum() {
        let mut extrapolation = Extrapolation::default();
        // Two of three pass: each stands for one and a half.
        let sum: u64 = (0..10_000).filter_map(|_| extrapolation.count(b"ot=th:55555555555555")).sum();
        // Six standard deviations.
        assert!((14_700..15_300).contains(&sum), "{sum}");
    }
}
