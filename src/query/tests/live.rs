//! The stream of new traces, as a browser that stays sees it.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::{Authenticator, bearer};
use crate::query::{Access, AccessMetrics, AccessRules, Role, guard, session_routes};

fn stored_nothing() -> QueryState {
    QueryState::new(Arc::new(Stored(Memory::default())), Arc::new(Process), QueryLimits::default())
}

#[tokio::test]
async fn a_stream_says_at_once_where_it_stands_and_at_the_end_that_the_process_stops() {
    let stopping = CancellationToken::new();
    let api = Api(router(stored_nothing().until(stopping.clone())));
    let request = Request::get("/ui/api/live").body(Body::empty()).unwrap();
    let mut body = api.call(request).await.into_body();
    let opening = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&opening[..], b"retry: 2000\nid: 0.0\n\n");

    stopping.cancel();
    let rest = body.collect().await.unwrap().to_bytes();
    let rest = std::str::from_utf8(&rest).unwrap();
    assert!(rest.ends_with("event: end\ndata: {\"message\":\"Spanreel is stopping\"}\n\n"), "{rest}");
}

/// Whoever has `token` may do everything, nobody else anything.
fn only_with(token: &str) -> AccessRules {
    let settings = bearer::BearerTokenSettings {
        header: "Authorization".to_owned(),
        scheme: "Bearer".to_owned(),
        tokens: vec![token.to_owned()],
        filename: None,
    };
    let authenticator = Arc::new(Authenticator::Bearer(bearer::Tokens::new(&settings).unwrap()));
    AccessRules {
        anonymous: Role::None,
        loopback: Role::None,
        authenticators: vec![(authenticator, Role::Full)],
        ..AccessRules::default()
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_session_that_it_was_opened_in() {
    let access = Access::new(only_with("first"), Vec::new(), AccessMetrics::default()).unwrap();
    let guarded = router(stored_nothing()).layer(axum::middleware::from_fn_with_state(access.clone(), guard));
    let api = Api(guarded.merge(session_routes(access.clone())));
    let login = Request::post("/ui/api/login").header("content-type", "application/json");
    let answer = api.call(login.body(Body::from(r#"{"token": "first"}"#)).unwrap()).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let open = async || {
        let request = Request::get("/ui/api/live").header("cookie", &cookie).body(Body::empty()).unwrap();
        api.call(request).await
    };
    let mut stream = open().await.into_body();
    let opening = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(opening.starts_with(b"retry: "));

    access.replace(only_with("second"));
    let rest = stream.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"event: end\ndata: {\"message\":\"the session has ended: log in again\"}\n\n"), "{rest:?}");
    assert_eq!(open().await.status(), StatusCode::UNAUTHORIZED, "and does not come again");
}
