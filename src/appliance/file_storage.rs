//! The `file_storage` extension.

pub mod settings;
