//! The registry: every component that a configuration can name.
