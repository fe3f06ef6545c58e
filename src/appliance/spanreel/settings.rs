//! Spanreel's own settings, for which the Collector has no word: `extensions::spanreel`.

use std::path::PathBuf;
use std::time::Duration;

/// `extensions::spanreel`. Optional: without it these defaults hold, and it need not be listed in `service::extensions`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanreelSettings {
    /// `data_directory`; default `./spanreel-data`. The flag `--data` wins.
    pub data_directory: Option<PathBuf>,
    /// `query_endpoint`; default `127.0.0.1:3200` outside a cluster, `0.0.0.0:3200` inside. Empty string: off.
    pub query_endpoint: Option<String>,
    pub spool: SpoolSettings,
    /// `other_signals`: what becomes of metrics and logs that no pipeline asked for.
    pub other_signals: OtherSignals,
    pub webhook: WebhookSettings,
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

impl Default for SpanreelSettings {
    fn default() -> Self {
        Self {
            data_directory: None,
            query_endpoint: None,
            spool: SpoolSettings::default(),
            other_signals: OtherSignals::default(),
            webhook: WebhookSettings::default(),
        }
    }
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self { max_size_mib: 10 * 1024, max_age: None, min_free_mib: 256, sync_interval: Duration::ZERO }
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
