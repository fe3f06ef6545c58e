//! The `spanreel` extension.

pub mod settings;
