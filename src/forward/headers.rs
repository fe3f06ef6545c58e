//! What both protocols' requests need around their body.

use super::connect::TargetError;
use crate::otlp::percent;
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

pub(super) const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("spanreel/", env!("CARGO_PKG_VERSION")));

/// An attempt's bound where the settings say "none": a destination that never answers must not hold a request forever.
const ATTEMPT_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A configured header cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("headers: {0:?} is not a header's name")]
    Name(String),
    #[error("headers: the value of {0:?} holds characters that a header cannot carry")]
    Value(String),
    #[error("authority {0:?} is not a host, or host:port")]
    Authority(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Grpc,
    Http,
}

/// The headers of the settings. Values may be secrets and are marked so.
///
/// # Errors
/// If a name or a value cannot be sent.
pub(super) fn configured(settings: &[(String, String)], kind: Kind) -> Result<HeaderMap, HeaderError> {
    let mut headers = HeaderMap::with_capacity(settings.len() + 8);
    for (name, value) in settings {
        let parsed: HeaderName = name.parse().map_err(|_| HeaderError::Name(name.clone()))?;
        // gRPC metadata of this name is binary, and base64 on the wire.
        let value = match kind {
            Kind::Grpc if parsed.as_str().ends_with("-bin") => {
                HeaderValue::try_from(base64::engine::general_purpose::STANDARD_NO_PAD.encode(value))
            }
            _ => HeaderValue::try_from(value),
        };
        let mut value = value.map_err(|_| HeaderError::Value(name.clone()))?;
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// The value of `Authorization` for the user of a URL, `name:password` in percent-encoding.
pub(super) fn basic(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let pair = [&percent::decoded(name), &b":"[..], &percent::decoded(password)].concat();
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// How long an attempt may take; zero in the settings is the longest.
pub(super) fn attempt_timeout(configured: Duration) -> Duration {
    if configured.is_zero() { ATTEMPT_TIMEOUT_MAX } else { configured.min(ATTEMPT_TIMEOUT_MAX) }
}

/// `grpc-timeout`: at most eight digits and a unit.
pub(super) fn grpc_timeout(timeout: Duration) -> HeaderValue {
    const DIGITS_MAX: u128 = 99_999_999;
    HeaderValue::try_from(format!("{}m", timeout.as_millis().clamp(1, DIGITS_MAX)))
        .unwrap_or(HeaderValue::from_static("30S"))
}

/// An error with what caused it: hyper's own texts say little.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked_and_secret() {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let headers = configured(&pair("X-Scope-OrgID", "tenant"), Kind::Http).unwrap();
        assert_eq!(headers["x-scope-orgid"], "tenant");
        assert!(headers["x-scope-orgid"].is_sensitive());
        assert_eq!(configured(&pair("key-bin", "abc"), Kind::Grpc).unwrap()["key-bin"], "YWJj");
        assert!(matches!(configured(&pair("a b", "c"), Kind::Http), Err(HeaderError::Name(_))));
        assert!(matches!(configured(&pair("a", "c\n"), Kind::Http), Err(HeaderError::Value(_))));
    }

    #[test]
    fn the_user_of_a_url_is_sent_as_basic_authentication() {
        assert_eq!(basic("me:p%40ss"), "Basic bWU6cEBzcw==");
        assert_eq!(basic("me"), "Basic bWU6");
    }

    #[test]
    fn grpc_timeouts_have_at_most_eight_digits() {
        assert_eq!(grpc_timeout(Duration::from_secs(30)), "30000m");
        assert_eq!(grpc_timeout(Duration::from_nanos(1)), "1m");
        assert_eq!(grpc_timeout(Duration::MAX), "99999999m");
    }
}
