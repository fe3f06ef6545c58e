//! The embedded files. Their names carry a hash of their contents, so that browsers need to ask only once.

use std::io::Read as _;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

/// A file of `web/dist`.
pub(super) struct Asset {
    /// Relative to `web/dist`.
    pub name: &'static str,
    pub gzip: &'static [u8],
}

/// In the order of their names.
pub(super) const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/web_assets.rs"));

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const FOR_A_DAY: HeaderValue = HeaderValue::from_static("public, max-age=86400");

impl Asset {
    pub(super) fn find(name: &str) -> Option<&'static Asset> {
        ASSETS.iter().find(|asset| asset.name == name)
    }

    pub(super) fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        // What is embedded was compressed at build time; it cannot be damaged without the binary being so.
        let _ = GzDecoder::new(self.gzip).read_to_end(&mut plain);
        plain
    }

    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self.name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("html") => "text/html; charset=utf-8",
            _ => "application/octet-stream",
        })
    }

    fn response(&self, headers: &HeaderMap, cache: HeaderValue) -> Response {
        let about = [
            (CONTENT_TYPE, self.content_type()),
            (CACHE_CONTROL, cache),
            (VARY, HeaderValue::from_static("accept-encoding")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        if accepts_gzip(headers) {
            let encoding = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
            return (about, encoding, self.gzip).into_response();
        }
        (about, self.plain()).into_response()
    }
}

pub(super) async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match Asset::find(&format!("assets/{name}")) {
        Some(asset) => asset.response(&headers, FOR_EVER),
        None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

pub(super) async fn icon(headers: HeaderMap) -> Response {
    match Asset::find("icon.svg") {
        Some(asset) => asset.response(&headers, FOR_A_DAY),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether gzip is named and not refused by `q=0`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            named && !refused
        })
}
