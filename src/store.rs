//! The tail index and trace assembly.

pub mod assemble;
