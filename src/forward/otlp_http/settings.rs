//! Settings of the `otlp_http` exporter, with the Collector's names and defaults.

use crate::config::url::split_user;
use crate::config::{Declaration, Secrecy, Section, Shape, Stability, WhenNull};
use crate::forward::settings::{
    ClientTlsSettings, Compression, ExporterSettings, QueueSettings, RetrySettings, authenticator, refuse_extensions,
};
use crate::otlp::Signal;
use std::time::Duration;

/// The `otlp_http` exporter, formerly `otlphttp`.
pub const DECLARATION: Declaration<ExporterSettings> =
    Declaration::new("otlp_http", Stability::Beta, "Forwards by OTLP/HTTP, protobuf or JSON.", |section| {
        ExporterSettings::OtlpHttp(OtlpHttpSettings::decode(section))
    })
    .with_aliases(&["otlphttp"])
    .serving(&Signal::ALL);

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
    /// The full URL for each signal that has one: `traces_endpoint` as given, or `endpoint` + `/v1/traces`, ... Its user,
    /// if any, is sent as basic authentication.
    pub urls: Vec<(Signal, String)>,
    pub tls: ClientTlsSettings,
    pub compression: Compression,
    pub encoding: Encoding,
    pub headers: Vec<(String, String)>,
    /// Per attempt; default 30 s.
    pub timeout: Duration,
    pub retry: RetrySettings,
    pub queue: QueueSettings,
    /// `auth::authenticator`: the extension that says who this is.
    pub authenticator: Option<String>,
    /// `cookies`: whether what the destination sets as cookies goes back to it.
    pub cookies: bool,
    /// An HTTP proxy in place of what the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`) says.
    pub proxy_url: Option<String>,
}

impl OtlpHttpSettings {
    /// What posting finished bodies to one URL takes.
    pub(in crate::forward) fn for_posts(
        url: &str,
        headers: Vec<(String, String)>,
        tls: ClientTlsSettings,
        timeout: Duration,
    ) -> Self {
        Self {
            urls: vec![(Signal::Metrics, url.to_owned())],
            tls,
            compression: Compression::None,
            encoding: Encoding::Proto,
            headers,
            timeout,
            retry: RetrySettings::default(),
            queue: QueueSettings::default(),
            authenticator: None,
            cookies: false,
            proxy_url: None,
        }
    }

    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            urls: urls(section),
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
            authenticator: authenticator(section),
            cookies: section.optional("cookies", WhenNull::Absent, |_| ()).is_some(),
            proxy_url: section.optional_text("proxy_url", Secrecy::Secret).filter(|url| !url.is_empty()),
        };
        if section.is_null("encoding") {
            section.error("encoding", "is empty, which the Collector refuses", "write proto or json, or remove it");
        }
        if settings.proxy_url.as_deref().is_some_and(|url| !url.starts_with("http://") && url.contains("://")) {
            section.error("proxy_url", "not supported: only HTTP proxies are spoken to", "e.g. http://proxy.corp:3128");
        }
        section.inert("profiles_endpoint", Shape::Text, "profiles are not forwarded");
        let compression = settings.compression;
        section.section("compression_params", |params| accept_level(params, compression));
        if section.has("compression_params") {
            section.note("compression_params", "accepted, without effect: levels are the appliance's own");
        }
        for key in ["read_buffer_size", "write_buffer_size"] {
            section.inert(key, Shape::Int, "buffers have the appliance's own size");
        }
        for key in ["max_idle_conns", "max_idle_conns_per_host", "max_conns_per_host"] {
            section.inert(key, Shape::Int, "connections are few and kept");
        }
        for key in ["idle_conn_timeout", "http2_read_idle_timeout", "http2_ping_timeout"] {
            section.inert(key, Shape::Duration, "connections are watched by the appliance's own timeouts");
        }
        section.inert("force_attempt_http2", Shape::Bool, "HTTP/1.1 is spoken, on a few kept connections");
        section.inert("disable_keep_alives", Shape::Bool, "connections are few and kept");
        let keepalive = [
            ("enabled", Shape::Bool),
            ("idle_conn_timeout", Shape::Duration),
            ("max_idle_conns", Shape::Int),
            ("max_idle_conns_per_host", Shape::Int),
        ];
        section.inert_section("keepalive", &keepalive, "connections are few and kept");
        let flat = ["idle_conn_timeout", "max_idle_conns", "max_idle_conns_per_host", "disable_keep_alives"];
        section.moved("keepalive", &flat.map(|key| (key, false)));
        refuse_extensions(section);
        settings
    }
}

impl OtlpHttpSettings {
    /// Where requests of this signal go, if anywhere.
    pub fn url(&self, signal: Signal) -> Option<&str> {
        self.urls.iter().find(|(of, _)| *of == signal).map(|(_, url)| url.as_str())
    }
}

/// `compression_params`: means nothing here, but is checked as the Collector checks it.
fn accept_level(section: &mut Section<'_>, compression: Compression) {
    let Some(level) = section.accept_int("level") else { return };
    let fits = match compression {
        Compression::Auto | Compression::Gzip | Compression::Zlib | Compression::Deflate => (-2..=9).contains(&level),
        Compression::Snappy | Compression::SnappyFramed | Compression::Lz4 => level == 0,
        Compression::Zstd | Compression::None => true,
    };
    if !fits {
        section.error("level", format!("{level} is no level of this compression"), "remove it");
    }
}

/// The key of a URL that is used as it is.
pub const fn endpoint_key(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "traces_endpoint",
        Signal::Metrics => "metrics_endpoint",
        Signal::Logs => "logs_endpoint",
    }
}

/// `traces_endpoint` as it is, or `endpoint` with the path of the signal, and so for each signal.
fn urls(section: &mut Section<'_>) -> Vec<(Signal, String)> {
    let mut given = |key: &'static str| {
        let url = section.optional_text(key, Secrecy::Url).filter(|text| !text.is_empty());
        if let Some(Err((reason, remedy))) = url.as_deref().map(check_url) {
            section.error(key, reason, remedy);
        }
        url
    };
    let base = given("endpoint");
    let own = Signal::ALL.map(|signal| (signal, given(endpoint_key(signal))));
    // A value of another type was reported already.
    let is_written = |key: &str| section.has(key);
    if !is_written("endpoint") && !Signal::ALL.into_iter().any(|signal| is_written(endpoint_key(signal))) {
        let remedy = "e.g. endpoint: http://tempo.tempo:4318";
        section.error("", "either endpoint or traces_endpoint must be specified", remedy);
    }
    let of = |(signal, own): (Signal, Option<String>)| {
        let slash = |base: &str| if base.ends_with('/') { "" } else { "/" };
        let url = own.or_else(|| base.as_ref().map(|base| format!("{base}{}v1/{signal}", slash(base))));
        url.map(|url| (signal, url))
    };
    own.into_iter().filter_map(of).collect()
}

/// The error is a reason and a remedy.
fn check_url(url: &str) -> Result<(), (String, String)> {
    let (user, text) = split_user(url);
    let has_room = |text: &str| text.contains(|c: char| c.is_whitespace() || c.is_control());
    if user.is_some_and(has_room) {
        let reason = "the user or password of the URL holds a space or a control character".to_owned();
        return Err((reason, "write it in percent-encoding, e.g. %20".to_owned()));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err((format!("{text:?} is no URL"), format!("write http://{text} or https://{text}")));
    };
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err((format!("{text:?} has the unsupported scheme {scheme:?}"), "supported: http, https".to_owned()));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let bad_port = port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bad_port || is_bare_ipv6 || has_room(&text) {
        return Err((format!("{text:?} has no usable host and port"), "e.g. http://tempo.tempo:4318".to_owned()));
    }
    Ok(())
}
