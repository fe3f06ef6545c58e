//! Who may ask on the query port, and who may change something there.
//!
//! ```text
//! request ─▶ a trusted proxy's header? ─▶ credentials, or a session that stands for them? ─▶ anonymous
//!                                   └──────────────┬───────────────┘
//!                                       role: none (401), read_only (403 for what changes something), full
//! ```
//!
//! Without settings everybody who reaches the port may do everything. Pages and files of the web UI hold no data and are
//! behind no login; what they ask for is. Invariants: what is not known to change nothing counts as a change; a page of
//! another site changes and sees nothing here whatever the browser sends along; wrong credentials are refused also where none would
//! do; every refusal is counted.

mod names;
mod seal;
mod session;
#[cfg(test)]
mod tests;

pub use session::routes as session_routes;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::json;

use super::streaming::{Code, Status, is_grpc};
use super::upkeep::Peer;
use crate::auth::{AddressRange, Authenticator, Denied};
use seal::Seal;

/// Longer names of users are nobody's.
const USER_BYTES_MAX: usize = 256;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nothing: credentials are asked for.
    None,
    /// Look at everything.
    ReadOnly,
    /// Change what can be changed here, too.
    #[default]
    Full,
}

/// Who lets clients in, and as what.
#[derive(Default)]
pub struct AccessRules {
    /// Who comes without credentials.
    pub anonymous: Role,
    /// The same from this machine or pod.
    pub loopback: Role,
    /// Asked in this order.
    pub authenticators: Vec<(Arc<Authenticator>, Role)>,
    pub trusted_proxy: Option<TrustedProxy>,
    /// Names under which browsers come, besides addresses, this process's own, and those that nobody can register. `*` is
    /// any. If there are some, whoever has no credentials sees nothing under others even over TLS.
    pub hosts: Vec<String>,
}

/// A proxy that says who its clients are.
#[derive(Debug, Clone)]
pub struct TrustedProxy {
    pub header: HeaderName,
    pub sources: Vec<AddressRange>,
    pub role: Role,
    pub full_users: Vec<String>,
}

/// The rules at work, which can be replaced. Clones share them.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    rules: ArcSwap<AccessRules>,
    /// Names of this machine and of the Service in front of it.
    own_names: Vec<String>,
    seal: Seal,
    metrics: AccessMetrics,
}

/// The system has no random numbers to make sessions with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers, which sessions of the web UI need")]
pub struct NoRandomness;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub role: Role,
    pub user: Option<String>,
    pub way: Way,
}

/// How somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    Anonymous,
    Loopback,
    Password,
    Token,
    Proxy,
}

impl Caller {
    /// Whether somebody has vouched for this one.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.way, Way::Anonymous | Way::Loopback)
    }
}

/// Why a request is refused; the label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reason {
    Unauthenticated,
    WrongCredentials,
    UntrustedProxy,
    Busy,
    ReadOnly,
    CrossSite,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::WrongCredentials => "wrong_credentials",
            Self::UntrustedProxy => "untrusted_proxy",
            Self::Busy => "busy",
            Self::ReadOnly => "read_only",
            Self::CrossSite => "cross_site",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated | Self::WrongCredentials | Self::UntrustedProxy => StatusCode::UNAUTHORIZED,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::ReadOnly | Self::CrossSite => StatusCode::FORBIDDEN,
        }
    }
}

/// Why not, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    reason: Reason,
    message: String,
}

/// What is refused, counted.
#[derive(Debug, Clone, Default)]
pub struct AccessMetrics {
    refused: Family<RefusedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

impl AccessMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanreel_query_requests_refused",
            "Requests to the query port that were refused because of who asked, by reason",
            self.refused.clone(),
        );
    }

    fn count(&self, reason: Reason) {
        self.refused.get_or_create(&RefusedLabels { reason: reason.as_str() }).inc();
    }
}

impl Access {
    /// `own_names` are those of this machine and of the Service in front of it.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new(rules: AccessRules, own_names: Vec<String>, metrics: AccessMetrics) -> Result<Self, NoRandomness> {
        let seal = Seal::new().ok_or(NoRandomness)?;
        Ok(Self(Arc::new(Inner { rules: ArcSwap::from_pointee(rules), own_names, seal, metrics })))
    }

    /// Judges by other rules from now on. Sessions go on if their credentials are still good.
    pub fn replace(&self, rules: AccessRules) {
        self.0.rules.store(Arc::new(rules));
    }

    fn rules(&self) -> Arc<AccessRules> {
        self.0.rules.load_full()
    }

    /// Who sends a request with these headers.
    async fn caller(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<Caller, Refused> {
        let rules = self.rules();
        let mut untrusted = false;
        if let Some(proxy) = &rules.trusted_proxy
            && let Some(user) = headers.get(&proxy.header)
        {
            if peer.is_some_and(|Peer(peer)| proxy.sources.iter().any(|range| range.contains(peer.ip()))) {
                // Whose is it if there are two? Maybe the client's.
                if headers.get_all(&proxy.header).iter().nth(1).is_some() {
                    let message = format!("{} comes more than once", proxy.header);
                    return Err(Refused { reason: Reason::WrongCredentials, message });
                }
                return proxy.caller(user);
            }
            untrusted = true;
        }
        if let Some(caller) = self.by_credentials(headers).await? {
            return Ok(caller);
        }
        // A session that has ended, or whose credentials were withdrawn, is none.
        if let Some((name, value)) = self.0.seal.opened(headers) {
            let stands_for = HeaderMap::from_iter([(name, value)]);
            if let Ok(Some(caller)) = self.by_credentials(&stands_for).await {
                return Ok(caller);
            }
        }
        if untrusted && let Some(proxy) = &rules.trusted_proxy {
            let from = peer.map_or_else(|| "nobody knows where".to_owned(), |Peer(peer)| peer.ip().to_string());
            let message = format!(
                "{} is not taken from {from}; add it to trusted_proxy::sources if that is the proxy",
                proxy.header
            );
            return Err(Refused { reason: Reason::UntrustedProxy, message });
        }
        let is_local = peer.is_some_and(|Peer(peer)| peer.ip().to_canonical().is_loopback());
        let (role, way) = match is_local {
            true => (rules.loopback, Way::Loopback),
            false => (rules.anonymous, Way::Anonymous),
        };
        Ok(Caller { role, user: None, way })
    }

    /// `None`: there are no credentials that anybody here would look at.
    async fn by_credentials(&self, headers: &HeaderMap) -> Result<Option<Caller>, Refused> {
        let mut refused = None;
        let rules = self.rules();
        for (authenticator, role) in &rules.authenticators {
            match authenticator.authenticate(headers).await {
                Ok(known) => {
                    let way = match **authenticator {
                        Authenticator::Basic(_) => Way::Password,
                        Authenticator::Bearer(_) => Way::Token,
                    };
                    let user = known.get("username").next().map(str::to_owned);
                    return Ok(Some(Caller { role: *role, user, way }));
                }
                Err(Denied::Missing(_)) => {}
                Err(denied) => {
                    let reason = if denied == Denied::Busy { Reason::Busy } else { Reason::WrongCredentials };
                    // That another one is busy says more than that these are not of its kind.
                    if refused.is_none() || reason == Reason::Busy {
                        refused = Some(Refused { reason, message: denied.to_string() });
                    }
                }
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// Counts a refusal and puts it into the words of the protocol that was spoken.
    fn answer(&self, headers: &HeaderMap, Refused { reason, message }: Refused) -> Response {
        self.0.metrics.count(reason);
        tracing::debug!(reason = reason.as_str(), message, "a request to the query port is refused");
        let status = reason.status();
        if is_grpc(headers) {
            let code = match status {
                StatusCode::UNAUTHORIZED => Code::Unauthenticated,
                StatusCode::FORBIDDEN => Code::PermissionDenied,
                _ => Code::Unavailable,
            };
            return Status::new(code, message).into_response();
        }
        let body = Json(json!({ "error": { "code": reason.as_str(), "message": message } }));
        let mut response = (status, body).into_response();
        let answer = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            for challenge in self.challenges(headers) {
                answer.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// What is asked for. A script of a page shows a form of its own; `Basic` would have the browser ask instead.
    fn challenges(&self, headers: &HeaderMap) -> Vec<&'static str> {
        let by_script = match headers.get("sec-fetch-mode") {
            Some(mode) => mode.as_bytes() != b"navigate",
            // Over plain HTTP browsers do not say it, but pages ask for what nobody navigates to.
            None => headers
                .get(ACCEPT)
                .is_some_and(|kinds| matches!(kinds.as_bytes(), b"application/json" | b"text/event-stream")),
        };
        let rules = self.rules();
        let all = rules.authenticators.iter().map(|(authenticator, _)| authenticator.challenge());
        let mut challenges: Vec<&str> = all.filter(|challenge| !by_script || !challenge.starts_with("Basic")).collect();
        if challenges.is_empty() {
            challenges.push("Session");
        }
        challenges.sort_unstable();
        challenges.dedup();
        challenges
    }

    /// The name under which somebody came, if a page of another site may have led him here (DNS rebinding). Where a browser
    /// says of what site a page is, the name had to be proven, by a certificate or by being this machine's; over plain HTTP
    /// to a name that could be anybody's it does not say it, and neither does what is no browser.
    fn strange_name<'a>(&self, request: &'a Parts, changes: bool) -> Option<&'a str> {
        let headers = &request.headers;
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let rules = self.rules();
        let is_proven = headers.contains_key("sec-fetch-site");
        let origin = text(ORIGIN).filter(|_| changes && !is_proven).map(host_of);
        let host = text(HOST).or_else(|| request.uri.authority().map(|authority| authority.as_str()));
        let host = host.filter(|_| !is_proven || !rules.hosts.is_empty());
        let known = || rules.hosts.iter().chain(&self.0.own_names);
        origin.into_iter().chain(host).find(|name| !names::is_own(name, known()))
    }
}

impl TrustedProxy {
    fn caller(&self, user: &HeaderValue) -> Result<Caller, Refused> {
        let known = user.to_str().ok().map(str::trim).filter(|user| (1..=USER_BYTES_MAX).contains(&user.len()));
        let Some(user) = known else {
            let message = format!("{} names no user", self.header);
            return Err(Refused { reason: Reason::WrongCredentials, message });
        };
        let role = if self.full_users.iter().any(|full| full == user) { Role::Full } else { self.role };
        Ok(Caller { role, user: Some(user.to_owned()), way: Way::Proxy })
    }
}

/// Somebody who was let in for something that lasts.
#[derive(Clone)]
pub(super) struct Standing {
    access: Access,
    headers: HeaderMap,
    peer: Option<Peer>,
}

impl Standing {
    /// Of a request that came through [`guard`]; without one nobody is asked.
    pub(super) fn of(headers: &HeaderMap, extensions: &Extensions) -> Option<Self> {
        let access = extensions.get::<Access>()?.clone();
        Some(Self { access, headers: headers.clone(), peer: extensions.get::<Peer>().copied() })
    }

    /// Whether he would be let in now.
    pub(super) async fn holds(&self) -> bool {
        match self.access.caller(&self.headers, self.peer).await {
            Ok(caller) => caller.role > Role::None,
            Err(refused) => refused.reason == Reason::Busy,
        }
    }
}

/// Lets a request pass, with the [`Caller`] and the rules among its extensions, or refuses it.
pub async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let (mut head, body) = request.into_parts();
    match admit(&access, &head).await {
        Ok(caller) => {
            head.extensions.insert(caller);
            head.extensions.insert(access);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refused) => access.answer(&head.headers, refused),
    }
}

async fn admit(access: &Access, request: &Parts) -> Result<Caller, Refused> {
    let headers = &request.headers;
    let caller = access.caller(headers, request.extensions.get::<Peer>().copied()).await?;
    if caller.role == Role::None {
        let message = match caller.user {
            Some(user) => format!("{user} has no access here"),
            None => "log in: credentials are needed here".to_owned(),
        };
        return Err(Refused { reason: Reason::Unauthenticated, message });
    }
    let changes = changes_something(&request.method, request.uri.path());
    if changes && is_cross_site(headers) {
        let message = "a page of another site may not change anything here".to_owned();
        return Err(Refused { reason: Reason::CrossSite, message });
    }
    // A browser gives credentials to the site that they are for; who has none may have been led here by another.
    if !caller.is_known()
        && let Some(name) = access.strange_name(request, changes)
    {
        let message = format!(
            "{name} could be the name of another site; if it is one of Spanreel's, add it to \
             extensions::spanreel::access::hosts"
        );
        return Err(Refused { reason: Reason::CrossSite, message });
    }
    if changes && caller.role < Role::Full {
        let who = caller.user.as_deref().unwrap_or("whoever comes this way");
        let message = format!("{who} may look and change nothing (extensions::spanreel::access)");
        return Err(Refused { reason: Reason::ReadOnly, message });
    }
    Ok(caller)
}

/// What probes ask, which have no credentials.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/ready") || path.starts_with("/grpc.health.v1.Health/")
}

/// Whether a request may change something: Tempo's API takes questions by any method, everything else does not.
fn changes_something(method: &Method, path: &str) -> bool {
    const QUESTIONS: [&str; 9] = [
        "/api/echo",
        "/api/metrics/",
        "/api/search",
        "/api/status/",
        "/api/traces/",
        "/api/v2/",
        "/metrics",
        "/status",
        "/tempopb.StreamingQuerier/",
    ];
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    !reads && !QUESTIONS.iter().any(|question| path.starts_with(question))
}

/// Whether a browser says that a page of another site sends this. What is no browser says nothing.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    // Older browsers, and those that are not in a secure context.
    match headers.get(ORIGIN).map(|origin| origin.to_str()) {
        None => false,
        Some(Err(_)) => true,
        Some(Ok(origin)) => {
            let host = host_of(origin);
            let forwarded = HeaderName::from_static("x-forwarded-host");
            ![text(&HOST), text(&forwarded)].into_iter().flatten().any(|own| own.eq_ignore_ascii_case(host))
        }
    }
}

fn host_of(origin: &str) -> &str {
    origin.split_once("://").map_or(origin, |(_, host)| host)
}
