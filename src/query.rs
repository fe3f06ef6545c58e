//! Tempo's HTTP API.
