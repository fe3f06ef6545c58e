//! In which format and compression an answer goes out.

use std::io::Write as _;

use axum::body::Body;
use axum::response::{AppendHeaders, IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::admission::{Answer, Room};
use super::body;
use super::error::QueryError;
use super::paced;
use super::upstream::Away;
use crate::otlp::percent::grpc_message;

pub(super) const JSON: &str = "application/json";
pub(super) const PROTOBUF: &str = "application/protobuf";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Says of an answer why it may be partial, where Tempo's message has no place for that: Grafana refuses a message with
/// members that it does not know, and no headers.
pub(super) const PARTIAL_HEADER: HeaderName = HeaderName::from_static("x-spanreel-partial");

pub(super) fn partial_header(away: &Away) -> HeaderValue {
    // Percent-encoded as `grpc-message` is, so that nothing in it can be wrong.
    HeaderValue::from_str(&grpc_message(&away.to_string())).unwrap_or(HeaderValue::from_static("partial"))
}

/// The formats of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

impl Format {
    /// Tempo tests whether `Accept` contains a type, in this order, whatever else stands there. Its third format, a
    /// digest for language models, is answered as plain JSON.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
        let contains = |name: &str| accept.windows(name.len()).any(|part| part == name.as_bytes());
        if contains(PROTOBUF) { Self::Protobuf } else { Self::Json }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => PROTOBUF,
            Self::Json => JSON,
        }
    }
}

/// The compressions of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        if values.flat_map(|value| value.split(',')).any(wants_gzip) { Self::Gzip } else { Self::Identity }
    }
}

/// One element of `Accept-Encoding`: `gzip` unless its weight is zero.
fn wants_gzip(element: &str) -> bool {
    let mut parts = element.split(';').map(str::trim);
    let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
    let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|weight| weight.parse::<f32>().ok());
    named && weight.is_none_or(|weight| weight > 0.0)
}

/// An answer that is made, and compressed if the client wants that, while it is sent.
pub(super) fn stream(content_type: &'static str, pages: crate::telemetry::Pages, coding: Coding) -> Response {
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(content_type)), (VARY, HeaderValue::from_static("accept-encoding"))];
    let pages = pages.map(|page| Ok::<Bytes, std::io::Error>(page.into()));
    match coding {
        Coding::Identity => (headers, Body::from_stream(futures_util::stream::iter(pages))).into_response(),
        Coding::Gzip => {
            let gzip = (CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
            let compressed = Compressed { pages, encoder };
            (AppendHeaders([gzip]), headers, Body::from_stream(futures_util::stream::iter(compressed))).into_response()
        }
    }
}

/// What comes out of the encoder while pages go in.
struct Compressed<P> {
    pages: P,
    /// `None` once everything was given out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<P: Iterator<Item = Result<Bytes, std::io::Error>>> Iterator for Compressed<P> {
    type Item = Result<Bytes, std::io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let encoder = self.encoder.as_mut()?;
        for page in self.pages.by_ref() {
            if let Err(error) = page.and_then(|page| encoder.write_all(&page)) {
                return Some(Err(error));
            }
            if !encoder.get_ref().is_empty() {
                return Some(Ok(std::mem::take(encoder.get_mut()).into()));
            }
        }
        self.encoder.take().map(|encoder| encoder.finish().map(Bytes::from))
    }
}

/// The body of a successful answer, ready to be sent.
#[derive(Debug)]
pub(super) struct Payload {
    content_type: &'static str,
    coding: Coding,
    pieces: Vec<Vec<u8>>,
    missing: Option<Away>,
    room: Option<Room>,
}

impl Answer for Payload {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    fn hold(&mut self, room: Room) {
        self.room = Some(room);
    }
}

impl Payload {
    pub(super) fn new(content_type: &'static str, body: body::Body) -> Result<Self, QueryError> {
        let (pieces, coding) = body.finish()?;
        Ok(Self { content_type, coding, pieces, missing: None, room: None })
    }

    /// What the body has no place for: who does not answer, though something may be there.
    pub(super) fn missing(self, missing: Option<Away>) -> Self {
        Self { missing, ..self }
    }
}

impl IntoResponse for Payload {
    fn into_response(self) -> Response {
        let (body, hangup) = paced::body(self.pieces, self.room);
        let mut response = Response::new(body);
        response.extensions_mut().insert(hangup);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(away) = &self.missing {
            headers.insert(PARTIAL_HEADER, partial_header(away));
        }
        if self.coding == Coding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_wanted_by_name_unless_its_weight_is_zero() {
        for (value, coding) in [
            ("gzip", Coding::Gzip),
            ("deflate, GZIP;q=0.5, br", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("gzip; q=0.000", Coding::Identity),
            ("xgzip", Coding::Identity),
            ("identity", Coding::Identity),
            ("", Coding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(Coding::of(&headers), coding, "{value}");
        }
        assert_eq!(Coding::of(&HeaderMap::new()), Coding::Identity);
    }
}
