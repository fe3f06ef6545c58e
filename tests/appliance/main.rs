//! The appliance without a cluster: as a process of its own or within the test, with real clients, a real Collector beside it,
//! and real disks. One module per promise.
//!
//! One program, because each would link everything anew. What cannot run beside something else takes a lock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/destination.rs"]
mod destination;
#[path = "../../src/receive/thrift/write.rs"]
#[allow(dead_code, reason = "the library's own tests use the rest")]
mod thrift;

#[path = "../support/scripts.rs"]
mod scripts;
#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod admittance;
mod collector_config;
mod commands;
mod config;
mod crash;
mod delivery;
mod documentation;
mod foreign;
mod full_disk;
mod inject;
mod malformed;
mod metrics_from_spans;
mod monitoring;
mod ottl;
mod outage;
mod pipelines;
mod ports;
mod processors;
mod reload;
mod rig;
mod seal;
mod sighup;
mod signals;
mod sockets;
mod span_metrics;
mod start;
mod tail_sampling;
mod telemetrygen;
mod tempo_api;
mod tempo_search;
mod tracers;
mod web_ui;
