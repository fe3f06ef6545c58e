//! `extensions::spanreel::metrics_from_spans`: the keys are those of Tempo's metrics-generator where it has them.

use super::facts::Keys;
use super::graph::{self, DatabaseAddress, ServiceGraph};
use super::histogram::{BOUNDS_MAX, Bounds, Scheme};
use super::labels::sanitized;
use super::spans::{self, Dimension, Figure, Group, Precedence, SpanMetrics, Subject};
use super::{Engine, Family, Kind};
use crate::config::Section;
use std::time::Duration;

/// What is counted for `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct RedSettings {
    /// `enabled`; default true.
    pub enabled: bool,
    /// `max_series`; default 2000. Label sets of span metrics, of the service graph and of targets, each. One takes up
    /// to 1.2 kilobytes and its labels; with the default buckets it is 17 or 20 series in Prometheus.
    pub series_max: usize,
    /// `stale_duration`; default 15m. A series to which nothing was added for so long goes. Zero: never.
    pub stale_after: Duration,
    /// `exemplars`; default true: a trace id with each bucket.
    pub exemplars: bool,
    /// `span_metrics`; on by default.
    pub span_metrics: Option<SpanMetricsSettings>,
    /// `service_graphs`; on by default.
    pub service_graphs: Option<ServiceGraphSettings>,
}

/// `span_metrics`, with Tempo's names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanMetricsSettings {
    /// `histogram_buckets`, seconds; default 0.002 doubled 13 times.
    pub buckets: Bounds,
    /// `intrinsic_dimensions`: which of `service`, `span_name`, `span_kind`, `status_code` (on by default) and
    /// `status_message` (off) are labels.
    pub intrinsic: Vec<(String, Dimension)>,
    /// `dimensions`: attributes that become labels; default none.
    pub dimensions: Vec<String>,
    /// `enable_target_info`; default false: `traces_target_info` by `job` and `instance`, which become labels too.
    pub target_info: bool,
}

/// `service_graphs`, with Tempo's names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceGraphSettings {
    /// `wait`; default 10s: how long a span waits for the other side of its call.
    pub wait: Duration,
    /// `max_items`; default 10000: spans that wait at once. One takes about 300 bytes.
    pub waiting_max: usize,
    /// `histogram_buckets`, seconds; default 0.1 doubled 7 times.
    pub buckets: Bounds,
    /// `dimensions`: attributes that become labels; default none.
    pub dimensions: Vec<String>,
    /// `enable_client_server_prefix`; default false.
    pub client_server_prefix: bool,
    /// `enable_virtual_node_label`; default false.
    pub virtual_node_label: bool,
    /// `enable_messaging_system_latency_histogram`; default false.
    pub messaging_latency: bool,
    /// `enable_connection_info`; default false: `traces_service_graph_connection_info`, 1 for each edge.
    pub connection_info: bool,
    /// `peer_attributes`; default peer.service, db.name, db.system, db.system.name.
    pub peer_attributes: Vec<String>,
    /// `database_name_attributes`; default db.namespace, db.name, db.system, db.system.name.
    pub database_attributes: Vec<String>,
}

/// More labels than this make no metric.
pub(super) const DIMENSIONS_MAX: usize = 16;
const SERIES_MAX: u64 = 100_000;
const WAITING_MAX: u64 = 1_000_000;

impl Default for RedSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            series_max: 2_000,
            stale_after: Duration::from_secs(15 * 60),
            exemplars: true,
            span_metrics: Some(SpanMetricsSettings::default()),
            service_graphs: Some(ServiceGraphSettings::default()),
        }
    }
}

impl Default for SpanMetricsSettings {
    fn default() -> Self {
        let on = [
            ("service", Dimension::Service),
            ("span_name", Dimension::SpanName),
            ("span_kind", Dimension::SpanKind),
            ("status_code", Dimension::StatusCode),
        ];
        Self {
            buckets: Bounds::doubling(0.002, 14),
            intrinsic: on.map(|(name, dimension)| (name.to_owned(), dimension)).into(),
            dimensions: Vec::new(),
            target_info: false,
        }
    }
}

impl Default for ServiceGraphSettings {
    fn default() -> Self {
        let texts = |texts: [&str; 4]| texts.map(str::to_owned).into();
        Self {
            wait: Duration::from_secs(10),
            waiting_max: 10_000,
            buckets: Bounds::doubling(0.1, 8),
            dimensions: Vec::new(),
            client_server_prefix: false,
            virtual_node_label: false,
            messaging_latency: false,
            connection_info: false,
            peer_attributes: texts(["peer.service", "db.name", "db.system", "db.system.name"]),
            database_attributes: texts(["db.namespace", "db.name", "db.system", "db.system.name"]),
        }
    }
}

impl RedSettings {
    pub fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let series_max = section.u64("max_series", defaults.series_max as u64);
        if !(1..=SERIES_MAX).contains(&series_max) {
            section.error("max_series", format!("must be from 1 to {SERIES_MAX}, is {series_max}"), "");
        }
        Self {
            enabled: section.bool("enabled", defaults.enabled),
            series_max: series_max as usize,
            stale_after: section.duration("stale_duration", defaults.stale_after),
            exemplars: section.bool("exemplars", defaults.exemplars),
            span_metrics: section.section("span_metrics", |section| {
                let (on, settings) = (section.bool("enabled", true), SpanMetricsSettings::decode(section));
                on.then_some(settings)
            }),
            service_graphs: section.section("service_graphs", |section| {
                let (on, settings) = (section.bool("enabled", true), ServiceGraphSettings::decode(section));
                on.then_some(settings)
            }),
        }
    }

    /// The counters, or `None` if there is nothing to count.
    pub fn engine(&self) -> Option<Engine> {
        let mut keys = Keys::default();
        let spans = self.span_metrics.as_ref().filter(|_| self.enabled).map(|settings| {
            let plan = settings.plan(self, &mut keys);
            SpanMetrics::new(plan, &mut keys)
        });
        let graph = self.service_graphs.as_ref().filter(|_| self.enabled).map(|settings| {
            let plan = settings.plan(self, &mut keys);
            ServiceGraph::new(plan, &mut keys)
        });
        let is_something = spans.is_some() || graph.is_some();
        is_something.then(|| Engine::new(keys, spans, graph, self.stale_after.as_millis() as u64))
    }
}

impl SpanMetricsSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let intrinsic = section.section("intrinsic_dimensions", |section| {
            let all = [
                ("service", true, Dimension::Service),
                ("span_name", true, Dimension::SpanName),
                ("span_kind", true, Dimension::SpanKind),
                ("status_code", true, Dimension::StatusCode),
                ("status_message", false, Dimension::StatusMessage),
            ];
            let wanted = all
                .into_iter()
                .filter_map(|(name, on, dimension)| section.bool(name, on).then(|| (name.to_owned(), dimension)));
            wanted.collect()
        });
        for (key, why) in [
            ("dimension_mappings", "labels come from one attribute each"),
            ("filter_policies", "every span counts"),
            ("subprocessors", "calls, latency and size are counted together"),
            ("span_multiplier_key", "spans are counted before anything is sampled"),
            ("target_info_excluded_dimensions", "all attributes of a resource are shown"),
        ] {
            section.unsupported(key, why, "remove it");
        }
        Self {
            buckets: decode_buckets(section, defaults.buckets),
            intrinsic,
            dimensions: decode_dimensions(section, &["le"]),
            target_info: section.bool("enable_target_info", defaults.target_info),
        }
    }

    fn plan(&self, red: &RedSettings, keys: &mut Keys) -> spans::Plan {
        let mut dimensions = self.intrinsic.clone();
        for attribute in &self.dimensions {
            let dimension = Dimension::Attribute { key: keys.index_of(attribute), default: None };
            dimensions.push((label_of(attribute), dimension));
        }
        if self.target_info {
            dimensions.push(("job".to_owned(), Dimension::Job));
            dimensions.push(("instance".to_owned(), Dimension::Instance));
        }
        let families = vec![
            (family("traces_spanmetrics_calls", "1", Kind::Counter, "Spans"), Figure::Calls),
            (
                family("traces_spanmetrics_latency", "s", Kind::Histogram, "Duration of spans in seconds"),
                Figure::Latency,
            ),
            (family("traces_spanmetrics_size", "By", Kind::Counter, "Bytes of spans as OTLP"), Figure::Size),
        ];
        spans::Plan {
            groups: vec![Group { subject: Subject::Spans, dimensions, globs: None, families }],
            target_info: self
                .target_info
                .then(|| family("traces_target_info", "1", Kind::Gauge, "Attributes of resources")),
            precedence: Precedence::Resource,
            scheme: Scheme::Explicit(self.buckets.clone()),
            unit_nanos: 1e9,
            exemplars: red.exemplars,
            series_max: red.series_max,
            by_resource: None,
            needs_service: false,
            extrapolates: false,
            scopes: Vec::new(),
        }
    }
}

impl ServiceGraphSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let waiting_max = section.u64("max_items", defaults.waiting_max as u64);
        if !(1..=WAITING_MAX).contains(&waiting_max) {
            section.error("max_items", format!("must be from 1 to {WAITING_MAX}, is {waiting_max}"), "");
        }
        for (key, why) in [
            ("workers", "pairing takes no workers of its own"),
            ("span_multiplier_key", "spans are counted before anything is sampled"),
            ("filter_policies", "every span counts"),
        ] {
            section.unsupported(key, why, "remove it");
        }
        let client_server_prefix = section.bool("enable_client_server_prefix", defaults.client_server_prefix);
        let taken: &[&str] = match client_server_prefix {
            true => &[],
            false => &["client", "server", "connection_type", "virtual_node", "le"],
        };
        Self {
            wait: section.duration("wait", defaults.wait),
            waiting_max: waiting_max as usize,
            buckets: decode_buckets(section, defaults.buckets),
            dimensions: decode_dimensions(section, taken),
            client_server_prefix,
            virtual_node_label: section.bool("enable_virtual_node_label", defaults.virtual_node_label),
            messaging_latency: section.bool("enable_messaging_system_latency_histogram", defaults.messaging_latency),
            connection_info: section.bool("enable_connection_info", defaults.connection_info),
            peer_attributes: decode_attributes(section, "peer_attributes", defaults.peer_attributes),
            database_attributes: decode_attributes(section, "database_name_attributes", defaults.database_attributes),
        }
    }

    fn plan(&self, red: &RedSettings, keys: &mut Keys) -> graph::Plan {
        let mut indexes = |names: &[String]| names.iter().map(|name| keys.index_of(name)).collect::<Vec<_>>();
        let (peer, database) = (indexes(&self.peer_attributes), indexes(&self.database_attributes));
        let dimensions = self.dimensions.iter().map(|name| sanitized(name)).zip(indexes(&self.dimensions)).collect();
        let latency = |name, help| family(name, "s", Kind::Histogram, help);
        graph::Plan {
            requests: family("traces_service_graph_request", "1", Kind::Counter, "Calls between two services"),
            failed: family(
                "traces_service_graph_request_failed",
                "1",
                Kind::Counter,
                "Failed calls between two services",
            ),
            server_latency: latency(
                "traces_service_graph_request_server_seconds",
                "Duration of calls as the server saw them, in seconds",
            ),
            client_latency: latency(
                "traces_service_graph_request_client_seconds",
                "Duration of calls as the client saw them, in seconds",
            ),
            messaging_latency: self.messaging_latency.then(|| {
                latency(
                    "traces_service_graph_request_messaging_system_seconds",
                    "Time between the sending and the receiving of a message, in seconds",
                )
            }),
            connection_info: self.connection_info.then(|| {
                family("traces_service_graph_connection_info", "1", Kind::Gauge, "Services that call one another")
            }),
            dimensions,
            client_server_prefix: self.client_server_prefix,
            virtual_node_label: self.virtual_node_label,
            failed_label: false,
            scheme: Scheme::Explicit(self.buckets.clone()),
            wait_millis: self.wait.as_millis() as u64,
            waiting_max: self.waiting_max,
            peer,
            database,
            database_address: Some(DatabaseAddress {
                peer_service: keys.index_of("peer.service"),
                server_address: keys.index_of("server.address"),
                network_peer_address: keys.index_of("network.peer.address"),
                network_peer_port: keys.index_of("network.peer.port"),
            }),
            peer_calls_roots: true,
            unknown_server: None,
            exemplars: red.exemplars,
            series_max: red.series_max,
        }
    }
}

fn family(name: &'static str, unit: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name: name.into(), unit, kind, help }
}

/// As Tempo names the label of an attribute: one that is called like a label of its own gets two underscores in front.
fn label_of(attribute: &str) -> String {
    const TAKEN: [&str; 7] = ["service", "span_name", "span_kind", "status_code", "status_message", "job", "instance"];
    let name = sanitized(attribute);
    if TAKEN.contains(&name.as_str()) { format!("__{name}") } else { name }
}

fn decode_buckets(section: &mut Section<'_>, default: Bounds) -> Bounds {
    let Some(buckets) = section.numbers("histogram_buckets") else { return default };
    match check_bounds(&buckets) {
        Ok(()) => Bounds::new(&buckets),
        Err(reason) => {
            section.error("histogram_buckets", reason, "e.g. [0.1, 0.5, 1, 5]; seconds");
            default
        }
    }
}

/// Bounds must ascend, or nothing would be counted where it belongs.
pub fn check_bounds(bounds: &[f64]) -> Result<(), String> {
    if bounds.is_empty() || bounds.len() > BOUNDS_MAX {
        return Err(format!("must be from 1 to {BOUNDS_MAX} numbers, are {}", bounds.len()));
    }
    let ascends = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|bound| bound.is_finite());
    if ascends { Ok(()) } else { Err("must be finite and ascend".to_owned()) }
}

/// Attributes that become labels. Not those that would be a label a second time (`taken`), or one of Prometheus' own: a page
/// with such a label is refused as a whole.
fn decode_dimensions(section: &mut Section<'_>, taken: &[&str]) -> Vec<String> {
    let dimensions = section.list("dimensions");
    if dimensions.len() > DIMENSIONS_MAX {
        let reason = format!("at most {DIMENSIONS_MAX} attributes, are {}", dimensions.len());
        section.error("dimensions", reason, "every one multiplies the number of series");
    }
    let mut names: Vec<String> = dimensions.iter().map(|name| sanitized(name)).collect();
    names.sort_unstable();
    if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
        section.error("dimensions", format!("two of these are the label {twice}"), "name each attribute once");
    }
    for name in names.iter().filter(|name| taken.contains(&name.as_str()) || name.starts_with("__")) {
        section.error("dimensions", format!("{name} is a label already"), "name another attribute");
    }
    if dimensions.iter().any(String::is_empty) {
        section.error("dimensions", "an attribute without a name", "remove it");
    }
    dimensions
}

fn decode_attributes(section: &mut Section<'_>, key: &'static str, default: Vec<String>) -> Vec<String> {
    let (is_written, attributes) = (section.has(key), section.list(key));
    if attributes.len() > DIMENSIONS_MAX {
        section.error(key, format!("at most {DIMENSIONS_MAX} attributes, are {}", attributes.len()), "");
    }
    if is_written { attributes } else { default }
}
