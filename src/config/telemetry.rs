//! `service::telemetry`: what Spanreel says about itself, in the Collector's words.

use super::section::{Secrecy, Section, Shape, WhenNull, check_endpoint};

/// `service::telemetry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// `logs::level`, if given; the flag `--log-level` wins.
    pub log_level: Option<LogLevel>,
    /// `logs::encoding`, if given; otherwise text on a terminal and JSON elsewhere.
    pub log_encoding: Option<LogEncoding>,
    /// `metrics::level`; default [`MetricsLevel::Normal`].
    pub metrics_level: MetricsLevel,
    /// `host:port` of every listener with the Collector's own metrics; default `localhost:8888`, none at level `none`.
    pub metrics_endpoints: Vec<String>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEncoding {
    /// Text for people.
    Console,
    Json,
}

/// How many of the Collector's own metrics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsLevel {
    None,
    Basic,
    #[default]
    Normal,
    Detailed,
}

/// Where the Collector listens for scrapes of its own metrics unless told otherwise.
const METRICS_ENDPOINT: &str = "localhost:8888";

impl TelemetrySettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let (log_level, log_encoding) = section.section("logs", logs);
        let (metrics_level, metrics_endpoints) = section.section("metrics", metrics);
        section.section("traces", traces);
        resource(section);
        Self { log_level, log_encoding, metrics_level, metrics_endpoints }
    }
}

fn logs(section: &mut Section<'_>) -> (Option<LogLevel>, Option<LogEncoding>) {
    let levels = [
        ("debug", Some(LogLevel::Debug)),
        ("info", Some(LogLevel::Info)),
        ("warn", Some(LogLevel::Warn)),
        ("error", Some(LogLevel::Error)),
        ("dpanic", Some(LogLevel::Error)),
        ("panic", Some(LogLevel::Error)),
        ("fatal", Some(LogLevel::Error)),
    ];
    let level = section.word_any_case("level", &levels, None);
    let encodings = [("console", Some(LogEncoding::Console)), ("json", Some(LogEncoding::Json)), ("", None)];
    let encoding = section.word("encoding", &encodings, None);
    section.inert("development", Shape::Bool, "there is no development mode");
    section.inert("disable_caller", Shape::Bool, "log lines name their module, never file and line");
    section.inert("disable_stacktrace", Shape::Bool, "log lines have no stack traces");
    let sampling =
        [("enabled", Shape::Bool), ("tick", Shape::Duration), ("initial", Shape::Int), ("thereafter", Shape::Int)];
    section.inert_section("sampling", &sampling, "log lines are few and not sampled");
    section.inert("disable_zap_resource", Shape::Bool, "log lines carry no resource");
    section.inert("output_paths", Shape::List, "logs go to standard error");
    section.inert("error_output_paths", Shape::List, "logs go to standard error");
    section.inert("initial_fields", Shape::Map, "log lines carry no fixed fields");
    not_pushed(section, "processors", Shape::List, "logs go to standard error", "collect it, as for any pod");
    (level, encoding)
}

/// `traces`: nothing of it has an effect, but it is checked as the Collector checks it.
fn traces(section: &mut Section<'_>) {
    if section.is_empty() {
        return;
    }
    let levels = ["none", "basic", "normal", "detailed"];
    section.accept_word("level", &levels);
    section.accept("propagators", Shape::List);
    section.accept("processors", Shape::List);
    section.accept("sampler", Shape::Map);
    section.accept("limits", Shape::Map);
    section.note("", "accepted, without effect: Spanreel does not trace itself");
}

/// `resource`: names and texts (null: not that one), or the list `attributes` beside them.
fn resource(section: &mut Section<'_>) {
    let declarative = ["attributes", "attributes_list", "detectors", "detection/development", "schema_url"];
    if section.texts_or_null("resource", &declarative) {
        section.note("resource", "accepted, without effect: Spanreel's own metrics carry no resource attributes");
    }
}

fn metrics(section: &mut Section<'_>) -> (MetricsLevel, Vec<String>) {
    let levels = [
        ("none", MetricsLevel::None),
        ("basic", MetricsLevel::Basic),
        ("normal", MetricsLevel::Normal),
        ("detailed", MetricsLevel::Detailed),
    ];
    let level = section.word_any_case("level", &levels, MetricsLevel::Normal);
    let has_readers = section.has("readers");
    let listed = section.sections("readers", reader);
    let readers = listed.len();
    let address = section.optional_text("address", Secrecy::Open);
    if let Some(address) = &address {
        section.note("address", "the Collector dropped this key in favour of readers; it still works here");
        if let Err((reason, remedy)) = check_endpoint(address, METRICS_ENDPOINT) {
            section.error("address", reason, remedy);
        }
    }
    section.inert("views", Shape::List, "the metrics are fixed");
    if section.has("views") && level != MetricsLevel::Detailed && section.is_sound() {
        section.error("views", "goes with level: detailed only, as in the Collector", "remove it, or set that level");
    }
    let mut endpoints: Vec<String> = listed.into_iter().flatten().chain(address).collect();
    if endpoints.is_empty() && !has_readers {
        endpoints.push(METRICS_ENDPOINT.to_owned());
    }
    if level == MetricsLevel::None {
        endpoints.clear();
    } else if endpoints.is_empty() && readers == 0 && section.is_sound() {
        section.error("readers", "a level other than none needs a reader", "write level: none, or a pull reader");
    }
    endpoints.sort();
    endpoints.dedup();
    (level, endpoints)
}

/// What the Collector would send somewhere about itself: a warning, because spans are forwarded all the same.
fn not_pushed(section: &mut Section<'_>, key: &'static str, shape: Shape, instead: &str, remedy: &str) {
    section.accept(key, shape);
    if section.has(key) {
        section.warn(key, format!("is not sent by OTLP: {instead}"), remedy);
    }
}

/// One entry of `readers`: the `host:port` that it listens on.
fn reader(section: &mut Section<'_>) -> Option<String> {
    let endpoint = section.optional("pull", WhenNull::On, |pull| {
        pull.section("exporter", |exporter| exporter.optional("prometheus", WhenNull::On, prometheus))
    });
    let remedy = "scrape a pull reader, or extensions::spanreel::query_endpoint at /metrics";
    not_pushed(section, "periodic", Shape::Map, "Spanreel's own metrics are scraped", remedy);
    endpoint.flatten()
}

fn prometheus(section: &mut Section<'_>) -> String {
    let host = section.text("host", "localhost");
    let port = section.u32("port", 8888);
    for key in ["without_scope_info", "without_units", "without_type_suffix", "with_resource_constant_labels"] {
        let shape = if key == "with_resource_constant_labels" { Shape::Map } else { Shape::Bool };
        section.inert_but(key, shape, &["true"], "metric names carry no scope, unit or type suffix");
    }
    let endpoint = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    if let Err((reason, remedy)) = check_endpoint(&endpoint, METRICS_ENDPOINT) {
        section.error("port", reason, remedy);
    }
    endpoint
}
