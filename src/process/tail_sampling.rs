//! The `tail_sampling` processor: which traces are forwarded, decided once they had time to become whole.
//!
//! In: requests as they lie in the spool. Out: for each trace in them what the policies ask about ([`Facts`]), and, from
//! the facts of all its requests together, whether it is kept ([`Sampler::decide`]).
//!
//! ```text
//! request ─▶ Questions::look ─▶ Facts per trace ─▶ join over requests ─▶ Sampler::decide ─▶ kept or not
//! ```
//!
//! Pure: who reads the spool, remembers decisions and lets exporters pass is `forward`. A policy's condition on spans is
//! answered once per request and becomes a bit, so that undecided traces cost a few words and their spans stay on disk.

mod facts;
mod policy;
pub mod settings;
#[cfg(test)]
mod tests;

pub use facts::{Facts, Questions};
pub use policy::{Decision, Sampler};
