//! Settings of Prometheus remote-write: `extensions::spanreel::metrics_from_spans::remote_write`.

use crate::config::url::split_user;
use crate::config::{Secrecy, Section};
use crate::forward::Poster;
use crate::forward::settings::ClientTlsSettings;
use crate::red::remote_write::Manner;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

/// Where metrics from spans are sent, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteWriteSettings {
    /// Required: the whole URL, e.g. `http://prometheus:9090/api/v1/write`.
    pub endpoint: String,
    /// `headers`, and what `basic_auth` or `bearer_token` make.
    pub headers: Vec<(String, String)>,
    pub tls: ClientTlsSettings,
    /// `interval`; default 15s.
    pub interval: Duration,
    /// `timeout`; default 10s, of one attempt.
    pub timeout: Duration,
    /// `max_queue_mib`; default 16. Compressed bodies that wait while the receiver is away; the oldest go first.
    pub queue_bytes_max: usize,
    pub manner: Manner,
}

const MIB: usize = 1024 * 1024;
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const QUEUE_MIB_MAX: u64 = 1024;

impl RemoteWriteSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let endpoint = section.required_text("endpoint", "the whole URL, e.g. http://prometheus:9090/api/v1/write");
        let mut headers = section.pairs("headers", Secrecy::Secret);
        headers.push(("X-Prometheus-Remote-Write-Version".to_owned(), "0.1.0".to_owned()));
        let basic = section.section("basic_auth", |section| {
            let username = section.optional_text("username", Secrecy::Open);
            let password = section.optional_text("password", Secrecy::Secret);
            if username.is_none() && password.is_some() {
                section.error("username", "a password needs a username", "");
            }
            username.map(|username| format!("{username}:{}", password.unwrap_or_default()))
        });
        let bearer = section.optional_text("bearer_token", Secrecy::Secret);
        if basic.is_some() && bearer.is_some() {
            section.error("bearer_token", "basic_auth is given too", "keep one of them");
        }
        let authorization = basic.map(|pair| format!("Basic {}", STANDARD.encode(pair)));
        let authorization = authorization.or(bearer.map(|token| format!("Bearer {token}")));
        headers.extend(authorization.map(|value| ("Authorization".to_owned(), value)));
        let interval = section.duration("interval", Duration::from_secs(15));
        if interval < INTERVAL_MIN {
            section.error("interval", "must be at least 1s", "Prometheus' own intervals are 15s and longer");
        }
        let queue_mib = section.u64("max_queue_mib", 16);
        if !(1..=QUEUE_MIB_MAX).contains(&queue_mib) {
            section.error(
                "max_queue_mib",
                format!("must be from 1 to {QUEUE_MIB_MAX}, is {queue_mib}"),
                "the unit is MiB",
            );
        }
        let settings = Self {
            endpoint,
            headers,
            tls: section.section("tls", ClientTlsSettings::decode),
            interval,
            timeout: section.duration("timeout", Duration::from_secs(10)),
            queue_bytes_max: queue_mib as usize * MIB,
            manner: Manner {
                external_labels: section.pairs("external_labels", Secrecy::Open),
                exemplars: section.bool("send_exemplars", true),
            },
        };
        if split_user(&settings.endpoint).0.is_some() {
            section.error("endpoint", "names a user", "write it without, and basic_auth: {username: , password: }");
        }
        if section.is_sound()
            && let Err(problem) = settings.poster()
        {
            section.error("endpoint", problem.to_string(), "the whole URL, e.g. http://prometheus:9090/api/v1/write");
        }
        settings
    }

    /// # Errors
    /// If the URL, a header, or a file that TLS needs is not usable.
    pub fn poster(&self) -> Result<Poster, crate::forward::BuildError> {
        Poster::new(&self.endpoint, self.headers.clone(), self.tls.clone(), self.timeout)
    }
}
