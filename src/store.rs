//! The store: traces out of what lies on disk.
//!
//! In: trace ids. Out: the fragments of a trace ([`tail`]) and the assembled whole ([`assemble`]), byte for byte as they
//! were received.
//!
//! ```text
//! id ─▶ fingerprint ─▶ spool's index ─▶ batches ─▶ inflate ─▶ spans of this trace ─▶ assemble
//! ```
//!
//! Everything that was acknowledged is found at once: the index is written before the answer. Sealed runs, columns and
//! dictionaries will live here too, in the families that the database opens for them. The room must not know TraceQL's
//! text, nor HTTP.

pub mod assemble;
pub mod build;
pub mod envelope;
mod sealed;
mod tail;
mod unsearchable;

pub use sealed::{Fragments, NothingSealed, Sealed, SealedView};
pub use tail::Tail;
