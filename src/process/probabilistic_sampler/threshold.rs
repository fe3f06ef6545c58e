//! Numbers of consistent probability sampling: 56 bits of randomness, and the threshold from which on they are kept.

/// Hexadecimal digits of either number.
pub const DIGITS_MAX: u32 = 14;
/// One more than the largest randomness.
const RANGE: u64 = 1 << 56;
/// The smallest share that can be expressed.
pub const PROBABILITY_MIN: f64 = 1.0 / RANGE as f64;

/// Spans whose randomness is not below it are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

/// 56 random bits that all spans of a trace share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Randomness(u64);

impl Threshold {
    pub const ALWAYS: Self = Self(0);
    pub const NEVER: Self = Self(RANGE);

    /// A threshold whose highest 14 bits are given.
    pub fn from_top_bits(bits: u32) -> Self {
        Self((u64::from(bits) << 42).min(RANGE))
    }

    /// The threshold of a share, rounded to `precision` hexadecimal digits after leading `0`s or `f`s, where digits say
    /// little. `None`: the share cannot be expressed.
    pub fn of(probability: f64, precision: u32) -> Option<Self> {
        if !(PROBABILITY_MIN..=1.0).contains(&probability) {
            return None;
        }
        if probability == 1.0 {
            return Some(Self::ALWAYS);
        }
        let leading = leading_digits(probability).max(leading_digits(1.0 - probability));
        let precision = (precision + leading).min(DIGITS_MAX);
        let exact = RANGE - (probability * RANGE as f64).round() as u64;
        let shift = 4 * (DIGITS_MAX - precision);
        let half = if shift == 0 { 0 } else { 1u64 << (shift - 1) };
        Some(Self((exact + half) >> shift << shift))
    }

    pub fn probability(self) -> f64 {
        (RANGE - self.0) as f64 / RANGE as f64
    }

    pub fn keeps(self, randomness: Randomness) -> bool {
        self.0 <= randomness.0
    }

    /// Hexadecimal digits without trailing zeros. `None`: no digits, or more than fit.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = u32::try_from(text.len()).ok().filter(|digits| (1..=DIGITS_MAX).contains(digits))?;
        Some(Self(hex(text)? << (4 * (DIGITS_MAX - digits))))
    }

    /// As [`Threshold::parse`] reads it; empty for [`Threshold::NEVER`], which is not written.
    pub fn text(self) -> String {
        match self {
            Self::ALWAYS => "0".to_owned(),
            Self::NEVER => String::new(),
            Self(bits) => format!("{bits:014x}").trim_end_matches('0').to_owned(),
        }
    }
}

impl Randomness {
    pub const MAX: Self = Self(RANGE - 1);

    pub fn from_bits(bits: u64) -> Self {
        Self(bits & Self::MAX.0)
    }

    /// The last 56 bits of a trace id, which W3C's specification wants to be random.
    pub fn of_trace(trace_id: &[u8]) -> Self {
        Self::from_bits(trace_id.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
    }

    /// Exactly 14 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == DIGITS_MAX as usize).then(|| hex(text).map(Self))?
    }

    pub fn text(self) -> String {
        format!("{:014x}", self.0)
    }
}

/// Digits of either case, no sign.
fn hex(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

/// How many hexadecimal digits of a fraction are zero after the point.
fn leading_digits(fraction: f64) -> u32 {
    /// Of the exponent that makes a mantissa from 0.5 to 1.
    const EXPONENT_BIAS: i32 = 1022;
    let exponent = ((fraction.to_bits() >> 52) & 0x7ff) as i32 - EXPONENT_BIAS;
    u32::try_from(exponent / -4).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_have_the_thresholds_of_the_specification() {
        let text = |share, precision| Threshold::of(share, precision).unwrap().text();
        assert_eq!(text(1.0, 4), "0");
        assert_eq!(text(0.5, 4), "8");
        assert_eq!(text(0.25, 4), "c");
        assert_eq!(text(0.1, 4), "e666");
        assert_eq!(text(0.01, 4), "fd70a");
        assert_eq!(text(1.0 / 3.0, 14), "aaaaaaaaaaaaac");
        assert_eq!(text(PROBABILITY_MIN, 4), "ffffffffffffff");
        assert_eq!(Threshold::of(PROBABILITY_MIN / 2.0, 4), None);
        assert_eq!(Threshold::of(f64::NAN, 4), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits in 0..RANGE) {
            prop_assert_eq!(Threshold::parse(&Threshold(bits).text()), Some(Threshold(bits)));
            prop_assert_eq!(Randomness::parse(&Randomness(bits).text()), Some(Randomness(bits)));
        }

        #[test]
        fn any_share_has_a_threshold_that_says_about_the_same(share in PROBABILITY_MIN..1.0, precision in 1..=DIGITS_MAX) {
            let threshold = Threshold::of(share, precision).unwrap();
            prop_assert!(threshold < Threshold::NEVER);
            let error = (threshold.probability() - share).abs();
            prop_assert!(error <= share / 2.0 + PROBABILITY_MIN, "{} for {}", threshold.probability(), share);
        }
    }
}
