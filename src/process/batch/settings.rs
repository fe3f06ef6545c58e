//! Settings of the `batch` processor, with the Collector's names and defaults.

use crate::config::{Declaration, Section, Stability};
use crate::otlp::Signal;
use crate::process::settings::ProcessorSettings;
use std::time::Duration;

/// The `batch` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "batch",
    Stability::Beta,
    "Says how stored spans are grouped when they are forwarded.",
    |section| ProcessorSettings::Batch(BatchSettings::decode(section)),
)
.serving(&Signal::ALL);

/// `processors::batch`: how stored batches are grouped when they are forwarded.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSettings {
    /// Spans; 0 means: do not wait. Default 8192.
    pub send_batch_size: u32,
    /// How long spans wait for company; 0 means: do not wait. Default 200 ms.
    pub timeout: Duration,
    /// Spans; 0 means no cap. At least `send_batch_size` otherwise.
    pub send_batch_max_size: u32,
}

impl BatchSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            send_batch_size: section.u32("send_batch_size", 8192),
            timeout: section.duration("timeout", Duration::from_millis(200)),
            send_batch_max_size: section.u32("send_batch_max_size", 0),
        };
        accept_metadata(section);
        if settings.send_batch_max_size > 0 && settings.send_batch_max_size < settings.send_batch_size {
            let reason = format!("must be at least send_batch_size, which is {}", settings.send_batch_size);
            section.error("send_batch_max_size", reason, "or 0 for no cap");
        }
        settings
    }
}

/// Keeping batches of different clients apart changes nothing here: processors see each request with its own client's
/// metadata before it is stored, and no exporter sends any of it on.
fn accept_metadata(section: &mut Section<'_>) {
    let keys = section.header_names("metadata_keys");
    if !keys.is_empty() {
        section.note("metadata_keys", "accepted, without effect: nothing behind the spool reads client metadata");
    }
    section.accept("metadata_cardinality_limit", crate::config::Shape::Int);
}
