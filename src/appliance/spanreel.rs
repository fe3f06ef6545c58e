//! The `spanreel` extension.

pub mod catch_up;
mod injection;
pub mod remote_write;
pub mod settings;
