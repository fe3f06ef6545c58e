//! Cookies of one destination: what load balancers keep a client with one of their servers by (RFC 6265, for one URL).

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What browsers keep of one domain; the oldest goes.
const COOKIES_MAX: usize = 50;
/// Name and value together; longer ones are left out, as RFC 6265 allows from there on.
const COOKIE_BYTES_MAX: usize = 4096;
/// Of what goes with each request: servers refuse heads of 8 KiB.
const HEADER_BYTES_MAX: usize = 6 * 1024;

/// The cookies that a destination has set and that go to it with each request.
pub(super) struct Cookies {
    host: String,
    path: String,
    is_tls: bool,
    kept: Mutex<Vec<Cookie>>,
}

struct Cookie {
    name: String,
    /// `name=value`.
    pair: String,
    /// `None`: as long as the process runs.
    until: Option<SystemTime>,
}

impl Cookies {
    /// For requests to this host and path.
    pub(super) fn new(host: &str, path: &str, is_tls: bool) -> Self {
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Self { host: host.to_ascii_lowercase(), path, is_tls, kept: Mutex::default() }
    }

    /// Adds them to a request.
    pub(super) fn apply(&self, headers: &mut HeaderMap, now: SystemTime) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|cookie| cookie.until.is_none_or(|until| until > now));
        let mut line = String::new();
        for cookie in kept.iter() {
            if line.len() + cookie.pair.len() + 2 > HEADER_BYTES_MAX {
                break;
            }
            if !line.is_empty() {
                line.push_str("; ");
            }
            line.push_str(&cookie.pair);
        }
        if let Ok(mut value) = HeaderValue::try_from(line)
            && !value.is_empty()
        {
            value.set_sensitive(true);
            headers.append(COOKIE, value);
        }
    }

    /// Takes up what an answer sets.
    pub(super) fn take(&self, headers: &HeaderMap, now: SystemTime) {
        for value in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let Some(cookie) = self.read(value, now) else { continue };
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|known| known.name != cookie.name);
            if cookie.until.is_none_or(|until| until > now) {
                if kept.len() == COOKIES_MAX {
                    kept.remove(0);
                }
                kept.push(cookie);
            }
        }
    }

    /// `None`: it is none, or not for us.
    fn read(&self, text: &str, now: SystemTime) -> Option<Cookie> {
        let mut parts = text.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || name.len() + value.len() > COOKIE_BYTES_MAX {
            return None;
        }
        let (mut max_age, mut expires) = (None, None);
        for part in parts {
            let (key, value) = part.split_once('=').map_or((part, ""), |(key, value)| (key.trim(), value.trim()));
            match key.to_ascii_lowercase().as_str() {
                "domain" if !self.is_of(value) => return None,
                "path" if !self.is_below(value) => return None,
                "secure" if !self.is_tls => return None,
                "max-age" => max_age = value.parse::<i64>().ok(),
                "expires" => {
                    expires = jiff::fmt::rfc2822::parse(value).ok().map(|date| SystemTime::from(date.timestamp()));
                }
                _ => {}
            }
        }
        let until = match max_age {
            // What lasts longer than can be told lasts as long as the process.
            Some(seconds) => match u64::try_from(seconds) {
                Ok(seconds) => now.checked_add(Duration::from_secs(seconds)),
                Err(_) => Some(SystemTime::UNIX_EPOCH),
            },
            None => expires,
        };
        Some(Cookie { name: name.to_owned(), pair: format!("{name}={value}"), until })
    }

    fn is_of(&self, domain: &str) -> bool {
        let domain = domain.trim_start_matches('.').to_ascii_lowercase();
        domain.is_empty()
            || self.host == domain
            || self.host.strip_suffix(&domain).is_some_and(|below| below.ends_with('.'))
    }

    fn is_below(&self, path: &str) -> bool {
        match self.path.strip_prefix(path) {
            // An attribute that is no path stands for the place of the request.
            _ if !path.starts_with('/') => true,
            Some(rest) => rest.is_empty() || path.ends_with('/') || rest.starts_with('/'),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn sent(cookies: &Cookies, now: SystemTime) -> String {
        let mut headers = HeaderMap::new();
        cookies.apply(&mut headers, now);
        headers.get(COOKIE).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    fn set(cookies: &Cookies, values: &[&'static str], now: SystemTime) {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| {
            headers.append(SET_COOKIE, HeaderValue::from_static(value));
        });
        cookies.take(&headers, now);
    }

    #[test]
    fn what_a_server_sets_goes_back_to_it_until_it_is_over() {
        let (cookies, now) = (Cookies::new("tempo.example", "/v1/traces", false), SystemTime::now());
        assert_eq!(sent(&cookies, now), "");
        set(&cookies, &["node=a; Path=/; HttpOnly", "short=1; Max-Age=60", "junk"], now);
        assert_eq!(sent(&cookies, now), "node=a; short=1");
        set(&cookies, &["node=b; Expires=Wed, 01 Jan 2098 00:00:00 GMT"], now);
        assert_eq!(sent(&cookies, now + DAY), "node=b");
        set(&cookies, &["node=; Max-Age=0", "short=2"], now);
        assert_eq!(sent(&cookies, now), "short=2");
        set(&cookies, &["short=2; Expires=Thu, 01 Jan 1998 00:00:00 GMT"], now);
        assert_eq!(sent(&cookies, now), "");
    }

    #[test]
    fn what_is_for_others_is_left_out() {
        let (cookies, now) = (Cookies::new("a.tempo.example", "/v1/traces", false), SystemTime::now());
        for other in ["x=1; Domain=evil.org", "x=1; Domain=b.tempo.example", "x=1; Path=/v2", "x=1; Secure", "=1"] {
            set(&cookies, &[other], now);
            assert_eq!(sent(&cookies, now), "", "{other}");
        }
        for ours in ["x=1; Domain=tempo.example", "x=1; Domain=.tempo.example", "x=1; Path=/v1", "x=1; Path=odd"] {
            set(&cookies, &[ours], now);
            assert_eq!(sent(&cookies, now), "x=1", "{ours}");
        }
    }

    #[test]
    fn cookies_without_end_do_not_grow_the_request() {
        let (cookies, now) = (Cookies::new("a", "/", false), SystemTime::now());
        for index in 0..1000 {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::try_from(format!("c{index}={}", "x".repeat(1000))).unwrap();
            headers.append(SET_COOKIE, value);
            cookies.take(&headers, now);
        }
        assert!(sent(&cookies, now).len() <= HEADER_BYTES_MAX);
        assert_eq!(cookies.kept.lock().unwrap().len(), COOKIES_MAX);
    }
}
