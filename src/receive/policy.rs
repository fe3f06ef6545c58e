//! What a port asks of requests before they are read, and adds to answers: authentication, CORS, headers.
//!
//! A policy belongs to a port, not to a receiver: where one block of a configuration asks for a password and another does
//! not, the port of each is as its block says, whatever protocol is spoken there.

use super::answer::{AnswerBody, Refusal};
use super::settings::CorsSettings;
use crate::auth::{Authenticator, Denied};
use crate::process::{Client, ClientMetadata};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a client is asked to wait when too many passwords are being checked.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Methods that other origins may use.
const CORS_METHODS: [Method; 3] = [Method::GET, Method::POST, Method::HEAD];
/// Headers that other origins may send where none are configured.
const CORS_HEADERS: [&str; 3] = ["accept", "content-type", "x-requested-with"];

/// The policy of a port; the default asks nothing.
#[derive(Default)]
pub struct Policy {
    pub authenticator: Option<Arc<Authenticator>>,
    pub cors: Option<Cors>,
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether processors may see a request's headers.
    pub include_metadata: bool,
}

/// Which other origins' pages may send here.
pub struct Cors {
    /// Lower case; with `*` for any part.
    origins: Vec<String>,
    any_origin: bool,
    /// Lower case; `*` for all.
    headers: Vec<String>,
    exposed_headers: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

impl Policy {
    /// Who sends this request.
    ///
    /// # Errors
    /// The client is not let in.
    pub async fn client<B>(&self, peer: IpAddr, request: &Request<B>) -> Result<Client, Refusal> {
        let mut client = Client::of(peer);
        if let Some(authenticator) = &self.authenticator {
            client.auth = authenticator.authenticate(request.headers()).await.map_err(|denied| match denied {
                Denied::Busy => Refusal::Unavailable { message: denied.to_string(), retry_after: RETRY_AFTER },
                _ => Refusal::Unauthenticated { message: denied.to_string(), challenge: authenticator.challenge() },
            })?;
        }
        if self.include_metadata {
            client.metadata = metadata(request);
        }
        Ok(client)
    }

    /// The answer to a browser that asks whether a page may send something; `None`: it does not ask.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Response<AnswerBody>> {
        let cors = self.cors.as_ref()?;
        let headers = request.headers();
        let wanted_method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = headers.get(header::ORIGIN)?;
        (request.method() == Method::OPTIONS).then(|| {
            let mut response = cors.preflight(origin, wanted_method, headers);
            self.put_headers(&mut response);
            response
        })
    }

    /// Adds what every answer carries; `origin` is the request's.
    pub fn finish(&self, origin: Option<&HeaderValue>, response: &mut Response<AnswerBody>) {
        if let Some(cors) = &self.cors {
            cors.allow(origin, response.headers_mut());
        }
        self.put_headers(response);
    }

    fn put_headers(&self, response: &mut Response<AnswerBody>) {
        for (name, value) in &self.response_headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

fn metadata<B>(request: &Request<B>) -> ClientMetadata {
    let host = request.uri().authority().map(|authority| ("host", authority.as_str()));
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    headers.chain(host).collect()
}

impl Cors {
    /// `None`: no origin may.
    pub fn new(settings: &CorsSettings) -> Option<Self> {
        if settings.allowed_origins.is_empty() {
            return None;
        }
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_ascii_lowercase()).collect::<Vec<_>>();
        let origins = lower(&settings.allowed_origins);
        let exposed_headers = Some(settings.exposed_headers.join(", ")).filter(|headers| !headers.is_empty());
        Some(Self {
            any_origin: origins.iter().any(|origin| origin == "*"),
            origins,
            headers: lower(&settings.allowed_headers),
            exposed_headers: exposed_headers.and_then(|headers| HeaderValue::from_str(&headers).ok()),
            max_age: (settings.max_age_seconds > 0).then(|| HeaderValue::from(settings.max_age_seconds)),
        })
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        self.any_origin || self.origins.iter().any(|allowed| matches(allowed, &origin))
    }

    fn allows_headers(&self, wanted: &str) -> bool {
        let known = |name: &str| match self.headers.as_slice() {
            [] => CORS_HEADERS.contains(&name),
            headers => headers.iter().any(|header| header == name || header == "*"),
        };
        let mut names = wanted.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
        names.all(|name| known(&name))
    }

    fn preflight(&self, origin: &HeaderValue, method: &HeaderValue, headers: &HeaderMap) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        answer.insert(header::VARY, HeaderValue::from_static(vary));
        let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let allowed = self.allows(origin)
            && CORS_METHODS.iter().any(|known| known.as_str().as_bytes() == method.as_bytes())
            && wanted.is_none_or(|wanted| wanted.to_str().is_ok_and(|wanted| self.allows_headers(wanted)));
        if !allowed {
            return response;
        }
        self.put_origin(origin, answer);
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        if let Some(wanted) = wanted {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        if let Some(max_age) = &self.max_age {
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        response
    }

    fn allow(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        self.put_origin(origin, answer);
        if let Some(exposed) = &self.exposed_headers {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn put_origin(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        let origin = if self.any_origin { HeaderValue::from_static("*") } else { origin.clone() };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // As a Collector, whether or not an authenticator looks at credentials.
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// Whether an origin is one that `allowed` means: its `*` stands for anything.
fn matches(allowed: &str, origin: &str) -> bool {
    match allowed.split_once('*') {
        None => allowed == origin,
        Some((before, after)) => {
            origin.len() >= before.len() + after.len() && origin.starts_with(before) && origin.ends_with(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: &[&str], headers: &[&str]) -> Policy {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let settings = CorsSettings {
            allowed_origins: owned(origins),
            allowed_headers: owned(headers),
            exposed_headers: owned(&["X-Seen"]),
            max_age_seconds: 60,
        };
        Policy { cors: Cors::new(&settings), ..Policy::default() }
    }

    fn preflight(policy: &Policy, origin: &str, headers: &str) -> Response<AnswerBody> {
        let request = Request::builder()
            .method(Method::OPTIONS)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", headers);
        policy.preflight(&request.body(()).unwrap()).unwrap()
    }

    #[test]
    fn a_page_of_an_allowed_origin_may_send_the_headers_it_may_send() {
        let policy = policy(&["https://*.example.com", "http://localhost:3000"], &["X-Own"]);
        for (origin, headers, allowed) in [
            ("https://shop.example.com", "x-own", true),
            ("https://SHOP.example.com", "X-Own", true),
            ("http://localhost:3000", "", true),
            ("https://example.com", "x-own", false),
            ("https://example.com.evil.org", "x-own", false),
            ("https://shop.example.com", "x-own, content-type", false),
        ] {
            let answer = preflight(&policy, origin, headers);
            assert_eq!(answer.status(), 204);
            let headers = answer.headers();
            assert_eq!(headers.contains_key("access-control-allow-origin"), allowed, "{origin} {headers:?}");
            if allowed {
                assert_eq!(headers["access-control-allow-origin"], origin);
                assert_eq!(headers["access-control-allow-credentials"], "true");
                assert_eq!(
                    (&headers["access-control-allow-methods"], &headers["access-control-max-age"]),
                    (&HeaderValue::from_static("POST"), &HeaderValue::from_static("60"))
                );
            }
        }
    }

    #[tokio::test]
    async fn processors_see_headers_only_where_they_are_asked_for() {
        let request = Request::builder().uri("http://shop:4318/v1/traces").header("X-Tenant", "a").body(()).unwrap();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let client = Policy::default().client(peer, &request).await.unwrap();
        assert!(client.metadata.is_empty());
        let policy = Policy { include_metadata: true, ..Policy::default() };
        let metadata = policy.client(peer, &request).await.unwrap().metadata;
        assert_eq!(metadata.get("x-tenant").collect::<Vec<_>>(), ["a"]);
        assert_eq!(metadata.get("host").collect::<Vec<_>>(), ["shop:4318"]);
    }

    #[test]
    fn what_is_no_preflight_is_answered_as_ever_and_says_who_may_read_it() {
        let policy = policy(&["*"], &[]);
        let request = Request::builder().method(Method::OPTIONS).header("origin", "https://a").body(()).unwrap();
        assert!(policy.preflight(&request).is_none());
        let mut answer = Response::new(AnswerBody::empty());
        policy.finish(Some(&HeaderValue::from_static("https://a")), &mut answer);
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert_eq!(answer.headers()["access-control-expose-headers"], "X-Seen");
        let mut answer = Response::new(AnswerBody::empty());
        Policy::default().finish(Some(&HeaderValue::from_static("https://a")), &mut answer);
        assert!(answer.headers().is_empty());
    }
}
