//! The `queue_batch` processor: kept as the grouping of what is forwarded; its queue is the spool.
//!
//! Nothing runs here, as with [`super::batch`]. A Collector keeps this queue in memory, or in a storage that may be
//! lost in part; the spool has what it holds on disk before anybody is answered, and has no size in requests.

pub mod settings;
