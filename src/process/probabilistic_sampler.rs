//! The `probabilistic_sampler` processor: keeps a share of the traces, each of them whole.
//!
//! The decision depends on the trace id (or the randomness in `tracestate`) and the settings alone, so that every
//! instance, Collectors among them, keeps the same traces. What was kept says so in its `tracestate`
//! (`ot=rv:...;th:...`, OpenTelemetry's consistent probability sampling), from which counts can be scaled up.

pub mod settings;
#[cfg(test)]
mod tests;
mod threshold;
mod trace_state;

use self::settings::{Mode, ProbabilisticSamplerSettings};
use self::threshold::{Randomness, Threshold};
use self::trace_state::TraceState;
use super::client::Client;
use super::{Editor, Failed, Processor, Removed};
use crate::otlp::edit::{Span, Traces, Value};

/// What `hash_seed` compares: the lower bits of a hash.
const HASH_BUCKETS: u32 = 1 << 14;

/// One instance per pipeline.
#[derive(Debug)]
pub struct ProbabilisticSampler {
    sampler: Sampler,
    fail_closed: bool,
}

/// How a span's threshold is found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sampler {
    Never,
    Hash { seed: u32, threshold: Threshold },
    Equalizing { threshold: Threshold },
    Proportional { ratio: f64, precision: u32 },
}

/// What a span's attribute `sampling.priority` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    None,
    Keep,
    Drop,
}

/// A span's randomness, and its trace state if that may be written.
struct Candidate {
    randomness: Randomness,
    state: Option<TraceState>,
    /// Whether the sampler can decide; otherwise `fail_closed` does.
    sound: bool,
}

impl ProbabilisticSampler {
    pub fn new(settings: &ProbabilisticSamplerSettings) -> Self {
        Self { sampler: Sampler::new(settings), fail_closed: settings.fail_closed }
    }

    /// Whether the span stays; its trace state is brought up to date if so.
    fn keeps(&self, span: &mut Span<'_>) -> bool {
        let mut candidate = self.sampler.candidate(span);
        candidate.check();
        let decided = match (candidate.sound, self.fail_closed) {
            (true, _) => self.sampler.threshold(candidate.state.as_ref()),
            (false, true) => Threshold::NEVER,
            (false, false) => Threshold::ALWAYS,
        };
        let threshold = match priority(span) {
            Priority::None => decided,
            Priority::Keep => Threshold::ALWAYS,
            Priority::Drop => Threshold::NEVER,
        };
        let kept = threshold.keeps(candidate.randomness);
        if let (true, Some(mut state)) = (kept, candidate.state) {
            if let Sampler::Hash { .. } = self.sampler {
                state.set_randomness(candidate.randomness);
            }
            state.raise_threshold(threshold);
            let text = state.to_string();
            if text != span.trace_state() {
                span.set_trace_state(text.into());
            }
        }
        kept
    }
}

impl Processor for ProbabilisticSampler {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for ProbabilisticSampler {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, _: &'a Client) -> Result<Removed, Failed> {
        let before = traces.span_count();
        for resource in traces.resources.iter_mut() {
            for scope in resource.scopes.iter_mut() {
                scope.spans.retain_mut(|span| self.keeps(span));
            }
        }
        Ok(Removed::sampled_out(before - traces.span_count()))
    }
}

impl Sampler {
    fn new(settings: &ProbabilisticSamplerSettings) -> Self {
        let percentage = settings.sampling_percentage.min(100.0);
        if percentage == 0.0 {
            return Self::Never;
        }
        let ratio = (f64::from(percentage) / 100.0).max(threshold::PROBABILITY_MIN);
        let precision = settings.sampling_precision;
        match settings.mode {
            Mode::Equalizing => {
                Self::Equalizing { threshold: Threshold::of(ratio, precision).unwrap_or(Threshold::ALWAYS) }
            }
            Mode::Proportional => Self::Proportional { ratio, precision },
            Mode::HashSeed => {
                // In 32 bits and cut off, not rounded: every version of the Collector decides by this number.
                let accepted = (percentage * (HASH_BUCKETS as f32 / 100.0)) as u32;
                match accepted {
                    0 => Self::Never,
                    accepted => Self::Hash {
                        seed: settings.hash_seed,
                        threshold: Threshold::from_top_bits(HASH_BUCKETS - accepted),
                    },
                }
            }
        }
    }

    fn candidate(&self, span: &Span<'_>) -> Candidate {
        let (state, well_formed) = TraceState::parse(&span.trace_state());
        match self {
            // The randomness is not used, but for a priority that asks to keep the span.
            Self::Never => Candidate { randomness: Randomness::MAX, state: Some(state), sound: well_formed },
            Self::Hash { seed, .. } => {
                let randomness = hashed(span.trace_id(), *seed);
                // A span that carries consistent sampling's numbers belongs to another mode.
                if !well_formed || state.randomness().is_some() || state.threshold().is_some() {
                    return Candidate { randomness, state: None, sound: false };
                }
                Candidate { randomness, state: Some(state), sound: true }
            }
            Self::Equalizing { .. } | Self::Proportional { .. } if !well_formed => {
                Candidate { randomness: Randomness::MAX, state: None, sound: false }
            }
            Self::Equalizing { .. } | Self::Proportional { .. } => {
                let randomness = state.randomness().unwrap_or_else(|| Randomness::of_trace(span.trace_id()));
                Candidate { randomness, state: Some(state), sound: true }
            }
        }
    }

    fn threshold(&self, state: Option<&TraceState>) -> Threshold {
        let arrived = state.and_then(TraceState::threshold);
        match self {
            Self::Never => Threshold::NEVER,
            Self::Hash { threshold, .. } => *threshold,
            Self::Equalizing { threshold } => arrived.map_or(*threshold, |arrived| arrived.max(*threshold)),
            Self::Proportional { ratio, precision } => {
                let arrived = arrived.map_or(1.0, Threshold::probability);
                // A product that is too small to be expressed is none.
                Threshold::of(arrived * ratio, *precision).unwrap_or(Threshold::NEVER)
            }
        }
    }
}

impl Candidate {
    /// A span whose threshold says that it should not be here: the threshold is wrong and goes.
    fn check(&mut self) {
        if self.sound
            && let Some(state) = &mut self.state
            && state.threshold().is_some_and(|arrived| !arrived.keeps(self.randomness))
        {
            state.clear_threshold();
            self.sound = false;
        }
    }
}

/// FNV-1a of seed and id. Fourteen bits decide; the others fill up what consistent sampling calls randomness, as the
/// Collector has it.
fn hashed(trace_id: &[u8], seed: u32) -> Randomness {
    const FNV_OFFSET: u32 = 0x811c_9dc5;
    const FNV_PRIME: u32 = 0x0100_0193;
    let bytes = seed.to_le_bytes().into_iter().chain(trace_id.iter().copied());
    let hash = bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
    let bucket = u64::from(hash & (HASH_BUCKETS - 1));
    let unused = u64::from(hash >> 18);
    let mixed = unused ^ (unused << 10);
    Randomness::from_bits((u64::from(HASH_BUCKETS - 1) - bucket) << 42 | mixed << 14 | bucket)
}

/// OpenTracing's hint, taken as an order: zero drops, more keeps.
fn priority(span: &Span<'_>) -> Priority {
    const KEY: &str = "sampling.priority";
    if !span.has_attribute(KEY) {
        return Priority::None;
    }
    let number = match span.attributes().get(KEY) {
        Some(Value::Int(number)) => *number as f64,
        Some(Value::Double(number)) => *number,
        Some(Value::Text(text)) => text.parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    match number {
        0.0 => Priority::Drop,
        number if number > 0.0 => Priority::Keep,
        _ => Priority::None,
    }
}
