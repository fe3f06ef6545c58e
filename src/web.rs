//! The web UI. Empty until it is built.
