//! Settings of the connectors, with the Collector's names and defaults.

use super::super::facts::Keys;
use super::super::graph::{self, ServiceGraph};
use super::super::histogram::Bounds;
use super::super::otlp::Temporality;
use super::super::settings::{DIMENSIONS_MAX, check_bounds};
use super::super::spans::{self, Dimension, Precedence, SpanMetrics};
use super::super::{Engine, Family, Kind};
use super::How;
use crate::config::{Secrecy, Section, Shape, duration};
use std::time::Duration;

/// Both connectors' bounds, in milliseconds.
const BOUNDS_MILLIS: [f64; 16] = [
    2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1_000.0, 1_400.0, 2_000.0, 5_000.0, 10_000.0, 15_000.0,
];
/// Where the Collector knows no limit.
const SERIES_MAX: usize = 10_000;
/// More often than this is work for nobody.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// After so long without a call an edge's series go, as in the Collector.
const STALE_MILLIS: u64 = 15 * 60 * 1_000;

/// `connectors::span_metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanMetricsConnectorSettings {
    namespace: String,
    /// `histogram`; `None`: disabled.
    latency: Option<Latency>,
    /// Attributes and what stands for an absent one.
    dimensions: Vec<(String, Option<String>)>,
    /// Of the four that are there by themselves.
    excluded: Vec<String>,
    temporality: Temporality,
    interval: Duration,
    /// Zero: never.
    expiration: Duration,
    series_max: usize,
    /// `exemplars::max_per_data_point`, if they are enabled.
    exemplars_max: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
struct Latency {
    is_seconds: bool,
    bounds: Bounds,
}

/// `connectors::service_graph`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceGraphConnectorSettings {
    bounds: Bounds,
    dimensions: Vec<String>,
    wait: Duration,
    waiting_max: usize,
    interval: Duration,
    offset: Duration,
    peer_attributes: Vec<String>,
    database_attributes: Vec<String>,
    virtual_node_label: bool,
}

impl SpanMetricsConnectorSettings {
    pub fn decode(section: &mut Section<'_>) -> Self {
        let namespace = section.text("namespace", "traces.span.metrics");
        let latency = section.section("histogram", Latency::decode);
        let dimensions = section.sections("dimensions", |section| {
            section.unsupported("glob", "labels come from attributes by their whole name", "name each attribute");
            let name = section.required_text("name", "the attribute's name");
            (name, section.optional_text("default", Secrecy::Open))
        });
        if dimensions.len() > DIMENSIONS_MAX {
            section.error("dimensions", format!("at most {DIMENSIONS_MAX}, are {}", dimensions.len()), "");
        }
        let excluded = section.list("exclude_dimensions");
        let words = [
            ("AGGREGATION_TEMPORALITY_CUMULATIVE", Temporality::Cumulative),
            ("AGGREGATION_TEMPORALITY_DELTA", Temporality::Delta),
        ];
        let temporality = section.word("aggregation_temporality", &words, Temporality::Cumulative);
        let interval = decode_interval(section);
        let metrics_expiration = section.duration("metrics_expiration", Duration::ZERO);
        let series_expiration = section.duration("series_expiration", Duration::ZERO);
        let limit = section.u64("aggregation_cardinality_limit", 0);
        if limit > 10 * SERIES_MAX as u64 {
            section.error("aggregation_cardinality_limit", format!("must not be above {}", 10 * SERIES_MAX), "");
        }
        let exemplars_max = section.section("exemplars", |section| {
            let (on, max) = (section.bool("enabled", false), section.u64("max_per_data_point", 5));
            on.then_some(max as usize)
        });
        section.section("events", |section| {
            section.only("enabled", &["false"], "events of spans are not counted", "remove it");
            section.accept("dimensions", Shape::List);
        });
        for (key, why) in [
            ("calls_dimensions", "calls and durations have the same labels"),
            ("include_instrumentation_scope", "all scopes are counted"),
            ("resource_metrics_key_attributes", "all series are of one resource"),
        ] {
            section.only(key, &["[]"], why, "remove it");
        }
        section.only("add_resource_attributes", &["false"], "all series are of one resource", "use dimensions");
        for key in ["resource_metrics_cache_size", "metric_timestamp_cache_size", "dimensions_cache_size"] {
            section.inert(key, Shape::Int, "series are bounded by aggregation_cardinality_limit");
        }
        Self {
            namespace,
            latency,
            dimensions,
            excluded,
            temporality,
            interval,
            expiration: if series_expiration.is_zero() { metrics_expiration } else { series_expiration },
            series_max: if limit == 0 { SERIES_MAX } else { limit as usize },
            exemplars_max,
        }
    }

    /// The counters and how they are reported.
    pub fn build(&self, name: String) -> (Engine, How) {
        let mut keys = Keys::default();
        let intrinsic = [
            ("service.name", Dimension::Service),
            ("span.name", Dimension::SpanName),
            ("span.kind", Dimension::SpanKind),
            ("status.code", Dimension::StatusCode),
            ("collector.instance.id", Dimension::Fixed(instance_id())),
        ];
        let is_wanted = |name: &str| !self.excluded.iter().any(|excluded| excluded == name);
        let mut dimensions: Vec<(String, Dimension)> = intrinsic
            .into_iter()
            .filter(|(name, _)| is_wanted(name))
            .map(|(name, dimension)| (name.to_owned(), dimension))
            .collect();
        for (name, default) in &self.dimensions {
            let dimension = Dimension::Attribute { key: keys.index_of(name), default: default.clone() };
            dimensions.push((name.clone(), dimension));
        }
        let named = |suffix: &str| match self.namespace.as_str() {
            "" => suffix.to_owned(),
            namespace => format!("{namespace}.{suffix}"),
        };
        let is_seconds = self.latency.as_ref().is_some_and(|latency| latency.is_seconds);
        let plan = spans::Plan {
            calls: family(named("calls"), "1", Kind::Counter, "Spans"),
            latency: self.latency.as_ref().map(|_| {
                family(named("duration"), if is_seconds { "s" } else { "ms" }, Kind::Histogram, "Duration of spans")
            }),
            size: None,
            target_info: None,
            dimensions,
            precedence: Precedence::Span,
            bounds: self.latency.as_ref().map_or_else(|| Bounds::new(&[]), |latency| latency.bounds.clone()),
            per_second: if is_seconds { 1.0 } else { 1_000.0 },
            exemplars: self.exemplars_max.is_some(),
            series_max: self.series_max,
        };
        let spans = SpanMetrics::new(plan, &mut keys);
        let engine = Engine::new(keys, Some(spans), None, self.expiration.as_millis() as u64);
        let how = How {
            name,
            scope: "spanmetricsconnector",
            interval: self.interval,
            temporality: self.temporality,
            exemplars_max: self.exemplars_max.unwrap_or(0),
            offset: Duration::ZERO,
        };
        (engine, how)
    }
}

impl Latency {
    fn decode(section: &mut Section<'_>) -> Option<Self> {
        let disabled = section.bool("disable", false);
        let is_seconds = section.word("unit", &[("ms", false), ("s", true)], false);
        section.unsupported("exponential", "histograms have explicit buckets here", "use explicit");
        section.only(
            "dimensions",
            &["[]"],
            "calls and durations have the same labels",
            "use dimensions of the connector",
        );
        let per_second = if is_seconds { 1.0 } else { 1_000.0 };
        let default: Vec<f64> = BOUNDS_MILLIS.iter().map(|millis| millis / 1_000.0 * per_second).collect();
        let bounds = section.section("explicit", |section| decode_bounds(section, "buckets", per_second));
        (!disabled).then(|| Self { is_seconds, bounds: bounds.unwrap_or_else(|| Bounds::new(&default)) })
    }
}

impl ServiceGraphConnectorSettings {
    pub fn decode(section: &mut Section<'_>) -> Self {
        let bounds = decode_bounds(section, "latency_histogram_buckets", 1.0);
        section.only("exponential_histogram_max_size", &["0"], "histograms have explicit buckets here", "remove it");
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
            bounds: bounds.unwrap_or_else(|| Bounds::new(&BOUNDS_MILLIS.map(|millis| millis / 1_000.0))),
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
        let plan = graph::Plan {
            requests: named("request_total", "1", Kind::Counter, "Calls between two services"),
            failed: named("request_failed_total", "1", Kind::Counter, "Failed calls between two services"),
            server_latency: named("request_server", "s", Kind::Histogram, "Duration of calls as the server saw them"),
            client_latency: named("request_client", "s", Kind::Histogram, "Duration of calls as the client saw them"),
            messaging_latency: None,
            dimensions,
            client_server_prefix: true,
            virtual_node_label: self.virtual_node_label,
            failed_label: true,
            bounds: self.bounds.clone(),
            wait_millis: self.wait.as_millis() as u64,
            waiting_max: self.waiting_max,
            peer,
            database,
            database_address: None,
            unknown_server: Some("unknown"),
            exemplars: false,
            series_max: SERIES_MAX,
        };
        let graph = ServiceGraph::new(plan, &mut keys);
        let engine = Engine::new(keys, None, Some(graph), STALE_MILLIS);
        let how = How {
            name,
            scope: "traces_service_graph",
            interval: self.interval,
            temporality: Temporality::Cumulative,
            exemplars_max: 0,
            offset: self.offset,
        };
        (engine, how)
    }
}

fn family(name: String, unit: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name: name.into(), unit, kind, help }
}

fn decode_interval(section: &mut Section<'_>) -> Duration {
    let interval = section.duration("metrics_flush_interval", Duration::from_secs(60));
    if interval < INTERVAL_MIN {
        section.note("metrics_flush_interval", "reported once a second, not more often");
    }
    interval.max(INTERVAL_MIN)
}

/// Bounds written as durations, in the unit that `per_second` says.
fn decode_bounds(section: &mut Section<'_>, key: &'static str, per_second: f64) -> Option<Bounds> {
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

/// What tells this process' series from another's: different at each start.
fn instance_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || RandomState::new().hash_one(std::process::id());
    let (high, low) = (random(), random());
    // The shape of a random UUID.
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
