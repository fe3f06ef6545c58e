//! What the process says about itself: logs, and the registry behind `/metrics`.
//!
//! Every room declares its own metrics and registers them here; nothing in this room knows what they mean.

pub mod logs;
pub mod process;
mod recent;
pub mod text;

pub use recent::{Recent, recent};

use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Text that is made while it is sent, in pieces of whole lines.
pub type Pages = Box<dyn Iterator<Item = String> + Send>;

/// The finished registry. Rooms register while it is built; afterwards it is only read.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Series that are too many for a registry, as OpenMetrics text.
    series: Option<Arc<dyn Fn() -> Pages + Send + Sync>>,
}

impl Metrics {
    pub fn new(registry: Registry) -> Self {
        Self { registry: Arc::new(registry), series: None }
    }

    /// With further series, of which each call gives all, without the end mark.
    #[must_use]
    pub fn with_series(self, series: impl Fn() -> Pages + Send + Sync + 'static) -> Self {
        Self { series: Some(Arc::new(series)), ..self }
    }

    /// OpenMetrics text, with the series that are no part of the registry.
    pub fn pages(&self) -> Pages {
        const END: &str = "# EOF\n";
        let mut own = self.text();
        match &self.series {
            Some(series) if own.ends_with(END) => {
                own.truncate(own.len() - END.len());
                Box::new(std::iter::once(own).chain(series()).chain(std::iter::once(END.to_owned())))
            }
            _ => Box::new(std::iter::once(own)),
        }
    }

    /// OpenMetrics text of the registry alone.
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
