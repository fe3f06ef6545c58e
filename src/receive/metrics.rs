//! What receivers count.

use crate::otlp::Signal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Services told apart among discarded signals; the rest is `other`, so that a client cannot grow the registry.
const SERVICES_MAX: usize = 200;
const SERVICE_NAME_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub receiver: String,
    /// The port as configured, so that a client on the wrong one can be seen: `4317`, `4318`.
    pub port: u16,
    pub protocol: &'static str,
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PortLabels {
    pub receiver: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct DiscardedLabels {
    pub signal: &'static str,
    pub service: String,
}

/// What became of spans, data points or log records at a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemLabels {
    pub receiver: String,
    pub signal: &'static str,
    /// Durable; otherwise refused, and perhaps sent again.
    pub accepted: bool,
}

/// Clones share the same figures.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    /// Bounded by the receivers that were ever configured. Shown under the Collector's names only.
    items: Arc<Mutex<BTreeMap<ItemLabels, u64>>>,
    kernel_drops: Family<PortLabels, Counter>,
    discarded: Family<DiscardedLabels, Counter>,
    services: Arc<Mutex<BTreeSet<DiscardedLabels>>>,
    connections: Gauge,
    pub(super) dismissed: Counter,
}

/// Counts a connection as open until dropped.
pub(super) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanreel_receiver_requests",
            "Requests by port, protocol and outcome",
            self.requests.clone(),
        );
        registry.register(
            "spanreel_receiver_kernel_dropped_packets",
            "UDP packets that the kernel dropped because those before had not been read yet, by port",
            self.kernel_drops.clone(),
        );
        registry.register(
            "spanreel_discarded",
            "Requests of signals that no pipeline takes, answered OK and discarded, by signal and service",
            self.discarded.clone(),
        );
        registry.register("spanreel_receiver_connections", "Open connections", self.connections.clone());
        registry.register(
            "spanreel_receiver_connections_dismissed",
            "Silent connections that were closed, because they had said nothing in time or for others that came",
            self.dismissed.clone(),
        );
    }

    pub(super) fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    pub fn count_request(&self, receiver: &str, port: u16, protocol: &'static str, outcome: &'static str) {
        let labels = RequestLabels { receiver: receiver.to_owned(), port, protocol, outcome };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn count_items(&self, receiver: &str, signal: Signal, accepted: bool, items: u32) {
        let labels = ItemLabels { receiver: receiver.to_owned(), signal: signal.as_str(), accepted };
        let mut counts = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(labels).or_default() += u64::from(items);
    }

    /// What became of items since the start.
    pub fn items(&self) -> Vec<(ItemLabels, u64)> {
        let counts = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(labels, count)| (labels.clone(), *count)).collect()
    }

    pub fn count_kernel_drops(&self, receiver: &str, port: u16, packets: u64) {
        let labels = PortLabels { receiver: receiver.to_owned(), port };
        self.kernel_drops.get_or_create(&labels).inc_by(packets);
    }

    pub fn count_discarded(&self, signal: &'static str, service: &str) {
        let mut service = service;
        if service.len() > SERVICE_NAME_BYTES_MAX {
            service = "other";
        }
        let mut labels = DiscardedLabels { signal, service: service.to_owned() };
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if !services.contains(&labels) {
            if services.len() >= SERVICES_MAX {
                "other".clone_into(&mut labels.service);
            }
            services.insert(labels.clone());
        }
        drop(services);
        self.discarded.get_or_create(&labels).inc();
    }

    /// Discarded requests by signal and service, for `spanreel status`.
    pub fn discarded(&self) -> Vec<(DiscardedLabels, u64)> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        services
            .into_iter()
            .map(|labels| {
                let count = self.discarded.get_or_create(&labels).get();
                (labels, count)
            })
            .collect()
    }
}
