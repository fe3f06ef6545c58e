//! The Kubernetes side against real parts: kube-apiserver with etcd and, where they matter, its controllers; Spanreel with the
//! rights of `deploy/` and no others. One module per promise.
//!
//! One program, because each would link everything anew. What cannot run beside something else takes a lock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/agents.rs"]
mod agents;
#[path = "../support/destination.rs"]
mod destination;
#[path = "../support/installed.rs"]
mod installed;
#[path = "../support/kube.rs"]
mod kube_rig;
#[path = "../support/room.rs"]
mod room;
#[path = "../support/scripts.rs"]
mod scripts;
#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod catch_up;
mod certificates;
mod collectors;
mod control;
mod crds;
mod doctor;
mod events;
mod install;
mod languages;
mod lifeline;
mod pods;
mod stop;
mod upgrade;
mod walkthrough;
mod web_ui;
mod webhook;
