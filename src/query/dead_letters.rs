//! What destinations refused for good: to be looked at, dropped, or tried once more. Not part of Tempo's API.
//!
//! | path | what |
//! |---|---|
//! | `GET /api/spanreel/dead-letters` | `{"dead_letters": [{"id", "destination", "pipeline", "signal", "items", "bytes", "answer"}], "more"}` |
//! | `GET /api/spanreel/dead-letters/show?id=` | one of them, with `request` as OTLP JSON |
//! | `POST /api/spanreel/dead-letters/retry?id=` | sends it once more; `{"delivered", "rejected"}` |
//! | `DELETE /api/spanreel/dead-letters?id=` | removes it |
//!
//! The last two change something, so they are answered only to who is on the same machine (or in the same pod), or has
//! logged in.

use super::access::Caller;
use super::upkeep::{Peer, Refusal, blocking, from_here_or_known};
use crate::otlp::items::request_of;
use crate::otlp::json::message_to_json;
use crate::spool::DeadLetter;
use axum::extract::{Extension, Query, State};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Dead letters that are listed at once.
const LISTED_MAX: usize = 1000;

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLetter {
    /// There is none of this name (any more).
    Unknown,
    /// Nothing changed; the text says why.
    Failed(String),
}

/// Who keeps dead letters. Errors are for people.
pub trait DeadLetters: Send + Sync + 'static {
    /// The oldest, at most `count_max`. Blocking.
    ///
    /// # Errors
    /// The disk cannot be read.
    fn list(&self, count_max: usize) -> Result<Vec<DeadLetter>, String>;

    /// One of them, with its request as protobuf. Blocking.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn show(&self, id: &str) -> Result<(DeadLetter, Bytes), NoLetter>;

    /// Removes one. Blocking.
    ///
    /// # Errors
    /// It is not there, or the disk cannot be written.
    fn discard(&self, id: &str) -> Result<(), NoLetter>;

    /// Sends one once more, and removes it if it was taken; how many of its items were delivered and rejected.
    fn retry<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(u64, u64), NoLetter>>;
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

/// The routes of this page.
pub fn routes(letters: Arc<dyn DeadLetters>) -> Router {
    Router::new()
        .route("/api/spanreel/dead-letters", axum::routing::get(list).delete(discard))
        .route("/api/spanreel/dead-letters/show", axum::routing::get(show))
        .route("/api/spanreel/dead-letters/retry", axum::routing::post(retry))
        .with_state(letters)
}

type Letters = State<Arc<dyn DeadLetters>>;

fn described(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "destination": letter.destination,
        "pipeline": letter.pipeline,
        "signal": letter.signal,
        "items": letter.spans,
        "bytes": letter.frame_bytes,
        "answer": letter.answer,
    })
}

fn refused(error: NoLetter) -> Refusal {
    match error {
        NoLetter::Unknown => {
            Refusal(StatusCode::NOT_FOUND, "there is no such dead letter; spanreel dead-letters lists them".to_owned())
        }
        NoLetter::Failed(message) => Refusal(StatusCode::CONFLICT, message),
    }
}

async fn list(State(letters): Letters) -> Result<Json<Value>, Refusal> {
    let found = blocking(move || letters.list(LISTED_MAX + 1)).await?;
    let listed: Vec<Value> = found.iter().take(LISTED_MAX).map(described).collect();
    Ok(Json(json!({ "dead_letters": listed, "more": found.len() > LISTED_MAX })))
}

async fn show(State(letters): Letters, Query(Named { id }): Query<Named>) -> Result<Json<Value>, Refusal> {
    let (letter, request) = blocking(move || Ok::<_, String>(letters.show(&id))).await?.map_err(refused)?;
    let json =
        message_to_json(request_of(letter.signal), &request).map_err(|error| Refusal::failed(error.to_string()))?;
    let mut shown = described(&letter);
    shown["request"] = serde_json::from_slice(&json).map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(Json(shown))
}

async fn discard(
    State(letters): Letters,
    peer: Option<Extension<Peer>>,
    caller: Option<Extension<Caller>>,
    Query(Named { id }): Query<Named>,
) -> Result<Json<Value>, Refusal> {
    from_here_or_known(peer, caller)?;
    let named = id.clone();
    blocking(move || Ok::<_, String>(letters.discard(&named))).await?.map_err(refused)?;
    Ok(Json(json!({ "dropped": id })))
}

async fn retry(
    State(letters): Letters,
    peer: Option<Extension<Peer>>,
    caller: Option<Extension<Caller>>,
    Query(Named { id }): Query<Named>,
) -> Result<Json<Value>, Refusal> {
    from_here_or_known(peer, caller)?;
    let (delivered, rejected) = letters.retry(&id).await.map_err(refused)?;
    Ok(Json(json!({ "delivered": delivered, "rejected": rejected })))
}
