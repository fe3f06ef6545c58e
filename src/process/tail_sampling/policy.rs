//! Policies at work: from the facts of a whole trace to a decision.

use super::facts::{Facts, Question, Questions, Test};
use super::settings::{PolicySettings, Rule, TailSamplingSettings};
use crate::otlp::TraceId;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// What the Collector hashes in front of a trace id where nothing is configured.
const SALT_DEFAULT: &str = "default-hash-seed";

/// What became of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub is_kept: bool,
    /// The policy (its place in the settings) that settled it; `None` where none wanted the trace.
    pub policy: Option<usize>,
}

/// All policies of one `tail_sampling` processor. Those that limit rates remember what they let pass.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// With their places in the settings: those that drop, which are asked first, and the others.
    drops: Vec<(usize, Policy)>,
    policies: Vec<(usize, Policy)>,
    questions: Questions,
    sample_on_first_match: bool,
}

#[derive(Debug, Clone)]
enum Policy {
    Always,
    Latency {
        threshold_ms: i64,
        upper_threshold_ms: i64,
    },
    /// Whether a question was answered with yes.
    Answer {
        bit: u64,
        invert: bool,
    },
    SpanCount {
        min: u64,
        max: u64,
    },
    /// Of the hash of salt and trace id.
    Probabilistic {
        salt: Vec<u8>,
        threshold: u64,
    },
    Spans(Bucket),
    Bytes(Bucket),
    And(Vec<Policy>),
    Not(Box<Policy>),
    Composite {
        policies: Vec<(Policy, SpanRate)>,
    },
}

impl Sampler {
    pub fn new(settings: &TailSamplingSettings) -> Self {
        let mut questions = Questions::default();
        let policies = settings.policies.iter().map(|policy| Policy::new(policy, &mut questions));
        let is_drop =
            |place: usize| matches!(settings.policies.get(place), Some(PolicySettings { rule: Rule::Drop(_), .. }));
        let (drops, policies) = policies.enumerate().partition(|(place, _)| is_drop(*place));
        Self { drops, policies, questions, sample_on_first_match: settings.sample_on_first_match }
    }

    /// What its policies want to know about spans.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Decides about a whole trace. `arrived` (Unix nanoseconds) is when its first span came: rates are per second of
    /// arrival, so that a backlog that is decided at once passes as it would have passed in time.
    pub fn decide(&mut self, id: TraceId, facts: &Facts, arrived: u64) -> Decision {
        let drops = |(place, policy): &mut (usize, Policy)| policy.wants(id, facts, arrived).then_some(*place);
        if let Some(place) = self.drops.iter_mut().find_map(drops) {
            return Decision { is_kept: false, policy: Some(place) };
        }
        let mut first = None;
        for (place, policy) in &mut self.policies {
            if policy.wants(id, facts, arrived) {
                first.get_or_insert(*place);
                if self.sample_on_first_match {
                    break;
                }
            }
        }
        Decision { is_kept: first.is_some(), policy: first }
    }
}

impl Policy {
    fn new(settings: &PolicySettings, questions: &mut Questions) -> Self {
        let (question, invert) = match &settings.rule {
            Rule::AlwaysSample => return Self::Always,
            Rule::Latency { threshold_ms, upper_threshold_ms } => {
                return Self::Latency { threshold_ms: *threshold_ms, upper_threshold_ms: *upper_threshold_ms };
            }
            Rule::SpanCount { min, max } => return Self::SpanCount { min: *min, max: *max },
            Rule::Probabilistic { salt, percentage } => {
                let salt = if salt.is_empty() { SALT_DEFAULT } else { salt };
                return Self::Probabilistic { salt: salt.into(), threshold: threshold(percentage / 100.0) };
            }
            Rule::RateLimiting { spans_per_second, burst_capacity } => {
                return Self::Spans(Bucket::new(*spans_per_second, *burst_capacity));
            }
            Rule::BytesLimiting { bytes_per_second, burst_capacity } => {
                return Self::Bytes(Bucket::new(*bytes_per_second, *burst_capacity));
            }
            Rule::And(policies) | Rule::Drop(policies) => return Self::And(Self::all(policies, questions)),
            Rule::Not(policy) => return Self::Not(Box::new(Self::new(policy, questions))),
            Rule::Composite { spans_per_second, policies } => {
                let policies = policies.iter().map(|(policy, share)| {
                    let rate = SpanRate::new((*share).min(*spans_per_second));
                    (Self::new(policy, questions), rate)
                });
                return Self::Composite { policies: policies.collect() };
            }
            Rule::NumericAttribute { key, min, max, invert } => (attribute(key, Test::Between(*min, *max)), *invert),
            Rule::StringAttribute { key, values, regex, invert } => {
                (attribute(key, Questions::string_test(values, *regex)), *invert)
            }
            Rule::BooleanAttribute { key, value, invert } => (attribute(key, Test::Is(*value)), *invert),
            Rule::OttlCondition(condition) => (Question::Ottl(condition.clone()), false),
            Rule::StatusCode { codes } => (Question::StatusCode(codes.clone()), false),
            Rule::TraceState { key, values } => {
                let values = values.iter().filter(|value| !value.is_empty());
                let values = values.map(|value| value.clone().into_bytes()).collect();
                (Question::TraceState { key: key.clone().into_bytes(), values }, false)
            }
            Rule::TraceFlags => (Question::Sampled, false),
        };
        Self::Answer { bit: questions.add(question), invert }
    }

    fn all(policies: &[PolicySettings], questions: &mut Questions) -> Vec<Self> {
        policies.iter().map(|policy| Self::new(policy, questions)).collect()
    }

    fn wants(&mut self, id: TraceId, facts: &Facts, arrived: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Latency { threshold_ms, upper_threshold_ms } => {
                let duration_ms = facts.duration_ms();
                *threshold_ms < duration_ms && (*upper_threshold_ms == 0 || duration_ms <= *upper_threshold_ms)
            }
            Self::Answer { bit, invert } => (facts.answers & *bit != 0) != *invert,
            Self::SpanCount { min, max } => facts.spans >= *min && (*max == 0 || facts.spans <= *max),
            Self::Probabilistic { salt, threshold } => hash(salt, id) <= *threshold,
            Self::Spans(bucket) => bucket.take(facts.spans, arrived),
            Self::Bytes(bucket) => bucket.take(facts.bytes, arrived),
            // The first no settles it; those behind it, which may limit rates, are not asked.
            Self::And(policies) => policies.iter_mut().all(|policy| policy.wants(id, facts, arrived)),
            Self::Not(policy) => !policy.wants(id, facts, arrived),
            // The first that wants the trace settles it, also where its share is used up.
            Self::Composite { policies } => policies
                .iter_mut()
                .find_map(|(policy, rate)| policy.wants(id, facts, arrived).then(|| rate.take(facts.spans, arrived)))
                .unwrap_or(false),
        }
    }
}

fn attribute(key: &str, test: Test) -> Question {
    Question::Attribute { key: key.as_bytes().to_vec(), test }
}

/// Spans that a part of `composite` lets pass in a second. A trace that does not fit leaves its room to a smaller one.
#[derive(Debug, Clone)]
struct SpanRate {
    spans_per_second: u64,
    second: u64,
    passed: u64,
}

impl SpanRate {
    fn new(spans_per_second: u64) -> Self {
        Self { spans_per_second, second: 0, passed: 0 }
    }

    fn take(&mut self, spans: u64, arrived: u64) -> bool {
        let second = arrived / NANOS_PER_SECOND;
        if second != self.second {
            (self.second, self.passed) = (second, 0);
        }
        let passed = self.passed.saturating_add(spans);
        let fits = passed <= self.spans_per_second;
        if fits {
            self.passed = passed;
        }
        fits
    }
}

/// A bucket that fills with time and starts full.
#[derive(Debug, Clone)]
struct Bucket {
    per_second: u64,
    capacity: u64,
    level: u64,
    /// Unix nanoseconds; 0: nothing was taken yet.
    filled: u64,
}

impl Bucket {
    fn new(per_second: u64, capacity: u64) -> Self {
        Self { per_second, capacity, level: capacity, filled: 0 }
    }

    fn take(&mut self, wanted: u64, arrived: u64) -> bool {
        if self.filled == 0 {
            self.filled = arrived;
        }
        let since = u128::from(arrived.saturating_sub(self.filled));
        let gained = since * u128::from(self.per_second) / u128::from(NANOS_PER_SECOND);
        let level = u128::from(self.level) + gained;
        if level >= u128::from(self.capacity) {
            (self.level, self.filled) = (self.capacity, self.filled.max(arrived));
        } else if gained > 0 {
            // Less than one stays in the time that has passed.
            let time = (gained * u128::from(NANOS_PER_SECOND)).div_ceil(u128::from(self.per_second));
            self.level = u64::try_from(level).unwrap_or(self.capacity);
            self.filled = self.filled.saturating_add(u64::try_from(time).unwrap_or(u64::MAX));
        }
        let fits = wanted <= self.level;
        if fits {
            self.level -= wanted;
        }
        fits
    }
}

/// FNV-1a, 64 bits, of the salt and the id: the Collector's.
pub(super) fn hash(salt: &[u8], id: TraceId) -> u64 {
    salt.iter()
        .chain(&id.0)
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// `ratio` of all 64-bit numbers, as the Collector computes it: the product with 64 bits of mantissa, cut to a whole
/// number.
pub(super) fn threshold(ratio: f64) -> u64 {
    if ratio.is_nan() || ratio <= 0.0 {
        return 0;
    }
    if ratio >= 1.0 {
        return u64::MAX;
    }
    // A double is `mantissa * 2^exponent`; subnormal ones are 0 here anyway.
    let bits = ratio.to_bits();
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    let exponent = (bits >> 52) as i32 - 1075;
    let product = u128::from(u64::MAX) * u128::from(mantissa);
    let excess = (u128::BITS - product.leading_zeros()).saturating_sub(u64::BITS);
    // To the nearest, ties to even.
    let (head, tail) = (product >> excess, product & ((1 << excess) - 1));
    let half = 1u128 << excess.saturating_sub(1);
    let rounded = head + u128::from(excess > 0 && (tail > half || (tail == half && head & 1 == 1)));
    let shift = exponent + excess as i32;
    let whole =
        if shift >= 0 { rounded << shift.min(63) } else { rounded.checked_shr(shift.unsigned_abs()).unwrap_or(0) };
    u64::try_from(whole).unwrap_or(u64::MAX)
}
