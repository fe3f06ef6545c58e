//! What the process says about itself: logs, and the registry behind `/metrics`.
//!
//! Every room declares its own metrics and registers them here; nothing in this room knows what they mean.

pub mod logs;
pub mod process;

use prometheus_client::registry::Registry;
use std::sync::Arc;

/// The finished registry. Rooms register while it is built; afterwards it is only read.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
}

impl Metrics {
    pub fn new(registry: Registry) -> Self {
        Self { registry: Arc::new(registry) }
    }

    /// OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // Only a collector that fails to write into memory gets here; an empty scrape shows as a gap.
            tracing::error!("metrics could not be encoded");
            text.clear();
        }
        text
    }
}
