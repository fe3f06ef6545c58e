//! The store: traces out of what lies on disk.
//!
//! In: batches of the spool, trace ids, and questions of search. Out: the fragments of a trace and the assembled whole
//! ([`assemble`]), byte for byte as they were received; segments of columns for search ([`build`]).
//!
//! ```text
//! spool ─▶ batches that no run has ─▶ tail: segments in memory ─┬▶ Store: by id, and everything searchable at one moment
//!       └▶ sealed runs: segments on disk ───────────────────────┘
//! ```
//!
//! Invariants: everything that was acknowledged is found at once, by id and by search; no batch is both in a run and in the
//! tail of one view. The room must not know TraceQL's text, nor HTTP.

pub mod alone;
pub mod assemble;
pub mod build;
pub mod envelope;
pub mod format;
pub mod retention;
pub mod runs;
pub mod seal;
mod sealed;
mod source;
mod tail;
mod upkeep;

pub use sealed::{Fragments, NothingSealed, Sealed, SealedView};
pub use source::Store;
pub use tail::TailSettings;
pub use upkeep::Keeper;
