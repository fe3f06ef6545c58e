//! Settings of the `otlp_grpc` exporter, with the Collector's names and defaults.

use crate::config::url::split_user;
use crate::config::{Declaration, Secrecy, Section, Shape, Stability};
use crate::forward::settings::{
    ClientTlsSettings, Compression, ExporterSettings, QueueSettings, RetrySettings, authenticator, refuse_extensions,
};
use crate::otlp::Signal;
use std::net::IpAddr;
use std::time::Duration;

/// The `otlp_grpc` exporter; `otlp` is the name that nearly every configuration still uses.
pub const DECLARATION: Declaration<ExporterSettings> =
    Declaration::new("otlp_grpc", Stability::Beta, "Forwards by OTLP/gRPC, e.g. to Tempo.", |section| {
        ExporterSettings::OtlpGrpc(OtlpGrpcSettings::decode(section))
    })
    .with_aliases(&["otlp"])
    .serving(&Signal::ALL);

/// Per attempt. The Collector's 5 s cut off a slow destination that then stores half; ours is six times that.
const TIMEOUT: Duration = Duration::from_secs(30);

/// `exporters::otlp_grpc` (alias `otlp`).
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpGrpcSettings {
    /// `host:port`, `http://host:port`, `https://host:port` (forces TLS), `dns:///host:port`, `passthrough:///host:port` or
    /// `unix:///path`.
    pub endpoint: String,
    pub tls: ClientTlsSettings,
    /// Default [`Compression::Auto`].
    pub compression: Compression,
    /// Sent with every request, in the order of the file.
    pub headers: Vec<(String, String)>,
    /// `balancer_name`: which of the addresses of the name are sent to.
    pub balancer: Balancer,
    /// Overrides `:authority`.
    pub authority: Option<String>,
    /// Per attempt; default 5 s in the Collector, 30 s here (a slow destination that is cut off stores half).
    pub timeout: Duration,
    pub retry: RetrySettings,
    pub queue: QueueSettings,
    /// `auth::authenticator`: the extension that says who this is.
    pub authenticator: Option<String>,
}

/// `balancer_name`, of gRPC's balancers those that need no service config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balancer {
    /// Requests go to the addresses in turn.
    #[default]
    RoundRobin,
    /// All requests go to the first address that takes a connection.
    PickFirst,
}

impl OtlpGrpcSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let endpoint = section.required_text("endpoint", "e.g. endpoint: tempo.tempo:4317");
        if let Err((reason, remedy)) = check_endpoint(&endpoint) {
            section.error("endpoint", reason, remedy);
        }
        if is_plain_in_cluster(&endpoint) && !section.has("tls") && section.is_sound() {
            let reason =
                "is reached by TLS, because tls::insecure is not set; most services in a cluster speak plain text";
            section.warn("endpoint", reason, "if so, add tls: {insecure: true}");
        }
        // As Go takes it: a port of this host.
        let endpoint = if endpoint.starts_with(':') { format!("localhost{endpoint}") } else { endpoint };
        let settings = Self {
            endpoint,
            tls: section.section("tls", ClientTlsSettings::decode),
            compression: Compression::of_grpc(section),
            headers: section.pairs("headers", Secrecy::Secret),
            balancer: section.word(
                "balancer_name",
                &[
                    ("round_robin", Balancer::RoundRobin),
                    ("pick_first", Balancer::PickFirst),
                    ("", Balancer::PickFirst),
                ],
                Balancer::RoundRobin,
            ),
            authority: section.optional_text("authority", Secrecy::Open).filter(|authority| !authority.is_empty()),
            timeout: section.duration("timeout", TIMEOUT),
            retry: section.section("retry_on_failure", RetrySettings::decode),
            queue: section.section("sending_queue", QueueSettings::decode),
            authenticator: authenticator(section),
        };
        section.inert("wait_for_ready", Shape::Bool, "requests wait in the spool anyway");
        section.inert("read_buffer_size", Shape::Int, "buffers have the appliance's own size");
        section.inert("write_buffer_size", Shape::Int, "buffers have the appliance's own size");
        let keepalive =
            [("time", Shape::Duration), ("timeout", Shape::Duration), ("permit_without_stream", Shape::Bool)];
        section.inert_section("keepalive", &keepalive, "connections are watched by the appliance's own keep-alive");
        section.inert("user_agent", Shape::Text, "requests say that they come from Spanreel");
        refuse_extensions(section);
        settings
    }
}

const SUPPORTED: &str = "supported: host:port, http://host:port, https://host:port, dns:///host:port, passthrough:///host:port, unix:///path";

/// Checks the forms the Collector takes, as far as they are supported; the error is a reason and a remedy.
fn check_endpoint(text: &str) -> Result<(), (String, String)> {
    if let (Some(_), without) = split_user(text) {
        let remedy =
            format!("write {without}, and the user in headers or in an extension that auth::authenticator names");
        return Err(("names a user, which gRPC does not send".to_owned(), remedy));
    }
    let shown = format!("{text:?}");
    let supported = SUPPORTED.to_owned();
    if text.is_empty() {
        // Reported as missing.
        return Ok(());
    }
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.starts_with("///")) {
        let path = path.trim_start_matches('/');
        return Err((format!("{shown} names no socket by its whole path"), format!("write unix:///{path}")));
    }
    let target = match text.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        Some(("dns", rest)) => match rest.strip_prefix('/') {
            Some(target) => target,
            None => {
                let target = rest.split_once('/').map_or(rest, |(_, target)| target);
                return Err((format!("{shown} names a DNS server"), format!("write dns:///{target}; {supported}")));
            }
        },
        Some(("unix", _)) => return Ok(()),
        Some(("passthrough", rest)) => rest.trim_start_matches('/'),
        Some((scheme, _)) => return Err((format!("{shown} has the unsupported scheme {scheme:?}"), supported)),
        None => text,
    };
    if let Some((target, _)) = target.split_once('/') {
        return Err((format!("{shown} has a path, which gRPC has not"), format!("write {target}, or use otlp_http")));
    }
    let Some((host, port)) = target.rsplit_once(':') else {
        return Err((format!("{shown} has no port"), format!("write {target}:4317")));
    };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err((format!("{shown} has no port number from 1 to 65535 after the last colon"), supported));
    }
    if host.is_empty() && !text.starts_with(':') {
        return Err((format!("{shown} has no host"), format!("write localhost:{port}")));
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(char::is_whitespace) || (host.contains(':') && !bracketed) {
        return Err((format!("{shown} has no usable host"), supported));
    }
    Ok(())
}

/// Whether this looks like a Service of the cluster: `tempo:4317`, `tempo.tempo:4317`, `tempo.tempo.svc:4317`, `10.0.0.1:4317`.
fn is_plain_in_cluster(endpoint: &str) -> bool {
    if endpoint.starts_with("https://") || endpoint.starts_with("unix://") {
        return false;
    }
    let target = endpoint.rsplit('/').next().unwrap_or_default();
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return is_private(address) && !target.ends_with(":443");
    }
    !host.is_empty() && (!host.contains('.') || host.contains(".svc") || is_in_namespace(host))
}

/// An address that pods and Services have.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// `tempo.monitoring`: a Service and its namespace. Names on the internet end in a country or one of a few words.
fn is_in_namespace(host: &str) -> bool {
    const TOP_LEVEL: [&str; 20] = [
        "com", "org", "net", "edu", "gov", "info", "biz", "dev", "app", "cloud", "tech", "online", "site", "xyz",
        "example", "test", "local", "internal", "lan", "home",
    ];
    host.split_once('.').is_some_and(|(_, last)| {
        let last = last.to_ascii_lowercase();
        !last.contains('.') && last.len() > 2 && !TOP_LEVEL.contains(&last.as_str())
    })
}
