//! The test bench: traces as plain structures, segments in memory, and a slow evaluator to compare the fast one with.

mod counting;
pub mod differential;
pub mod generate;
pub mod memory;
pub mod reference;
pub mod spans;
