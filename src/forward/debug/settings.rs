//! Settings of the `debug` exporter.

use crate::config::{Declaration, Section, Shape, Stability};
use crate::forward::settings::ExporterSettings;
use crate::otlp::Signal;

/// The `debug` exporter.
pub const DECLARATION: Declaration<ExporterSettings> =
    Declaration::new("debug", Stability::Beta, "Prints what passes, for the first hours with a pipeline.", |section| {
        ExporterSettings::Debug(DebugSettings::decode(section))
    })
    .serving(&Signal::ALL);

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// One line per request: counts.
    #[default]
    Basic,
    /// One line per span.
    Normal,
    /// Every field.
    Detailed,
}

/// `exporters::debug`.
#[derive(Debug, Clone, PartialEq)]
pub struct DebugSettings {
    pub verbosity: Verbosity,
    /// Requests printed in each second before sampling sets in; default 2.
    pub sampling_initial: u32,
    /// After that, every n-th request of the second; default 1 (all), 0 none.
    pub sampling_thereafter: u32,
}

impl DebugSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let words = [("basic", Verbosity::Basic), ("normal", Verbosity::Normal), ("detailed", Verbosity::Detailed)];
        let settings = Self {
            verbosity: section.word_any_case("verbosity", &words, Verbosity::Basic),
            sampling_initial: section.u32("sampling_initial", 2),
            sampling_thereafter: section.u32("sampling_thereafter", 1),
        };
        section.unsupported("loglevel", "the Collector dropped it", "use verbosity: basic, normal or detailed");
        let is_internal = section.bool("use_internal_logger", true);
        if !is_internal {
            section.note("use_internal_logger", "accepted, without effect: it prints into the log");
        }
        section.inert("output_paths", Shape::List, "it prints into the log");
        if is_internal && section.has("output_paths") {
            let remedy = "remove it, or add use_internal_logger: false";
            section.error("output_paths", "needs use_internal_logger: false", remedy);
        }
        section.inert("sending_queue", Shape::Map, "nothing is queued for printing");
        settings
    }
}
