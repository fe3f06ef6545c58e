//! Settings of the `batch` processor, with the Collector's names and defaults.

use std::time::Duration;

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
