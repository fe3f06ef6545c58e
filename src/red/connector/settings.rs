//! Settings of the `service_graph` connector, and what both connectors' settings share, with the Collector's names and
//! defaults.

use super::super::facts::Keys;
use super::super::graph::{self, ServiceGraph};
use super::super::histogram::{Bounds, Scheme};
use super::super::otlp::{GRAPH_SCOPE, Temporality};
use super::super::settings::{DIMENSIONS_MAX, check_bounds};
use super::super::{Engine, Family, Kind};
use super::How;
use crate::config::{Section, Shape, duration};
use std::time::Duration;

/// Both connectors' bounds, in milliseconds.
pub(super) const BOUNDS_MILLIS: [f64; 16] = [
    2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1_000.0, 1_400.0, 2_000.0, 5_000.0, 10_000.0, 15_000.0,
];
/// Where the Collector knows no limit.
pub(super) const SERIES_MAX: usize = 10_000;
/// Buckets of an exponential histogram, at most.
pub(super) const BUCKETS_MAX: u64 = 1_024;
/// More often than this is work for nobody.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// After so long without a call an edge's series go, as in the Collector.
const STALE_MILLIS: u64 = 15 * 60 * 1_000;

/// `connectors::service_graph`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceGraphConnectorSettings {
    scheme: Scheme,
    dimensions: Vec<String>,
    wait: Duration,
    waiting_max: usize,
    interval: Duration,
    offset: Duration,
    peer_attributes: Vec<String>,
    database_attributes: Vec<String>,
    virtual_node_label: bool,
}

impl ServiceGraphConnectorSettings {
    pub fn decode(section: &mut Section<'_>) -> Self {
        let bounds = decode_bounds(section, "latency_histogram_buckets", 1.0);
        let buckets_max = section.u64("exponential_histogram_max_size", 0);
        if buckets_max == 1 || buckets_max > BUCKETS_MAX {
            section.error("exponential_histogram_max_size", format!("must be from 2 to {BUCKETS_MAX}"), "160 is usual");
        }
        let dimensions = section.list("dimensions");
        if dimensions.len() > DIMENSIONS_MAX {
            section.error("dimensions", format!("at most {DIMENSIONS_MAX}, are {}", dimensions.len()), "");
        }
        let (wait, waiting_max) = section.section("store", |section| {
            let waiting_max = section.u64("max_items", 1_000);
            if !(1..=1_000_000).contains(&waiting_max) {
                section.error("max_items", format!("must be from 1 to 1000000, is {waiting_max}"), "");
            }
            (section.duration("ttl", Duration::from_secs(2)), waiting_max as usize)
        });
        for (key, why) in [
            ("cache_loop", "series go after 15 minutes without a call"),
            ("store_expiration_loop", "spans that waited long enough are looked for every two seconds"),
        ] {
            section.inert(key, Shape::Duration, why);
        }
        let texts = |section: &mut Section<'_>, key: &'static str, default: &[&str]| {
            let (is_written, list) = (section.has(key), section.list(key));
            if is_written { list } else { default.iter().map(|text| (*text).to_owned()).collect() }
        };
        Self {
            // Given both, it is exponential, as in the Collector.
            scheme: match buckets_max {
                0 => Scheme::Explicit(
                    bounds.unwrap_or_else(|| Bounds::new(&BOUNDS_MILLIS.map(|millis| millis / 1_000.0))),
                ),
                more => Scheme::Exponential { buckets_max: more.min(BUCKETS_MAX) as u32 },
            },
            dimensions,
            wait,
            waiting_max,
            interval: decode_interval(section),
            offset: section.duration("metrics_timestamp_offset", Duration::ZERO),
            peer_attributes: texts(section, "virtual_node_peer_attributes", &["peer.service", "db.name", "db.system"]),
            database_attributes: texts(section, "database_name_attributes", &["db.name"]),
            virtual_node_label: section.bool("virtual_node_extra_label", false),
        }
    }

    /// The counters and how they are reported.
    pub fn build(&self, name: String) -> (Engine, How) {
        let mut keys = Keys::default();
        let mut indexes = |names: &[String]| names.iter().map(|name| keys.index_of(name)).collect::<Vec<_>>();
        let (peer, database) = (indexes(&self.peer_attributes), indexes(&self.database_attributes));
        let dimensions = self.dimensions.iter().cloned().zip(indexes(&self.dimensions)).collect();
        let named = |name: &str, unit, kind, help| family(format!("traces_service_graph_{name}"), unit, kind, help);
        let latency = match self.scheme {
            Scheme::Explicit(_) => Kind::Histogram,
            Scheme::Exponential { .. } => Kind::ExponentialHistogram,
        };
        let plan = graph::Plan {
            requests: named("request_total", "", Kind::Counter, "Calls between two services"),
            failed: named("request_failed_total", "", Kind::Counter, "Failed calls between two services"),
            server_latency: named("request_server", "s", latency, "Duration of calls as the server saw them"),
            client_latency: named("request_client", "s", latency, "Duration of calls as the client saw them"),
            messaging_latency: None,
            connection_info: None,
            dimensions,
            client_server_prefix: true,
            virtual_node_label: self.virtual_node_label,
            failed_label: true,
            scheme: self.scheme.clone(),
            wait_millis: self.wait.as_millis() as u64,
            waiting_max: self.waiting_max,
            peer,
            database,
            database_address: None,
            peer_calls_roots: false,
            unknown_server: Some("unknown"),
            exemplars: false,
            series_max: SERIES_MAX,
        };
        let graph = ServiceGraph::new(plan, &mut keys);
        let engine = Engine::new(keys, None, Some(graph), STALE_MILLIS);
        let how = How {
            name,
            scope: GRAPH_SCOPE,
            interval: self.interval,
            temporality: Temporality::Cumulative,
            exemplars_max: 0,
            offset: self.offset,
        };
        (engine, how)
    }
}

pub(super) fn family(name: String, unit: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name: name.into(), unit, kind, help }
}

pub(super) fn decode_interval(section: &mut Section<'_>) -> Duration {
    let interval = section.duration("metrics_flush_interval", Duration::from_secs(60));
    if interval < INTERVAL_MIN {
        section.note("metrics_flush_interval", "reported once a second, not more often");
    }
    interval.max(INTERVAL_MIN)
}

/// Bounds written as durations, in the unit that `per_second` says.
pub(super) fn decode_bounds(section: &mut Section<'_>, key: &'static str, per_second: f64) -> Option<Bounds> {
    if !section.has(key) {
        section.list(key);
        return None;
    }
    let mut bounds = Vec::new();
    for text in section.list(key) {
        match duration::parse(&text) {
            Ok(bound) => bounds.push(bound.as_secs_f64() * per_second),
            Err(error) => {
                section.error(key, format!("{text:?} {error}"), "durations, e.g. [10ms, 100ms, 1s]");
                return None;
            }
        }
    }
    match check_bounds(&bounds) {
        Ok(()) => Some(Bounds::new(&bounds)),
        Err(reason) => {
            section.error(key, reason, "durations, e.g. [10ms, 100ms, 1s]");
            None
        }
    }
}
