//! Settings of the `health_check` extension, with the Collector's names and defaults.

/// `extensions::health_check`.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheckSettings {
    /// `host:port`; default `localhost:13133`.
    pub endpoint: String,
    /// Default `/`.
    pub path: String,
    /// Sent instead of the default JSON body, if given.
    pub healthy_body: Option<String>,
    pub unhealthy_body: Option<String>,
}
