//! The one document. Which page it shows, the script reads from the address.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::assets::Asset;

/// What is answered with the document, as the router writes it.
pub(super) const PAGES: [&str; 7] = ["/", "/traces", "/trace/{id}", "/map", "/explain", "/cluster", "/health"];

/// Stands in the built document where the base belongs.
pub(super) const BASE: &str = "<base href=\"./\"";

/// Scripts, styles and data come from here and nowhere else; nobody may frame the page. Images may be `data:` because
/// browsers draw some controls so.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

/// Longer prefixes are nobody's.
const PREFIX_BYTES_MAX: usize = 256;

/// The built document; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Document(Arc<str>);

impl Document {
    pub(super) fn embedded() -> Self {
        let html = Asset::find("index.html").map(Asset::plain).unwrap_or_default();
        Self(String::from_utf8_lossy(&html).into())
    }
}

pub(super) async fn serve(State(document): State<Document>, uri: Uri, headers: HeaderMap) -> Response {
    let base = base(uri.path(), headers.get("x-forwarded-prefix").and_then(|value| value.to_str().ok()));
    let body = document.0.replacen(BASE, &format!("<base href=\"{base}\""), 1);
    let about = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        // It names the files of this version.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (StatusCode::OK, about, body).into_response()
}

/// Where the UI begins, seen from a page: what a proxy says that it took off, otherwise up by the depth of the path, which
/// is right behind any prefix.
pub(super) fn base(path: &str, prefix: Option<&str>) -> String {
    if let Some(prefix) = prefix.map(|prefix| prefix.trim_end_matches('/')).filter(|prefix| is_path(prefix)) {
        return format!("{prefix}/");
    }
    match path.trim_start_matches('/').matches('/').count() {
        0 => "./".to_owned(),
        depth => "../".repeat(depth),
    }
}

/// Only what cannot end an attribute or name another host.
fn is_path(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~');
    prefix.len() <= PREFIX_BYTES_MAX
        && prefix.starts_with('/')
        && !prefix.contains("//")
        && !prefix.contains("..")
        && prefix.bytes().all(plain)
}
