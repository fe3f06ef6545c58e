#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::auth::{basic, bearer};
use axum::Router;
use axum::body::Body;
use axum::routing::any;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower_service::Service as _;

const TOKEN: &str = "s3cret";
/// Of "123456".
const ANN: &str = "ann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=";

fn by_password(lines: &str) -> Arc<Authenticator> {
    let settings = basic::HtpasswdSettings { file: None, inline: lines.to_owned() };
    Arc::new(Authenticator::Basic(basic::Users::new(&settings).unwrap()))
}

fn by_token(token: &str) -> Arc<Authenticator> {
    let settings = bearer::BearerTokenSettings {
        header: "Authorization".to_owned(),
        scheme: "Bearer".to_owned(),
        tokens: vec![token.to_owned()],
        filename: None,
    };
    Arc::new(Authenticator::Bearer(bearer::Tokens::new(&settings).unwrap()))
}

/// Ann may look, whoever has the token may do everything, nobody else comes in.
fn logins() -> AccessRules {
    AccessRules {
        anonymous: Role::None,
        loopback: Role::None,
        authenticators: vec![(by_token(TOKEN), Role::Full), (by_password(ANN), Role::ReadOnly)],
        ..AccessRules::default()
    }
}

struct Guarded {
    routes: Router,
    access: Access,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Guarded {
    /// Everything behind the guard says who asked.
    fn by(rules: AccessRules) -> Self {
        let own_names = vec!["box.example".to_owned(), "spanreel.observe".to_owned()];
        let access = Access::new(rules, own_names, AccessMetrics::default()).unwrap();
        let who = |request: Request| async move {
            let caller = request.extensions().get::<Caller>().cloned();
            Json(
                json!({ "user": caller.as_ref().and_then(|caller| caller.user.clone()), "role": caller.map(|caller| caller.role) }),
            )
        };
        let routes =
            Router::new().fallback(any(who)).layer(axum::middleware::from_fn_with_state(access.clone(), guard));
        Self { routes: routes.merge(session_routes(access.clone())), access }
    }

    async fn ask(&self, method: Method, path: &str, from: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Peer(format!("{from}:9").parse().unwrap()));
        let (head, body) = self.routes.clone().call(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    async fn get(&self, path: &str, from: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, path, from, headers, "").await
    }

    fn refused(&self, reason: Reason) -> u64 {
        self.access.0.metrics.refused.get_or_create(&RefusedLabels { reason: reason.as_str() }).get()
    }
}

fn basic_header(user: &str, password: &str) -> String {
    basic::header_of(user, password).unwrap().1.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn without_rules_everybody_may_do_everything() {
    let guarded = Guarded::by(AccessRules::default());
    for from in ["127.0.0.1", "203.0.113.9"] {
        // What somebody in between sends along means nothing.
        let headers = [("authorization", "Bearer of somebody"), ("x-forwarded-user", "eve")];
        for method in [Method::GET, Method::DELETE] {
            let answer = guarded.ask(method, "/api/spanreel/pins/1", from, &headers, "").await;
            assert_eq!((answer.status, &answer.body["role"]), (StatusCode::OK, &json!("full")));
        }
    }
}

#[tokio::test]
async fn who_has_no_credentials_is_asked_for_them_in_every_protocol() {
    let guarded = Guarded::by(logins());
    let refused = guarded.get("/api/search", "10.0.0.1", &[]).await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
    let challenges: Vec<_> = refused.headers.get_all(WWW_AUTHENTICATE).iter().collect();
    assert_eq!(challenges, ["Basic realm=\"spanreel\"", "Bearer"]);

    // The page has a form for it; the browser's own must not lie over that.
    for by_script in [("sec-fetch-mode", "cors"), ("accept", "application/json"), ("accept", "text/event-stream")] {
        let refused = guarded.get("/api/search", "10.0.0.1", &[by_script]).await;
        let challenges: Vec<_> = refused.headers.get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, ["Bearer"], "{by_script:?}");
    }

    let path = "/tempopb.StreamingQuerier/Search";
    let refused = guarded.ask(Method::POST, path, "10.0.0.1", &[("content-type", "application/grpc")], "").await;
    assert_eq!((refused.status, &refused.headers["grpc-status"]), (StatusCode::OK, &HeaderValue::from_static("16")));
    assert_eq!(guarded.refused(Reason::Unauthenticated), 5);

    for open in ["/healthz", "/ready", "/grpc.health.v1.Health/Check"] {
        assert_eq!(guarded.get(open, "10.0.0.1", &[]).await.status, StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn credentials_give_their_role_and_wrong_ones_none() {
    let guarded = Guarded::by(logins());
    let bearer = format!("Bearer {TOKEN}");
    let ann = basic_header("ann", "123456");
    for (credentials, user, role) in [(&bearer, Value::Null, "full"), (&ann, json!("ann"), "read_only")] {
        let answer = guarded.get("/api/search", "10.0.0.1", &[("authorization", credentials)]).await;
        assert_eq!((&answer.body["user"], &answer.body["role"]), (&user, &json!(role)), "{credentials}");
    }
    for wrong in ["Bearer other", &basic_header("ann", "12345"), &basic_header("eve", "123456"), "Digest x"] {
        let answer = guarded.get("/api/search", "10.0.0.1", &[("authorization", wrong)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(guarded.refused(Reason::WrongCredentials), 4);
    // Also where none would do.
    let open = Guarded::by(AccessRules { anonymous: Role::Full, ..logins() });
    assert_eq!(open.get("/api/search", "10.0.0.1", &[]).await.status, StatusCode::OK);
    let wrong = open.get("/api/search", "10.0.0.1", &[("authorization", "Bearer other")]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_role_that_only_reads_changes_nothing() {
    let guarded =
        Guarded::by(AccessRules { anonymous: Role::ReadOnly, loopback: Role::Full, ..AccessRules::default() });
    for (method, path, allowed) in [
        (Method::GET, "/api/spanreel/pins", true),
        (Method::GET, "/ui/api/health", true),
        (Method::POST, "/api/search", true),
        (Method::POST, "/api/metrics/query_range", true),
        (Method::POST, "/tempopb.StreamingQuerier/Search", true),
        (Method::POST, "/api/spanreel/pins/1", false),
        (Method::PUT, "/api/spanreel/pins/1", false),
        (Method::DELETE, "/api/spanreel/pins/1", false),
        (Method::POST, "/api/spanreel/snapshot", false),
        (Method::POST, "/api/spanreel/verify", false),
        (Method::POST, "/api/spanreel/dead-letters/retry", false),
        (Method::DELETE, "/api/spanreel/dead-letters", false),
        (Method::PATCH, "/something/new", false),
    ] {
        let answer = guarded.ask(method.clone(), path, "10.0.0.1", &[], "").await;
        let expected = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
        let local = guarded.ask(method, path, "127.0.0.1", &[], "").await;
        assert_eq!(local.status, StatusCode::OK, "{path}");
    }
    assert_eq!(guarded.refused(Reason::ReadOnly), 8);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_even_for_who_may() {
    let guarded = Guarded::by(AccessRules::default());
    let own = [("host", "spanreel:3200")];
    for (header, value, allowed) in [
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "cross-site", false),
        ("origin", "http://spanreel:3200", true),
        ("origin", "http://evil.example", false),
        ("origin", "null", false),
    ] {
        let headers = [own[0], (header, value)];
        let answer = guarded.ask(Method::POST, "/api/spanreel/verify", "127.0.0.1", &headers, "").await;
        let expected = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(answer.status, expected, "{header}: {value}");
    }
    assert_eq!(guarded.refused(Reason::CrossSite), 4);
}

#[tokio::test]
async fn a_page_whose_name_was_made_to_lead_here_is_of_another_site() {
    let rebound = [("host", "evil.example:3200"), ("origin", "http://evil.example:3200")];
    let path = "/api/spanreel/verify";
    let guarded = Guarded::by(AccessRules { anonymous: Role::Full, ..logins() });
    let refused = guarded.ask(Method::POST, path, "10.0.0.1", &rebound, "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.to_string().contains("access::hosts"), "{}", refused.body);
    // Nor does it see anything, and what it came for would be all the same to it.
    for looks in ["/api/search", "/ui/api/health", "/ui/api/live", "/metrics"] {
        let refused = guarded.get(looks, "10.0.0.1", &rebound[..1]).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (StatusCode::FORBIDDEN, &json!("cross_site")));
    }
    // Whoever has credentials that no page of another site has, or a name that was proven.
    let bearer = format!("Bearer {TOKEN}");
    let known = [rebound[0], rebound[1], ("authorization", bearer.as_str())];
    assert_eq!(guarded.ask(Method::POST, path, "10.0.0.1", &known, "").await.status, StatusCode::OK);
    let proven = [("host", "traces.example"), ("sec-fetch-site", "same-origin")];
    assert_eq!(guarded.get("/api/search", "10.0.0.1", &proven).await.status, StatusCode::OK);

    let hosts = vec!["traces.example".to_owned()];
    let guarded = Guarded::by(AccessRules { hosts, ..AccessRules::default() });
    let own = [("host", "traces.example"), ("origin", "http://traces.example")];
    assert_eq!(guarded.ask(Method::POST, path, "10.0.0.1", &own, "").await.status, StatusCode::OK);
    // Where the names are given, nobody looks under another.
    assert_eq!(guarded.get(path, "10.0.0.1", &rebound).await.status, StatusCode::FORBIDDEN);
    let other = [("host", "other.example"), ("sec-fetch-site", "same-origin")];
    assert_eq!(guarded.get(path, "10.0.0.1", &other).await.status, StatusCode::FORBIDDEN);
    assert_eq!(guarded.get(path, "10.0.0.1", &[("host", "10.0.0.2:3200")]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn names_that_nobody_else_can_have_need_no_setting() {
    let guarded = Guarded::by(AccessRules::default());
    // Grafana, Prometheus, probes and people: by address, by a Service's name, by this machine's.
    for host in [
        "10.0.0.2:3200",
        "[::1]:3200",
        "localhost:3200",
        "spanreel:3200",
        "spanreel.observe:3200",
        "spanreel.observe.svc:3200",
        "spanreel.observe.svc.cluster.local:3200",
        "nas.local",
        "Box.example:3200",
    ] {
        for path in ["/api/search", "/metrics", "/ui/api/live"] {
            let answer = guarded.get(path, "10.0.0.1", &[("host", host)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{host}{path}");
        }
    }
    assert_eq!(guarded.refused(Reason::CrossSite), 0);
    // What says no name is no browser.
    assert_eq!(guarded.get("/api/search", "10.0.0.1", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn only_the_proxy_is_believed_who_somebody_is() {
    let proxy = TrustedProxy {
        header: HeaderName::from_static("x-forwarded-user"),
        sources: vec!["10.42.0.0/16".parse().unwrap()],
        role: Role::ReadOnly,
        full_users: vec!["ann".to_owned()],
    };
    let rules = AccessRules { trusted_proxy: Some(proxy), ..logins() };
    let guarded = Guarded::by(rules);
    let role = async |from: &str, user: &str| {
        let answer = guarded.get("/api/search", from, &[("x-forwarded-user", user)]).await;
        (answer.status, answer.body["role"].clone())
    };
    assert_eq!(role("10.42.0.7", "ann").await, (StatusCode::OK, json!("full")));
    assert_eq!(role("10.42.0.7", "bob").await, (StatusCode::OK, json!("read_only")));
    assert_eq!(role("10.42.0.7", "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(role("10.43.0.7", "ann").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(role("127.0.0.1", "ann").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(guarded.refused(Reason::UntrustedProxy), 2);
    // One of two may be the client's own.
    let twice = [("x-forwarded-user", "bob"), ("x-forwarded-user", "ann")];
    assert_eq!(guarded.get("/api/search", "10.42.0.7", &twice).await.status, StatusCode::UNAUTHORIZED);
    // Credentials count whatever stands beside them.
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("x-forwarded-user", "eve"), ("authorization", bearer.as_str())];
    assert_eq!(guarded.get("/api/search", "10.43.0.7", &headers).await.body["role"], "full");
    assert_eq!(guarded.get("/api/search", "10.42.0.7", &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_login_becomes_a_session_until_the_logout() {
    let guarded = Guarded::by(logins());
    let json_body = ("content-type", "application/json");
    let before = guarded.get("/ui/api/session", "10.0.0.1", &[]).await;
    assert_eq!(
        before.body,
        json!({"required": true, "role": "none", "user": null, "way": "anonymous",
               "login": {"password": true, "token": true}, "logout": false})
    );
    for (login, user, role) in [
        (json!({"user": "ann", "password": "123456"}), json!("ann"), "read_only"),
        (json!({"token": TOKEN}), Value::Null, "full"),
    ] {
        let answer = guarded.ask(Method::POST, "/ui/api/login", "10.0.0.1", &[json_body], &login.to_string()).await;
        assert_eq!((answer.status, &answer.body["role"], &answer.body["user"]), (StatusCode::OK, &json!(role), &user));
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
        let cookie = [("cookie", cookie.split(';').next().unwrap())];
        assert_eq!(guarded.get("/api/search", "10.0.0.1", &cookie).await.body["role"], role);
        let session = guarded.get("/ui/api/session", "10.0.0.1", &cookie).await;
        assert_eq!((&session.body["role"], &session.body["logout"]), (&json!(role), &json!(true)));
    }
    let wrong = [("authorization", "Bearer wrong")];
    let refused = guarded.get("/ui/api/session", "10.0.0.1", &wrong).await;
    assert_eq!((refused.status, &refused.body["role"]), (StatusCode::OK, &json!("none")));
    assert_eq!(guarded.refused(Reason::WrongCredentials), 1, "who guesses here is counted, too");
    for (login, status) in [
        (json!({"user": "ann", "password": "wrong"}), StatusCode::UNAUTHORIZED),
        (json!({"token": "wrong"}), StatusCode::UNAUTHORIZED),
        (json!({}), StatusCode::UNAUTHORIZED),
        (json!({"tokens": [TOKEN]}), StatusCode::BAD_REQUEST),
        (json!({"token": "line\nfeed"}), StatusCode::BAD_REQUEST),
        (json!({"token": "x".repeat(20_000)}), StatusCode::BAD_REQUEST),
    ] {
        let answer = guarded.ask(Method::POST, "/ui/api/login", "10.0.0.1", &[json_body], &login.to_string()).await;
        assert_eq!(answer.status, status, "{login}");
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = guarded.ask(Method::POST, "/ui/api/login", "10.0.0.1", &form, "token=s3cret").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let logout = guarded.ask(Method::POST, "/ui/api/logout", "10.0.0.1", &[], "").await;
    assert!(logout.headers["set-cookie"].to_str().unwrap().starts_with("spanreel_session=; Path=/; Max-Age=0"));
    // A cookie of another process, or of nobody, is none, and does not stand in the way of who needs none.
    let stale = [("cookie", "spanreel_session=AAAA")];
    assert_eq!(guarded.get("/api/search", "10.0.0.1", &stale).await.status, StatusCode::UNAUTHORIZED);
    let open = Guarded::by(AccessRules { anonymous: Role::ReadOnly, ..logins() });
    assert_eq!(open.get("/api/search", "10.0.0.1", &stale).await.body["role"], "read_only");
}

#[tokio::test]
async fn credentials_that_are_withdrawn_let_nobody_in_nor_do_their_sessions() {
    let guarded = Guarded::by(logins());
    let log_in = async |token: &str| {
        let login = json!({ "token": token }).to_string();
        let headers = [("content-type", "application/json")];
        guarded.ask(Method::POST, "/ui/api/login", "10.0.0.1", &headers, &login).await
    };
    let answer = log_in(TOKEN).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let with_cookie = [("cookie", cookie.as_str())];
    assert_eq!(guarded.get("/api/search", "10.0.0.1", &with_cookie).await.status, StatusCode::OK);

    guarded.access.replace(AccessRules { authenticators: vec![(by_token("other"), Role::Full)], ..logins() });
    assert_eq!(guarded.get("/api/search", "10.0.0.1", &with_cookie).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in(TOKEN).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in("other").await.status, StatusCode::OK);
}
