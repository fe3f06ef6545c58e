//! Settings of the `probabilistic_sampler` processor, with the Collector's names, defaults and checks.

use super::threshold::{DIGITS_MAX, PROBABILITY_MIN};
use crate::config::{Declaration, Section, Shape, Stability};
use crate::process::settings::ProcessorSettings;

/// The `probabilistic_sampler` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "probabilistic_sampler",
    Stability::Beta,
    "Keeps a share of the traces, each of them whole.",
    |section| ProcessorSettings::ProbabilisticSampler(ProbabilisticSamplerSettings::decode(section)),
);

/// `processors::probabilistic_sampler`.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbabilisticSamplerSettings {
    /// From 0, which keeps nothing (the default), to 100 and beyond, which keep everything.
    pub sampling_percentage: f32,
    pub mode: Mode,
    /// Samplers in a row decide alike with equal seeds, independently with different ones. Mode `hash_seed` only.
    pub hash_seed: u32,
    /// Whether a span about which no decision can be made is dropped. Default true.
    pub fail_closed: bool,
    /// Hexadecimal digits of a threshold, 1 to 14. Default 4.
    pub sampling_precision: u32,
}

/// What the decision is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A hash of the trace id.
    HashSeed,
    /// The id's own randomness; spans that were sampled before are thinned out as much as they were not yet.
    Equalizing,
    /// The id's own randomness; spans that were sampled before are thinned out by the same share again.
    Proportional,
}

impl ProbabilisticSamplerSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let percentage = section.f64("sampling_percentage", 0.0);
        let modes = [
            ("hash_seed", Mode::HashSeed),
            ("equalizing", Mode::Equalizing),
            ("proportional", Mode::Proportional),
            ("", Mode::HashSeed),
        ];
        let settings = Self {
            sampling_percentage: percentage as f32,
            mode: section.word("mode", &modes, Mode::HashSeed),
            hash_seed: section.u32("hash_seed", 0),
            fail_closed: section.bool("fail_closed", true),
            sampling_precision: section.u32("sampling_precision", 4),
        };
        section.inert_word("attribute_source", &["", "traceID", "record"], "it is for logs");
        section.inert("from_attribute", Shape::Text, "it is for logs");
        section.inert("sampling_priority", Shape::Text, "it is for logs; a span's attribute is sampling.priority");
        let ratio = f64::from(settings.sampling_percentage) / 100.0;
        if !ratio.is_finite() {
            section.error("sampling_percentage", "must be a number", "from 0 to 100");
        } else if ratio < 0.0 {
            section.error("sampling_percentage", format!("must not be below 0, is {percentage}"), "");
        } else if ratio > 0.0 && ratio < PROBABILITY_MIN {
            section.error("sampling_percentage", "is too small to be expressed", "0 keeps nothing");
        } else if ratio == 0.0 && section.is_sound() {
            section.warn("sampling_percentage", "is 0: every span is dropped", "e.g. sampling_percentage: 10");
        }
        if !(1..=DIGITS_MAX).contains(&settings.sampling_precision) {
            let reason = format!("must be from 1 to {DIGITS_MAX}, is {}", settings.sampling_precision);
            section.error("sampling_precision", reason, "");
        }
        settings
    }
}
