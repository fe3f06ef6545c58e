//! Start order, reload, shutdown and task ownership: wires the rooms.

pub mod components;
pub mod file_storage;
pub mod health_check;
pub mod spanreel;
