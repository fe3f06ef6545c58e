//! Settings of the `otlp_http` exporter, with the Collector's names and defaults.

use crate::config::{Declaration, Secrecy, Section, Shape, Stability};
use crate::forward::settings::{
    ClientTlsSettings, Compression, ExporterSettings, QueueSettings, RetrySettings, refuse_extensions,
};
use std::time::Duration;

/// The `otlp_http` exporter, formerly `otlphttp`.
pub const DECLARATION: Declaration<ExporterSettings> =
    Declaration::new("otlp_http", Stability::Beta, "Forwards traces by OTLP/HTTP, protobuf or JSON.", |section| {
        ExporterSettings::OtlpHttp(OtlpHttpSettings::decode(section))
    })
    .with_aliases(&["otlphttp"]);

/// Body encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Proto,
    Json,
}

/// `exporters::otlp_http` (alias `otlphttp`).
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpHttpSettings {
    /// The full URL for traces: `traces_endpoint` as given, or `endpoint` + `/v1/traces`.
    pub traces_url: String,
    pub tls: ClientTlsSettings,
    pub compression: Compression,
    pub encoding: Encoding,
    pub headers: Vec<(String, String)>,
    /// Per attempt; default 30 s.
    pub timeout: Duration,
    pub retry: RetrySettings,
    pub queue: QueueSettings,
}

impl OtlpHttpSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            traces_url: traces_url(section),
            tls: section.section("tls", ClientTlsSettings::decode),
            compression: Compression::decode(section),
            encoding: section.word(
                "encoding",
                &[("proto", Encoding::Proto), ("json", Encoding::Json)],
                Encoding::Proto,
            ),
            headers: section.pairs("headers", Secrecy::Secret),
            timeout: section.duration("timeout", Duration::from_secs(30)),
            retry: section.section("retry_on_failure", RetrySettings::decode),
            queue: section.section("sending_queue", QueueSettings::decode),
        };
        for key in ["metrics_endpoint", "logs_endpoint", "profiles_endpoint"] {
            section.inert(key, Shape::Text, "only traces are forwarded");
        }
        section.inert("compression_params", Shape::Map, "what the spool compressed is passed on as it is");
        for key in ["read_buffer_size", "write_buffer_size"] {
            section.inert(key, Shape::Int, "buffers have the appliance's own size");
        }
        for key in ["max_idle_conns", "max_idle_conns_per_host", "max_conns_per_host"] {
            section.inert(key, Shape::Int, "connections are few and kept");
        }
        for key in ["idle_conn_timeout", "http2_read_idle_timeout", "http2_ping_timeout"] {
            section.inert(key, Shape::Duration, "connections are watched by the appliance's own timeouts");
        }
        section.inert("force_attempt_http2", Shape::Bool, "HTTP/2 is spoken where TLS agrees on it");
        section.inert("disable_keep_alives", Shape::Bool, "connections are few and kept");
        section.inert("keepalive", Shape::Map, "connections are few and kept");
        section.only("proxy_url", &[""], "there is no way through a proxy yet", "remove it");
        section.only("cookies", &["{}"], "cookies are not kept", "remove it");
        refuse_extensions(section);
        settings
    }
}

/// `traces_endpoint` as it is, or `endpoint` with the path of the signal.
fn traces_url(section: &mut Section<'_>) -> String {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let base = given(section.optional_text("endpoint", Secrecy::Open));
    let traces = given(section.optional_text("traces_endpoint", Secrecy::Open));
    for (key, url) in [("endpoint", &base), ("traces_endpoint", &traces)] {
        if let Some(Err((reason, remedy))) = url.as_deref().map(check_url) {
            section.error(key, reason, remedy);
        }
    }
    match (traces, base) {
        (Some(traces), _) => traces,
        (None, Some(base)) if base.ends_with('/') => format!("{base}v1/traces"),
        (None, Some(base)) => format!("{base}/v1/traces"),
        (None, None) => {
            let remedy = "e.g. endpoint: http://tempo.tempo:4318";
            // A value of another type was reported already.
            if !section.has("endpoint") && !section.has("traces_endpoint") {
                section.error("", "either endpoint or traces_endpoint must be specified", remedy);
            }
            String::new()
        }
    }
}

/// The error is a reason and a remedy.
fn check_url(text: &str) -> Result<(), (String, String)> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err((format!("{text:?} is no URL"), format!("write http://{text} or https://{text}")));
    };
    if !matches!(scheme, "http" | "https") {
        return Err((format!("{text:?} has the unsupported scheme {scheme:?}"), "supported: http, https".to_owned()));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host_port, None),
    };
    let bad_port = port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0));
    if host.is_empty() || bad_port || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err((format!("{text:?} has no usable host and port"), "e.g. http://tempo.tempo:4318".to_owned()));
    }
    Ok(())
}
