//! Settings of the `otlp` receiver, with the Collector's names and defaults (OTLP receiver v0.159; both protocols are
//! optional there, at least one is required).

use crate::receive::settings::ServerTlsSettings;

/// `receivers::otlp`.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpReceiverSettings {
    pub grpc: Option<GrpcSettings>,
    pub http: Option<HttpSettings>,
}

/// `protocols::grpc`.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcSettings {
    /// `host:port`; default `localhost:4317`.
    pub endpoint: String,
    /// MiB on the wire and after decompression; 0 means 4, as in grpc-go.
    pub max_recv_msg_size_mib: u64,
    /// Per connection; 0 means the appliance's own bound.
    pub max_concurrent_streams: u32,
    pub tls: Option<ServerTlsSettings>,
}

/// `protocols::http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// `host:port`; default `localhost:4318`.
    pub endpoint: String,
    /// Default `/v1/traces`; a missing leading slash is added.
    pub traces_url_path: String,
    pub metrics_url_path: String,
    pub logs_url_path: String,
    /// Bytes on the wire and after decompression; 0 or less means 20 MiB.
    pub max_request_body_size: i64,
    pub tls: Option<ServerTlsSettings>,
}
