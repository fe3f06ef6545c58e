//! Requests of HTTP/1.1 whose targets are longer than a URI may be: their query goes into a header.
//!
//! hyper takes targets of up to 65,534 bytes, because [`http::Uri`] counts in 16 bits. Tempo takes queries of 128 KiB, and
//! Grafana sends them in URLs. So what comes in is rewritten on its way, if need be:
//!
//! ```text
//! GET /api/search?q=... HTTP/1.1   ─▶   GET /api/search HTTP/1.1
//! host: ...                             x-spanreel-query: q=...
//!                                       host: ...
//! ```
//!
//! Where a request begins is known as long as the bodies before it have a length. Behind anything else, and on connections
//! of HTTP/2, bytes pass as they are; what is too long there hyper refuses. Invariants: without such a target every byte
//! passes unchanged; only a query is held back, until it ends or is too long, so that hyper's bounds of time and size hold
//! for everything else.

use crate::query::LONG_QUERY;
use std::mem;

/// What [`http::Uri`] can hold.
const URI_BYTES_MAX: usize = 65_534;

/// Longer methods there are none.
const METHOD_BYTES_MAX: usize = 32;

/// Of a line of a head: enough to see what it says of the body.
const LINE_BYTES_KEPT: usize = 64;

/// Reads along what comes from a client.
#[derive(Debug)]
pub struct Targets(Place);

/// Where in the requests the next byte belongs.
#[derive(Debug)]
enum Place {
    /// To a method, of which this came.
    Method(Vec<u8>),
    /// To the path of a target, of which so many bytes came.
    Path(usize),
    /// To the query of a target, which is held back.
    Held {
        path_len: usize,
        query: Vec<u8>,
    },
    /// To a query that goes into a header.
    Query,
    /// Behind a target that stays: to the rest of the line.
    RestOfLine,
    /// Behind such a query: to the version.
    Version(Vec<u8>),
    Headers(Headers),
    /// To a body, of which so much is to come.
    Body(u64),
    /// Nobody knows.
    Unwatched,
}

#[derive(Debug, Default)]
struct Headers {
    /// The beginning of the line that is under way.
    line: Vec<u8>,
    body_bytes: u64,
    /// The body ends where these headers do not say.
    is_open_ended: bool,
}

impl Default for Targets {
    fn default() -> Self {
        Self(Place::Method(Vec::new()))
    }
}

impl Targets {
    /// Appends to `out` what is to be read of these bytes.
    pub fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let used = match &mut self.0 {
                Place::Method(_) => self.method(bytes, out),
                Place::Path(_) => self.path(bytes, out),
                Place::Held { .. } => self.query(bytes, out),
                Place::RestOfLine => {
                    let used = line_len(bytes);
                    let (line, _) = bytes.split_at(used);
                    out.extend_from_slice(line);
                    if line.ends_with(b"\n") {
                        self.0 = Place::Headers(Headers::default());
                    }
                    used
                }
                Place::Query => {
                    let end = bytes.iter().position(|byte| matches!(byte, b' ' | b'\n'));
                    let (query, _) = bytes.split_at(end.unwrap_or(bytes.len()));
                    out.extend_from_slice(query);
                    if end.is_some() {
                        self.0 = Place::Version(Vec::new());
                    }
                    query.len()
                }
                Place::Version(_) => self.version(bytes, out),
                Place::Headers(_) => self.headers(bytes, out),
                Place::Body(left) => {
                    let body = &bytes[..bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
                    out.extend_from_slice(body);
                    *left -= body.len() as u64;
                    if *left == 0 {
                        *self = Self::default();
                    }
                    body.len()
                }
                Place::Unwatched => {
                    out.extend_from_slice(bytes);
                    bytes.len()
                }
            };
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// Appends what was held back: nothing more comes.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if let Place::Held { query, .. } = mem::replace(&mut self.0, Place::Unwatched) {
            out.extend_from_slice(&query);
        }
    }

    /// One byte of a method, or what ends it.
    fn method(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let (Place::Method(method), Some(byte)) = (&mut self.0, bytes.first()) else { return 0 };
        out.push(*byte);
        match byte {
            b' ' if method == b"PRI" => self.0 = Place::Unwatched,
            b' ' => self.0 = Place::Path(0),
            // An empty line in front of a request means nothing.
            b'\r' | b'\n' if method.is_empty() => {}
            b'\n' => self.0 = Place::Unwatched,
            _ if method.len() >= METHOD_BYTES_MAX => self.0 = Place::Unwatched,
            _ => method.push(*byte),
        }
        1
    }

    fn path(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let Place::Path(len) = &mut self.0 else { return 0 };
        let end = bytes.iter().position(|byte| matches!(byte, b'?' | b' ' | b'\r' | b'\n'));
        let (path, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        out.extend_from_slice(path);
        *len = len.saturating_add(path.len());
        let path_len = *len;
        match rest.first() {
            _ if path_len > URI_BYTES_MAX => self.0 = Place::Unwatched,
            Some(b'?') => self.0 = Place::Held { path_len, query: Vec::new() },
            Some(_) => self.0 = Place::RestOfLine,
            None => {}
        }
        path.len()
    }

    fn query(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let Place::Held { path_len, query } = &mut self.0 else { return 0 };
        // With its question mark.
        let room = (URI_BYTES_MAX + 1).saturating_sub(*path_len + query.len());
        let part = &bytes[..bytes.len().min(room)];
        let end = part.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
        let (part, rest) = part.split_at(end.unwrap_or(part.len()));
        query.extend_from_slice(part);
        if !rest.is_empty() {
            out.extend_from_slice(query);
            self.0 = Place::RestOfLine;
        } else if *path_len + query.len() > URI_BYTES_MAX {
            out.extend_from_slice(format!(" HTTP/1.1\r\n{LONG_QUERY}: ").as_bytes());
            out.extend_from_slice(query.get(1..).unwrap_or_default());
            self.0 = Place::Query;
        }
        part.len()
    }

    /// HTTP/1.0 ends connections where HTTP/1.1 does not.
    fn version(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let Place::Version(version) = &mut self.0 else { return 0 };
        let used = line_len(bytes);
        keep(version, bytes.get(..used).unwrap_or_default());
        if bytes.get(..used).is_some_and(|line| line.ends_with(b"\n")) {
            let is_old = version.trim_ascii() == b"HTTP/1.0";
            out.extend_from_slice(if is_old { b"\r\nconnection: close\r\n" } else { b"\r\n" });
            self.0 = Place::Headers(Headers::default());
        }
        used
    }

    fn headers(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let Place::Headers(headers) = &mut self.0 else { return 0 };
        let used = line_len(bytes);
        let part = bytes.get(..used).unwrap_or_default();
        out.extend_from_slice(part);
        keep(&mut headers.line, part);
        if part.ends_with(b"\n") {
            let line = mem::take(&mut headers.line);
            if !line.trim_ascii().is_empty() {
                headers.read(&line);
            } else {
                self.0 = match (headers.is_open_ended, headers.body_bytes) {
                    (true, _) => Place::Unwatched,
                    (false, 0) => Place::Method(Vec::new()),
                    (false, left) => Place::Body(left),
                };
            }
        }
        used
    }
}

impl Headers {
    /// One line, or its beginning.
    fn read(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"upgrade") {
            self.is_open_ended = true;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            match length.filter(|_| line.len() < LINE_BYTES_KEPT) {
                Some(length) => self.body_bytes = length,
                None => self.is_open_ended = true,
            }
        }
    }
}

/// As far as the end of the line, which may not be among them.
fn line_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1)
}

fn keep(line: &mut Vec<u8>, part: &[u8]) {
    let room = LINE_BYTES_KEPT - line.len().min(LINE_BYTES_KEPT);
    line.extend_from_slice(&part[..part.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes out of it, whatever pieces it comes in.
    fn passed(bytes: &[u8], piece_len: usize) -> Vec<u8> {
        let (mut targets, mut out) = (Targets::default(), Vec::new());
        bytes.chunks(piece_len.max(1)).for_each(|piece| targets.pass(piece, &mut out));
        targets.end(&mut out);
        out
    }

    fn long(query: &str) -> (String, String) {
        let query = format!("q={query}{}", "x".repeat(URI_BYTES_MAX));
        let came = format!("GET /api/search?{query} HTTP/1.1\r\nhost: y\r\n\r\n");
        let goes_on = format!("GET /api/search HTTP/1.1\r\nx-spanreel-query: {query}\r\nhost: y\r\n\r\n");
        (came, goes_on)
    }

    #[test]
    fn the_query_of_a_long_target_goes_into_a_header_each_time() {
        let (came, goes_on) = long("?a=%20");
        let short = "GET /short HTTP/1.1\r\n\r\n";
        let form = "POST /form HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /x HT";
        let (all, expected) = ([short, &came, form, &came, short].concat(), [short, &goes_on, form, &goes_on, short]);
        for piece_len in [7, 4096, usize::MAX] {
            assert!(passed(all.as_bytes(), piece_len) == expected.concat().as_bytes(), "{piece_len}");
        }
    }

    #[test]
    fn an_old_client_has_its_connection_ended() {
        let (came, goes_on) = long("");
        let expected = goes_on.replace("\r\nhost", "\r\nconnection: close\r\nhost");
        assert!(passed(came.replace("HTTP/1.1", "HTTP/1.0").as_bytes(), 100_000) == expected.as_bytes());
    }

    #[test]
    fn the_longest_target_that_hyper_takes_is_left_to_it() {
        let target = |len: usize| format!("/?{}", "x".repeat(len - 2));
        let taken = format!("GET {} HTTP/1.1\r\n\r\n", target(URI_BYTES_MAX));
        assert!(passed(taken.as_bytes(), 1000) == taken.as_bytes());
        let longer = format!("GET {} HTTP/1.1\r\n\r\n", target(URI_BYTES_MAX + 1));
        assert!(passed(longer.as_bytes(), 1000).starts_with(b"GET / HTTP/1.1\r\nx-spanreel-query: xxx"));
    }

    #[test]
    fn nothing_but_a_query_is_held_back() {
        let line_without_end = format!("GET / {}", "x".repeat(1 << 20));
        let path_without_end = format!("GET /{}", "x".repeat(1 << 20));
        let method_without_end = "x".repeat(1 << 20);
        for (came, held_max) in [
            (line_without_end.as_str(), 0),
            (path_without_end.as_str(), 0),
            (method_without_end.as_str(), 0),
            ("GET /api/search?q=aaaa", "?q=aaaa".len()),
        ] {
            let (mut targets, mut out) = (Targets::default(), Vec::new());
            came.as_bytes().chunks(24).for_each(|piece| targets.pass(piece, &mut out));
            assert_eq!(came.len() - out.len(), held_max, "{}", &came[..20]);
        }
    }

    #[test]
    fn behind_what_has_no_length_nothing_is_touched() {
        let (came, _) = long("");
        for before in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /x HTTP/1.1\r\ncontent-length: many\r\n\r\n",
            "no request at all, but a line that goes on\r\n",
        ] {
            let all = [before, &came].concat();
            assert!(passed(all.as_bytes(), 5000) == all.as_bytes(), "{before}");
        }
        let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(URI_BYTES_MAX));
        assert!(passed(path.as_bytes(), 5000) == path.as_bytes());
    }

    proptest! {
        #[test]
        fn what_has_no_long_target_passes_as_it_is(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"content-length: 3\r\n".to_vec()), Just(b"\r\n".to_vec()),
                    any::<Vec<u8>>(),
                ],
                0..12,
            ),
            piece_len in 1..40usize,
        ) {
            let all = parts.concat();
            prop_assert_eq!(passed(&all, piece_len), all);
        }
    }
}
