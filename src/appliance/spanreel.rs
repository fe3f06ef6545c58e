//! The `spanreel` extension.

pub mod access;
pub mod catch_up;
mod injection;
pub mod remote_write;
pub mod settings;
