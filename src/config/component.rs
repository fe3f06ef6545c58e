//! How components are named, declared and listed. The rooms declare them; a [`Kit`] lists them; this room reads the list.

use super::Config;
use super::diagnostic::Report;
use super::section::Section;
use crate::otlp::Signal;
use std::fmt;

/// `type` or `type/name`, as the user wrote it: the same text appears in metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId {
    kind: String,
    name: Option<String>,
}

/// Longest type, as in the Collector.
const KIND_CHARS_MAX: usize = 63;
/// Longest name, as in the Collector.
const NAME_CHARS_MAX: usize = 1024;

/// Why a text is no component id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("the part before the slash is empty")]
    NoKind,
    #[error("a type begins with a letter and goes on with at most 62 letters, digits and underscores")]
    Kind,
    #[error("the part after the slash is empty")]
    NoName,
    #[error("a name has at most 1024 characters, without spaces, control characters and symbols")]
    Name,
}

impl ComponentId {
    /// Reads `type[/name]`; spaces around either part are trimmed, as in the Collector.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind.trim(), Some(name.trim())),
            None => (text.trim(), None),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if kind.is_empty() {
            return Err(IdError::NoKind);
        }
        let starts_well = kind.starts_with(|c: char| c.is_ascii_alphabetic());
        if !starts_well || !kind.chars().all(word) || kind.len() > KIND_CHARS_MAX {
            return Err(IdError::Kind);
        }
        // Go's symbol classes that fit on a keyboard; the others are harmless in logs and metrics.
        let symbol = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~')
        };
        match name {
            Some("") => Err(IdError::NoName),
            Some(name) if name.chars().any(symbol) || name.chars().count() > NAME_CHARS_MAX => Err(IdError::Name),
            name => Ok(Self { kind: kind.to_owned(), name: name.map(str::to_owned) }),
        }
    }

    /// The part before the slash, as written: `otlp` may be an alias of `otlp_grpc`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The part after the slash.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

/// What users can rely on, in the Collector's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    Alpha,
    Beta,
    Stable,
}

impl fmt::Display for Stability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alpha => "Alpha",
            Self::Beta => "Beta",
            Self::Stable => "Stable",
        })
    }
}

/// One component that a configuration can name. A const beside its settings; `S` is the kind's settings enum.
pub struct Declaration<S> {
    /// The canonical type name.
    pub type_name: &'static str,
    /// Other names that load, e.g. those the Collector used before.
    pub aliases: &'static [&'static str],
    pub stability: Stability,
    /// One line for `spanreel components`.
    pub summary: &'static str,
    /// Works without being listed under `service` (extensions only).
    pub always_on: bool,
    /// The signals whose pipelines may name it (receivers, processors, exporters).
    pub signals: &'static [Signal],
    /// From the signal of a pipeline that it ends to the signal of one that it begins (connectors only).
    pub routes: &'static [(Signal, Signal)],
    /// Reads the settings. Errors are collected in the section; what is returned after one is never used.
    pub decode: fn(&mut Section<'_>) -> S,
}

impl<S> Declaration<S> {
    /// A component without aliases, for traces.
    pub const fn new(
        type_name: &'static str,
        stability: Stability,
        summary: &'static str,
        decode: fn(&mut Section<'_>) -> S,
    ) -> Self {
        Self {
            type_name,
            aliases: &[],
            stability,
            summary,
            always_on: false,
            signals: &[Signal::Traces],
            routes: &[],
            decode,
        }
    }

    /// With the other names that load.
    pub const fn with_aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// An extension that works without being listed under `service::extensions`.
    pub const fn always_on(mut self) -> Self {
        self.always_on = true;
        self
    }

    /// For pipelines of these signals.
    pub const fn serving(mut self, signals: &'static [Signal]) -> Self {
        self.signals = signals;
        self
    }

    /// A connector between pipelines of these signals.
    pub const fn connecting(mut self, routes: &'static [(Signal, Signal)]) -> Self {
        self.routes = routes;
        self
    }

    /// The canonical name, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.type_name).chain(self.aliases.iter().copied())
    }
}

/// The components a configuration may name. The appliance implements it; so this room knows no other.
pub trait Kit: Sized + fmt::Debug + Clone + PartialEq + 'static {
    type Receiver: fmt::Debug + Clone + PartialEq;
    type Processor: fmt::Debug + Clone + PartialEq;
    type Exporter: fmt::Debug + Clone + PartialEq;
    type Connector: fmt::Debug + Clone + PartialEq;
    type Extension: fmt::Debug + Clone + PartialEq;

    fn receivers() -> &'static [Declaration<Self::Receiver>];
    fn processors() -> &'static [Declaration<Self::Processor>];
    fn exporters() -> &'static [Declaration<Self::Exporter>];
    fn connectors() -> &'static [Declaration<Self::Connector>];
    fn extensions() -> &'static [Declaration<Self::Extension>];

    /// Checks across components, after each was read without error.
    fn check(_config: &Config<Self>, _report: &Report) {}
}

/// The kinds of components, with the names the Collector's sections have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Receiver,
    Processor,
    Exporter,
    Connector,
    Extension,
}

impl Role {
    /// `receiver`, ...
    pub const fn word(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Processor => "processor",
            Self::Exporter => "exporter",
            Self::Connector => "connector",
            Self::Extension => "extension",
        }
    }

    /// `a receiver`, `an exporter`, ...
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Receiver => "a receiver",
            Self::Processor => "a processor",
            Self::Exporter => "an exporter",
            Self::Connector => "a connector",
            Self::Extension => "an extension",
        }
    }

    /// `receivers`, ...: the key of the section.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Receiver => "receivers",
            Self::Processor => "processors",
            Self::Exporter => "exporters",
            Self::Connector => "connectors",
            Self::Extension => "extensions",
        }
    }

    /// What the Collector's distributions have under this section, so that "not supported here" differs from a slip.
    pub const fn collector_types(self) -> &'static [&'static str] {
        match self {
            Self::Receiver => &[
                "apache",
                "awsxray",
                "awscontainerinsightreceiver",
                "azureeventhub",
                "carbon",
                "cloudflare",
                "collectd",
                "count",
                "datadog",
                "docker_stats",
                "faro",
                "file_log",
                "filelog",
                "filestats",
                "fluentforward",
                "githubreceiver",
                "googlecloudpubsub",
                "host_metrics",
                "hostmetrics",
                "httpcheck",
                "influxdb",
                "jaeger",
                "journald",
                "k8s_cluster",
                "k8s_events",
                "k8sobjects",
                "kafka",
                "kubeletstats",
                "loki",
                "mongodb",
                "mysql",
                "nginx",
                "nop",
                "opencensus",
                "otelarrow",
                "otlp_json_file",
                "otlpjsonfile",
                "postgresql",
                "prometheus",
                "prometheus_simple",
                "pulsar",
                "rabbitmq",
                "receiver_creator",
                "redis",
                "sapm",
                "signalfx",
                "skywalking",
                "snmp",
                "solace",
                "splunk_hec",
                "sqlquery",
                "statsd",
                "syslog",
                "tcplog",
                "udplog",
                "webhookevent",
                "windowseventlog",
                "zipkin",
            ],
            Self::Processor => &[
                "attributes",
                "cumulativetodelta",
                "deltatocumulative",
                "deltatorate",
                "experimental_metricsgeneration",
                "filter",
                "geoip",
                "group_by_attributes",
                "groupbyattrs",
                "groupbytrace",
                "interval",
                "k8s_attributes",
                "k8sattributes",
                "logdedup",
                "logstransform",
                "metricstransform",
                "probabilistic_sampler",
                "queue_batch",
                "queuebatch",
                "redaction",
                "remotetap",
                "resource",
                "resource_detection",
                "resourcedetection",
                "routing",
                "schema",
                "span",
                "sumologic",
                "transform",
            ],
            Self::Exporter => &[
                "alertmanager",
                "awscloudwatchlogs",
                "awsemf",
                "awskinesis",
                "awss3",
                "awsxray",
                "azuremonitor",
                "carbon",
                "cassandra",
                "clickhouse",
                "coralogix",
                "datadog",
                "elasticsearch",
                "faro",
                "file",
                "googlecloud",
                "googlemanagedprometheus",
                "honeycombmarker",
                "influxdb",
                "jaeger",
                "kafka",
                "load_balancing",
                "loadbalancing",
                "logging",
                "logicmonitor",
                "logzio",
                "loki",
                "mezmo",
                "nop",
                "opencensus",
                "opensearch",
                "otelarrow",
                "prometheus",
                "prometheus_remote_write",
                "prometheusremotewrite",
                "pulsar",
                "sapm",
                "sentry",
                "signalfx",
                "splunk_hec",
                "sumologic",
                "syslog",
                "zipkin",
            ],
            Self::Connector => &[
                "count",
                "datadog",
                "exceptions",
                "failover",
                "forward",
                "grafanacloud",
                "metricsaslogs",
                "otlpjson",
                "roundrobin",
                "routing",
                "service_graph",
                "servicegraph",
                "signal_to_metrics",
                "signaltometrics",
                "span_metrics",
                "spanmetrics",
                "sum",
            ],
            Self::Extension => &[
                "ack",
                "asapclient",
                "awsproxy",
                "basicauth",
                "bearertokenauth",
                "db_storage",
                "docker_observer",
                "ecs_observer",
                "headers_setter",
                "health_check",
                "host_observer",
                "http_forwarder",
                "jaegerremotesampling",
                "k8s_leader_elector",
                "k8s_observer",
                "memory_limiter",
                "oauth2client",
                "oidc",
                "opamp",
                "pprof",
                "redis_storage",
                "remotetap",
                "sigv4auth",
                "sumologic",
                "zpages",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = ComponentId::parse(" otlp / tempo ").unwrap();
        assert_eq!((id.kind(), id.name(), id.to_string()), ("otlp", Some("tempo"), "otlp/tempo".to_owned()));
        assert_eq!(ComponentId::parse("otlp/a/b").unwrap().name(), Some("a/b"));
        assert_eq!(ComponentId::parse("/x"), Err(IdError::NoKind));
        assert_eq!(ComponentId::parse("otlp/"), Err(IdError::NoName));
        assert_eq!(ComponentId::parse("1otlp"), Err(IdError::Kind));
        assert_eq!(ComponentId::parse("ot-lp"), Err(IdError::Kind));
        assert_eq!(ComponentId::parse("otlp/a b"), Err(IdError::Name));
    }
}
