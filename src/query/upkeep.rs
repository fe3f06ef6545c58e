//! Looking after what is stored: pinned traces, verifying, copies. Not part of Tempo's API.
//!
//! | path | what |
//! |---|---|
//! | `GET /api/spanreel/pins` | `{"traces": ["<hex>", ...]}` |
//! | `POST`, `DELETE /api/spanreel/pins/{id}` | retention leaves the trace from now on, or no longer; 404 if there is no such trace or pin |
//! | `POST /api/spanreel/verify` | reads everything; `{"runs", "traces", "spans", "batches", "damages": [{"place", "problem"}]}` |
//! | `GET /api/spanreel/verify` | how far that is: `{"running": true, "done", "of"}`, or `{"running": false}` |
//! | `POST /api/spanreel/snapshot?directory=/new/directory` | a copy of the data directory; 409 if there is something already |
//!
//! The last two cost disk, so they are answered only to who is on the same machine (or in the same pod).

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::json;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::access::Caller;
use super::asked::Asked;
use super::trace_id::parse_trace_id;
use crate::otlp::TraceId;
use crate::store::runs::{Verification, VerifyProgress};

/// Who sent a request; the server puts it into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Why something was not done, for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UpkeepError {
    #[error("there is no trace {0}; nothing was pinned")]
    NoTrace(TraceId),
    #[error("the trace {0} is not pinned")]
    NotPinned(TraceId),
    #[error("{} exists already; a snapshot needs a new directory", .0.display())]
    Exists(PathBuf),
    #[error("{0}")]
    Failed(String),
}

/// What the store does for whoever looks after it. All of it may block on the disk; errors are for people.
pub trait Upkeep: Send + Sync + 'static {
    /// Retention leaves the spans of this trace from now on.
    ///
    /// # Errors
    /// There is no such trace, too many are pinned, or the disk cannot be written.
    fn pin(&self, trace: TraceId) -> Result<(), UpkeepError>;

    /// # Errors
    /// It is not pinned, or the disk cannot be written.
    fn unpin(&self, trace: TraceId) -> Result<(), UpkeepError>;

    fn pinned(&self) -> Vec<TraceId>;

    /// Reads everything, for as long as `go_on` says, which is told how far it is.
    ///
    /// # Errors
    /// The disk cannot be read at all.
    fn verify(&self, go_on: &dyn Fn(VerifyProgress) -> bool) -> Result<Verification, String>;

    /// A copy of the data directory at a place that does not exist yet.
    ///
    /// # Errors
    /// It exists, or cannot be written.
    fn snapshot(&self, directory: &FilePath) -> Result<(), UpkeepError>;
}

#[derive(Clone)]
struct UpkeepState {
    upkeep: Arc<dyn Upkeep>,
    /// Reading or copying everything is done once at a time.
    turn: Arc<Semaphore>,
    /// How far the verification is that runs.
    verified: Arc<Mutex<Option<VerifyProgress>>>,
}

/// The routes of this page.
pub fn routes(upkeep: Arc<dyn Upkeep>) -> Router {
    let state = UpkeepState { upkeep, turn: Arc::new(Semaphore::new(1)), verified: Arc::default() };
    Router::new()
        .route("/api/spanreel/pins", axum::routing::get(pins))
        .route("/api/spanreel/pins/{id}", axum::routing::post(pin).put(pin).delete(unpin))
        .route("/api/spanreel/verify", axum::routing::post(verify).get(verified))
        .route("/api/spanreel/snapshot", axum::routing::post(snapshot))
        .with_state(state)
}

/// Why not, as JSON of the kind that all of Spanreel's own API answers.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": { "message": self.1 } }))).into_response()
    }
}

impl Refusal {
    pub(super) fn failed(message: String) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::failed(message)
    }
}

impl From<UpkeepError> for Refusal {
    fn from(error: UpkeepError) -> Self {
        let status = match error {
            UpkeepError::NoTrace(_) | UpkeepError::NotPinned(_) => StatusCode::NOT_FOUND,
            UpkeepError::Exists(_) => StatusCode::CONFLICT,
            UpkeepError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

/// Work that blocks, off the async threads.
pub(super) async fn blocking<T: Send + 'static, E: Into<Refusal> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Refusal::failed("it failed inside Spanreel; its log says more".to_owned())),
    }
}

fn trace_of(id: &str) -> Result<TraceId, Refusal> {
    parse_trace_id(id).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn pins(State(state): State<UpkeepState>) -> Json<serde_json::Value> {
    let traces: Vec<String> = state.upkeep.pinned().iter().map(TraceId::to_string).collect();
    Json(json!({ "traces": traces }))
}

async fn pin(State(state): State<UpkeepState>, Path(id): Path<String>) -> Result<Json<serde_json::Value>, Refusal> {
    let trace = trace_of(&id)?;
    blocking(move || state.upkeep.pin(trace)).await?;
    Ok(Json(json!({ "pinned": trace.to_string() })))
}

async fn unpin(State(state): State<UpkeepState>, Path(id): Path<String>) -> Result<Json<serde_json::Value>, Refusal> {
    let trace = trace_of(&id)?;
    blocking(move || state.upkeep.unpin(trace)).await?;
    Ok(Json(json!({ "unpinned": trace.to_string() })))
}

pub(super) fn only_from_here(peer: Option<Extension<Peer>>) -> Result<(), Refusal> {
    let local = peer.is_some_and(|Extension(Peer(address))| address.ip().to_canonical().is_loopback());
    let message = "this is answered only to the same machine or pod; in a cluster: kubectl exec deployment/spanreel -- \
                   spanreel verify (or snapshot, dead-letters)";
    if local { Ok(()) } else { Err(Refusal(StatusCode::FORBIDDEN, message.to_owned())) }
}

/// What changes no more than it is asked to may be asked by whoever has logged in, too.
pub(super) fn from_here_or_known(
    peer: Option<Extension<Peer>>,
    caller: Option<Extension<Caller>>,
) -> Result<(), Refusal> {
    match caller {
        Some(Extension(caller)) if caller.is_known() => Ok(()),
        _ => only_from_here(peer),
    }
}

/// Says stop when the request is dropped, which is when its client left.
struct WhileAsked(Arc<AtomicBool>);

impl Drop for WhileAsked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Where a verification stands, for whoever waits for it.
struct Verifying<'a>(&'a Mutex<Option<VerifyProgress>>);

impl Verifying<'_> {
    fn put(&self, progress: Option<VerifyProgress>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

impl Drop for Verifying<'_> {
    fn drop(&mut self) {
        self.put(None);
    }
}

async fn verified(
    State(state): State<UpkeepState>,
    peer: Option<Extension<Peer>>,
) -> Result<Json<serde_json::Value>, Refusal> {
    only_from_here(peer)?;
    let progress = *state.verified.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Json(match progress {
        Some(VerifyProgress { done, of }) => json!({ "running": true, "done": done, "of": of }),
        None => json!({ "running": false }),
    }))
}

async fn verify(
    State(state): State<UpkeepState>,
    peer: Option<Extension<Peer>>,
) -> Result<Json<serde_json::Value>, Refusal> {
    only_from_here(peer)?;
    let turn = turn(&state)?;
    let asked = WhileAsked(Arc::new(AtomicBool::new(true)));
    let go_on = Arc::clone(&asked.0);
    let work = move || {
        // The work's, not the request's: it goes on for a moment when its client has left.
        let _turn = turn;
        let verifying = Verifying(&state.verified);
        let read_on = |progress| {
            verifying.put(Some(progress));
            go_on.load(Ordering::Relaxed)
        };
        state.upkeep.verify(&read_on)
    };
    let found = blocking(work).await?;
    let damages: Vec<_> = found
        .damages
        .iter()
        .map(|damage| json!({ "place": damage.place.to_string(), "problem": damage.problem }))
        .collect();
    Ok(Json(json!({
        "runs": found.runs,
        "traces": found.traces,
        "spans": found.spans,
        "batches": found.batches,
        "damages": damages,
    })))
}

async fn snapshot(
    State(state): State<UpkeepState>,
    peer: Option<Extension<Peer>>,
    Asked(parameters): Asked,
) -> Result<Json<serde_json::Value>, Refusal> {
    only_from_here(peer)?;
    let Some(directory) = parameters.get("directory").map(PathBuf::from) else {
        let message = "where to? /api/spanreel/snapshot?directory=/a/new/directory";
        return Err(Refusal(StatusCode::BAD_REQUEST, message.to_owned()));
    };
    if !directory.is_absolute() {
        let message = format!("{} is no absolute path", directory.display());
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    let _turn = turn(&state)?;
    let place = directory.display().to_string();
    blocking(move || state.upkeep.snapshot(&directory)).await?;
    Ok(Json(json!({ "directory": place })))
}

fn turn(state: &UpkeepState) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
    let busy = "another verify or snapshot is running; try again when it is done";
    Arc::clone(&state.turn).try_acquire_owned().map_err(|_| Refusal(StatusCode::TOO_MANY_REQUESTS, busy.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use axum::body::Body;
    use http::{Method, Request};
    use http_body_util::BodyExt;
    use tower_service::Service;

    use super::*;

    /// Is at the third of ten parts until it is told to end.
    struct Reading {
        reads: mpsc::Sender<()>,
        ends: Mutex<mpsc::Receiver<()>>,
    }

    impl Upkeep for Reading {
        fn pin(&self, trace: TraceId) -> Result<(), UpkeepError> {
            Err(UpkeepError::NoTrace(trace))
        }

        fn unpin(&self, trace: TraceId) -> Result<(), UpkeepError> {
            Err(UpkeepError::NotPinned(trace))
        }

        fn pinned(&self) -> Vec<TraceId> {
            Vec::new()
        }

        fn verify(&self, go_on: &dyn Fn(VerifyProgress) -> bool) -> Result<Verification, String> {
            assert!(go_on(VerifyProgress { done: 3, of: 10 }));
            self.reads.send(()).unwrap();
            self.ends.lock().unwrap().recv().unwrap();
            Ok(Verification { runs: 2, ..Verification::default() })
        }

        fn snapshot(&self, _: &FilePath) -> Result<(), UpkeepError> {
            Ok(())
        }
    }

    async fn asked(mut routes: Router, method: Method) -> serde_json::Value {
        let mut request = Request::builder().method(method).uri("/api/spanreel/verify").body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(([127, 0, 0, 1], 1).into()));
        let body = routes.call(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn how_far_a_verification_is_can_be_asked_while_it_runs() {
        let (reads, reading) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let routes = routes(Arc::new(Reading { reads, ends: Mutex::new(ends) }));
        assert_eq!(asked(routes.clone(), Method::GET).await, json!({ "running": false }));
        let verification = tokio::spawn(asked(routes.clone(), Method::POST));
        tokio::task::spawn_blocking(move || reading.recv().unwrap()).await.unwrap();
        assert_eq!(asked(routes.clone(), Method::GET).await, json!({ "running": true, "done": 3, "of": 10 }));
        end.send(()).unwrap();
        assert_eq!(verification.await.unwrap()["runs"], 2);
        assert_eq!(asked(routes, Method::GET).await, json!({ "running": false }));
    }

    #[test]
    fn costly_work_is_done_only_for_the_same_machine() {
        let from = |address: &str| only_from_here(Some(Extension(Peer(address.parse().unwrap()))));
        assert!(from("127.0.0.1:1").is_ok() && from("[::1]:1").is_ok() && from("[::ffff:127.0.0.1]:1").is_ok());
        assert!(from("10.42.0.7:1").is_err() && from("[fd00::1]:1").is_err());
        assert!(only_from_here(None).is_err());
    }
}
