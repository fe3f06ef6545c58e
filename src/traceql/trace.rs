//! Whole traces: put together from their pieces, and what a pipeline yields for them.
//!
//! ```text
//! pipeline ─▶ Plan ─▶ which filters a trace must have spans of
//!                        │ masks per filter and segment
//!                        ▼
//! traces of one segment ─▶ swept all at once (Forest: who is whose parent) ─▶ those that may yield something
//! pieces of one trace ───▶ View (no span twice, by start; Tree) ───────────▶ its spansets
//! ```

pub mod evaluate;
pub mod fold;
pub mod forest;
pub mod plan;
pub mod sweep;
pub mod tree;
pub mod view;
