//! The slow evaluator: every trace as a tree, every span by itself, in the plainest words that say what TraceQL means.
//! It shares no code with the one that is used, and is compared with it (`differential.rs`).

pub mod expression;
pub mod metrics;
pub mod pipeline;
pub mod search;
pub mod tags;
pub mod tree;

#[cfg(test)]
mod tests;
