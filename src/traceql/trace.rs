//! Whole traces, put together from their pieces.

pub mod tree;
pub mod view;
