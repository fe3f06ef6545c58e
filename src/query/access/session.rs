//! Logging in and out of the web UI. docs/ui-api.md describes the answers.
//!
//! Browsers send a password by themselves once it was asked for, but no token, and neither can be taken back from them.
//! Here either becomes a session ([`super::seal`]).

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::seal::{Transport, end_of_session};
use super::{Access, Caller, Reason, Refused, Role, Way, is_cross_site};
use crate::auth::Authenticator;
use crate::query::upkeep::{Peer, Refusal};

/// User and password, or a token.
const LOGIN_BYTES_MAX: usize = 8 * 1024;

/// What a form sends: a user with a password, or a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// These are behind no guard: who is not in must be able to come in.
pub fn routes(access: Access) -> Router {
    Router::new()
        .route("/ui/api/session", axum::routing::get(session))
        .route("/ui/api/login", axum::routing::post(login))
        .route("/ui/api/logout", axum::routing::post(logout))
        .with_state(access)
}

async fn session(State(access): State<Access>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    // Wrong credentials are no session; what is asked with them says so.
    let caller = access.caller(request.headers(), peer).await;
    let caller = caller.inspect_err(|refused| access.0.metrics.count(refused.reason)).ok();
    let in_session = access.0.seal.opened(request.headers()).is_some();
    uncached(Json(access.described(caller.as_ref(), in_session)).into_response())
}

async fn login(State(access): State<Access>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match access.log_in(&head.headers, body).await {
        Ok((caller, cookie)) => {
            let mut response = Json(access.described(Some(&caller), true)).into_response();
            response.headers_mut().insert(SET_COOKIE, cookie);
            uncached(response)
        }
        Err(LoginError::Refused(refused)) => access.answer(&head.headers, refused),
        Err(LoginError::Malformed(message)) => Refusal(StatusCode::BAD_REQUEST, message.to_owned()).into_response(),
    }
}

async fn logout(State(access): State<Access>, request: Request) -> Response {
    if is_cross_site(request.headers()) {
        return access.answer(request.headers(), other_site());
    }
    let mut response = Json(json!({})).into_response();
    if let Some(cookie) = end_of_session(Transport::of(request.headers())) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    uncached(response)
}

enum LoginError {
    Refused(Refused),
    Malformed(&'static str),
}

fn other_site() -> Refused {
    let message = "a page of another site may not log anybody in or out here".to_owned();
    Refused { reason: Reason::CrossSite, message }
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Access {
    async fn log_in(&self, headers: &HeaderMap, body: Body) -> Result<(Caller, HeaderValue), LoginError> {
        if is_cross_site(headers) {
            return Err(LoginError::Refused(other_site()));
        }
        // No form of another page can send this type.
        if !headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
            return Err(LoginError::Malformed("a login is application/json"));
        }
        let form = "a login is {\"user\": ..., \"password\": ...} or {\"token\": ...}";
        let body = to_bytes(body, LOGIN_BYTES_MAX).await.map_err(|_| LoginError::Malformed(form))?;
        let login: Login = serde_json::from_slice(&body).map_err(|_| LoginError::Malformed(form))?;
        let mut refused = Refused {
            reason: Reason::WrongCredentials,
            message: "nobody is let in by such credentials here (extensions::spanreel::access)".to_owned(),
        };
        let rules = self.rules();
        for (authenticator, _) in &rules.authenticators {
            let made = match (&login, &**authenticator) {
                (Login { user: Some(user), password: Some(password), token: None }, Authenticator::Basic(_)) => {
                    crate::auth::basic::header_of(user, password)
                }
                (Login { token: Some(token), user: None, password: None }, Authenticator::Bearer(tokens)) => {
                    tokens.header_of(token)
                }
                _ => continue,
            };
            let Some((name, value)) = made else {
                return Err(LoginError::Malformed("the credentials hold what cannot be sent in a header"));
            };
            match self.by_credentials(&HeaderMap::from_iter([(name.clone(), value.clone())])).await {
                Ok(Some(caller)) => {
                    let cookie = self.0.seal.cookie(&name, &value, Transport::of(headers));
                    let cookie = cookie.ok_or(LoginError::Malformed("the credentials are too long for a session"))?;
                    return Ok((caller, cookie));
                }
                Ok(None) => {}
                Err(problem) => refused = problem,
            }
        }
        Err(LoginError::Refused(refused))
    }

    /// Who asks and how one could log in, as the web UI wants to know it.
    fn described(&self, caller: Option<&Caller>, in_session: bool) -> Value {
        let rules = self.rules();
        let role = caller.map_or(Role::None, |caller| caller.role);
        let by = |password: bool| {
            rules.authenticators.iter().any(|(it, _)| matches!(**it, Authenticator::Basic(_)) == password)
        };
        json!({
            "required": rules.anonymous == Role::None,
            "role": role,
            "user": caller.and_then(|caller| caller.user.as_deref()),
            "way": caller.map_or(Way::Anonymous, |caller| caller.way),
            "login": { "password": by(true), "token": by(false) },
            "logout": in_session && caller.is_some_and(|caller| matches!(caller.way, Way::Password | Way::Token)),
        })
    }
}
