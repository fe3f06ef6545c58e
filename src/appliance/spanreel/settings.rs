//! Spanreel's own settings, for which the Collector has no word: `extensions::spanreel`.

use super::access::AccessSettings;
use super::catch_up::CatchUpSettings;
use super::injection;
pub use super::injection::SilentAfter;
use super::remote_write::RemoteWriteSettings;
use crate::appliance::components::ExtensionSettings;
use crate::config::duration;
use crate::config::section::check_endpoint;
use crate::config::{Declaration, Role, Secrecy, Section, Stability, WhenNull};
use crate::forward::delivery::DeliverySettings;
use crate::inject;
use crate::query::Tempo;
use crate::red::RedSettings;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The `spanreel` extension.
pub const DECLARATION: Declaration<ExtensionSettings> = Declaration::new(
    "spanreel",
    Stability::Alpha,
    "Spanreel's own settings: data directory, budgets, query API, webhook.",
    |section| ExtensionSettings::Spanreel(Box::new(SpanreelSettings::decode(section))),
)
.always_on();

/// `extensions::spanreel`. Optional: without it these defaults hold, and it need not be listed in `service::extensions`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanreelSettings {
    /// `data_directory`; default `./spanreel-data`. The flag `--data` wins.
    pub data_directory: Option<PathBuf>,
    /// `query_endpoint`; default `127.0.0.1:3200` outside a cluster, `0.0.0.0:3200` inside. Empty string: off.
    pub query_endpoint: Option<String>,
    /// `query_grpc_endpoint`; default none. The streaming RPCs are on `query_endpoint`; this is for clients that look for
    /// them on a port of their own, Tempo's 9095.
    pub query_grpc_endpoint: Option<String>,
    /// `query_upstream`; default none. The URL of a Tempo that is asked for traces older than what is here.
    pub query_upstream: Option<String>,
    /// `access`: who may ask on these ports.
    pub access: AccessSettings,
    pub spool: SpoolSettings,
    pub store: StoreSettings,
    pub memory: MemorySettings,
    /// `other_signals`: what becomes of metrics and logs that no pipeline asked for.
    pub other_signals: OtherSignals,
    pub webhook: WebhookSettings,
    pub injection: inject::Settings,
    pub silent_after: SilentAfter,
    pub catch_up: CatchUpSettings,
    /// `delivery`: by exporter, what the Collector has no word for.
    pub delivery: BTreeMap<String, DeliverySettings>,
    pub metrics_from_spans: RedSettings,
    /// `metrics_from_spans::remote_write`; default none.
    pub remote_write: Option<RemoteWriteSettings>,
}

/// `extensions::spanreel::spool`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpoolSettings {
    /// `max_size_mib`; default 10240. The oldest batches go first.
    pub max_size_mib: u64,
    /// `max_age`; default none.
    pub max_age: Option<Duration>,
    /// `min_free_mib`; default 256. Intake is refused (retryable) while the disk has less free.
    pub min_free_mib: u64,
    /// `sync_interval`; default 0: an idle spool syncs at once. Longer spares flash: appends wait for company.
    pub sync_interval: Duration,
}

/// `extensions::spanreel::store`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// `enabled`; default true. Without, spans are kept, and found, only until every destination has them: for an edge in
    /// front of a Tempo.
    pub enabled: bool,
    /// `max_size_mib`; default 10240. What is kept for searching and what waits for destinations, together; the oldest
    /// traces go first.
    pub max_size_mib: u64,
    /// `max_age`; default 336h, as Tempo's. Zero: by size alone.
    pub max_age: Duration,
    /// `keep_sampled_out`; default none: as long as everything else. What `tail_sampling` left out of forwarding goes after so
    /// long already, once everything that came with it is decided about.
    pub keep_sampled_out: Option<Duration>,
}

/// `extensions::spanreel::memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// `max_mib`; default 64. What caches, requests under way, sealing, queries and their answers may hold together, beside the
    /// program itself; every share of it grows and shrinks with it.
    pub max_mib: u64,
}

/// What becomes of metrics and logs that no pipeline asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherSignals {
    /// Answered OK, counted, discarded: agents' logs stay quiet.
    #[default]
    Discard,
    /// UNIMPLEMENTED or 404, as the Collector does.
    Refuse,
}

/// `extensions::spanreel::webhook`. Only in a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    /// `endpoint`; default `0.0.0.0:9443`.
    pub endpoint: String,
    /// `url`: how the API server reaches the webhook when not through the Service, e.g. `https://127.0.0.1:9443`.
    pub url: Option<String>,
    /// `namespace`: where Service and Secret live; default the namespace of the pod's service account.
    pub namespace: Option<String>,
    /// `service`: name of the Service in front of the webhook; default `spanreel`.
    pub service: String,
    /// `pod_address`: the address in EndpointSlices; default the environment's `POD_IP`.
    pub pod_address: Option<String>,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self { max_size_mib: 10 * 1024, max_age: None, min_free_mib: 256, sync_interval: Duration::ZERO }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_size_mib: 10 * 1024,
            max_age: Duration::from_secs(14 * 24 * 3_600),
            keep_sampled_out: None,
        }
    }
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self { max_mib: 64 }
    }
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            endpoint: "0.0.0.0:9443".to_owned(),
            url: None,
            namespace: None,
            service: "spanreel".to_owned(),
            pod_address: None,
        }
    }
}

impl SpanreelSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let data_directory = section.file_path("data_directory");
        let query_endpoint = optional_endpoint(section, "query_endpoint", "localhost:3200");
        let query_grpc_endpoint = optional_endpoint(section, "query_grpc_endpoint", "localhost:9095");
        let query_upstream = optional(section, "query_upstream");
        if let Some(Err(error)) = query_upstream.as_deref().map(Tempo::parse) {
            section.error("query_upstream", error.to_string(), "the address of Tempo's HTTP port, usually 3200");
        }
        let (injection, silent_after) = section.section("injection", injection::decode);
        let (metrics_from_spans, remote_write) = section.section("metrics_from_spans", |section| {
            let settings = RedSettings::decode(section);
            (settings, section.optional("remote_write", WhenNull::Absent, RemoteWriteSettings::decode))
        });
        let words = [("discard", OtherSignals::Discard), ("refuse", OtherSignals::Refuse)];
        Self {
            data_directory,
            query_endpoint,
            query_upstream,
            query_grpc_endpoint: query_grpc_endpoint.filter(|endpoint| !endpoint.is_empty()),
            access: section.section("access", AccessSettings::decode),
            spool: section.section("spool", SpoolSettings::decode),
            store: section.section("store", StoreSettings::decode),
            memory: section.section("memory", MemorySettings::decode),
            other_signals: section.word("other_signals", &words, OtherSignals::Discard),
            webhook: section.section("webhook", WebhookSettings::decode),
            injection,
            silent_after,
            catch_up: section.section("catch_up", CatchUpSettings::decode),
            delivery: section
                .sections_by_id("delivery", Role::Exporter, DeliverySettings::decode)
                .into_iter()
                .collect(),
            metrics_from_spans,
            remote_write,
        }
    }
}

impl SpoolSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let settings = Self {
            max_size_mib: section.u64("max_size_mib", defaults.max_size_mib),
            max_age: section.optional_duration("max_age"),
            min_free_mib: section.u64("min_free_mib", defaults.min_free_mib),
            sync_interval: section.duration("sync_interval", defaults.sync_interval),
        };
        if settings.max_size_mib < SPOOL_MIB_MIN {
            let reason = format!("must be at least {SPOOL_MIB_MIN}, is {}", settings.max_size_mib);
            section.error("max_size_mib", reason, "smaller spools could not hold one round of batches");
        }
        for (key, mib) in [("max_size_mib", settings.max_size_mib), ("min_free_mib", settings.min_free_mib)] {
            if mib > SPOOL_MIB_MAX {
                section.error(key, format!("must not be above {SPOOL_MIB_MAX}, is {mib}"), "the unit is MiB");
            }
        }
        if settings.max_age.is_some_and(|age| age.is_zero()) {
            section.error("max_age", "must be greater than zero", "remove it to keep by size alone");
        }
        if settings.sync_interval > SYNC_INTERVAL_MAX {
            let reason = "must not be above 1s: clients wait that long for their answer";
            section.error("sync_interval", reason, "10ms to 100ms spare most of a flash disk's wear");
        }
        settings
    }
}

impl StoreSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let settings = Self {
            enabled: section.bool("enabled", defaults.enabled),
            max_size_mib: section.u64("max_size_mib", defaults.max_size_mib),
            max_age: section.duration("max_age", defaults.max_age),
            keep_sampled_out: section.optional_duration("keep_sampled_out"),
        };
        if let Some(keep) = settings.keep_sampled_out {
            let remedy = "remove it to keep what is sampled out as long as everything else";
            if !settings.enabled {
                section.error("keep_sampled_out", "has no meaning without the store, which is not enabled", remedy);
            } else if keep.is_zero() {
                section.error("keep_sampled_out", "must be greater than zero", remedy);
            } else if !settings.max_age.is_zero() && keep >= settings.max_age {
                let reason = format!(
                    "must be below max_age, which is {}, is {}: everything goes then",
                    duration::format(settings.max_age),
                    duration::format(keep)
                );
                section.error("keep_sampled_out", reason, remedy);
            }
        }
        if !(SPOOL_MIB_MIN..=SPOOL_MIB_MAX).contains(&settings.max_size_mib) {
            let reason = format!("must be from {SPOOL_MIB_MIN} to {SPOOL_MIB_MAX}, is {}", settings.max_size_mib);
            section.error("max_size_mib", reason, "the unit is MiB");
        }
        settings
    }
}

impl MemorySettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self { max_mib: section.u64("max_mib", Self::default().max_mib) };
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&settings.max_mib) {
            let reason = format!("must be from {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}, is {}", settings.max_mib);
            section.error("max_mib", reason, "the unit is MiB; the default is 64");
        }
        settings
    }
}

/// Less could not hold one large request, one run and one query.
const MEMORY_MIB_MIN: u64 = 32;
/// A tebibyte: more is a slip.
const MEMORY_MIB_MAX: u64 = 1 << 20;
/// Less than this cannot hold the batches under way.
const SPOOL_MIB_MIN: u64 = 16;
/// An exbibyte: more is a slip, and its bytes would not fit a u64 for long.
const SPOOL_MIB_MAX: u64 = 1 << 40;
/// Clients give up after ten seconds by default; half of them retry before.
const SYNC_INTERVAL_MAX: Duration = Duration::from_secs(1);

impl WebhookSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let settings = Self {
            endpoint: section.endpoint("endpoint", &defaults.endpoint),
            url: optional(section, "url"),
            namespace: optional(section, "namespace"),
            service: section.text("service", &defaults.service),
            pod_address: optional(section, "pod_address"),
        };
        if settings.url.as_deref().is_some_and(|url| !url.starts_with("https://")) {
            section.error("url", "must begin with https://", "the API server calls webhooks by TLS only");
        }
        if settings.pod_address.as_deref().is_some_and(|address| address.parse::<std::net::IpAddr>().is_err()) {
            section.error("pod_address", "must be an IP address", "e.g. ${env:POD_IP}");
        }
        settings
    }
}

/// An address to listen on, which may be empty.
fn optional_endpoint(section: &mut Section<'_>, key: &'static str, example: &str) -> Option<String> {
    let endpoint = section.optional_text(key, Secrecy::Open);
    if let Some(Err((reason, remedy))) =
        endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()).map(|endpoint| check_endpoint(endpoint, example))
    {
        section.error(key, reason, remedy);
    }
    endpoint
}

/// A text that means the same empty and absent.
fn optional(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    section.optional_text(key, Secrecy::Open).filter(|text| !text.is_empty())
}
