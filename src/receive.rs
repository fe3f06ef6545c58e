//! Listeners, protocol detection, limits, answers.

pub mod otlp;
pub mod settings;
