//! Spanreel: a tracing appliance in one process.
//!
//! Data moves one way. Each station is a room: a module `room.rs` with its folder `room/`.
//!
//! ```text
//! receive ─▶ process ─▶ spool ─▶ answer OK
//!                         ├─▶ forward   one cursor per destination
//!                         └─▶ store ─▶ query ─▶ web
//! cluster ─▶ inject       pods get their agent; custom resources become pipelines
//! ```
//!
//! A room calls the next one's small public face; nobody reaches back. [`appliance`] builds the rooms in order and
//! owns every task; [`cli`] is the public face of everything.

pub mod appliance;
pub mod auth;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod forward;
pub mod inject;
pub mod otlp;
pub mod process;
pub mod query;
pub mod receive;
pub mod red;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod traceql;
pub mod web;
