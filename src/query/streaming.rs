//! `tempopb.StreamingQuerier`, the RPCs by which Grafana shows results while they are found, and `grpc.health.v1.Health`.
//!
//! ```text
//! HTTP/2 request ─▶ frame ─▶ task: admission, call, engine ─▶ channel ─▶ body: messages, then trailers with the status
//!                                               └ progress ────┘
//! ```
//!
//! The RPCs ask what the HTTP endpoints ask and answer the same, in messages of at most 1 MiB. A search tells every half
//! second what it has found since; the others answer once. Of the metadata `grpc-timeout` counts, a tenant means nothing. A client that
//! leaves drops the body, which ends the task and with it the query; one that reads slowly delays nobody: progress that
//! finds the channel full is left out, and the finished answer no longer holds a thread.

mod body;
mod deadline;
mod frame;
mod progress;
mod status;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version as HttpVersion};
use tokio::time::timeout_at;

use super::admission::Lane;
use super::call::{InstantCall, RangeCall, SearchCall, TagsCall, ValuesCall, now};
use super::encode::protobuf;
use super::introspection::{self, Readiness};
use super::lengths::Question;
use super::negotiation::TEXT;
use super::paced::Hangup;
use super::router::{QueryState, Scanned};
use super::tags::{Version, find_names, find_values};
use super::upstream::{self, Federated};
use crate::otlp::wire;
use body::{Sender, answer};
use frame::{Compression, Messages};
use progress::Progress;
pub(super) use status::{Code, Status};

/// Bytes of one message, Tempo's `max_grpc_streaming_packet_size`; Grafana takes up to 4 MiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

const SERVICE: &str = "tempopb.StreamingQuerier";

pub(super) fn routes() -> Router<QueryState> {
    Router::new()
        .route("/tempopb.StreamingQuerier/{method}", any(query))
        .route("/grpc.health.v1.Health/{method}", any(health))
}

/// Where nobody answers: for gRPC an unknown service, else as Go's HTTP says it.
pub(super) async fn not_found(request: Request) -> Response {
    if is_grpc(request.headers()) {
        let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        return Status::new(Code::Unimplemented, format!("unknown service {service}")).into_response();
    }
    introspection::not_found().await
}

async fn query(State(state): State<QueryState>, Path(method): Path<String>, request: Request) -> Response {
    let deadline = deadline::of(request.headers());
    let received = match deadline {
        Some(deadline) => timeout_at(deadline, receive(request)).await.ok(),
        None => Some(receive(request).await),
    };
    let message = match received {
        Some(Ok(message)) => message,
        Some(Err(refused)) => return refused,
        None => return deadline::passed().into_response(),
    };
    match start(state, &method, message) {
        Some((body, hangup)) => {
            let body = match deadline {
                Some(deadline) => deadline::until(deadline, body),
                None => body,
            };
            grpc(body, hangup)
        }
        None => {
            let text = format!("unknown method {method} for service {SERVICE}");
            Status::new(Code::Unimplemented, text).into_response()
        }
    }
}

/// A task of its own for a request; `None`: there is no such method.
fn start(state: QueryState, method: &str, message: Bytes) -> Option<(Body, Hangup)> {
    let now = now();
    let admission = state.admission().clone();
    Some(match method {
        "Search" => answer(&admission, move |sender: Sender| async move {
            let lane = Lane::Scan(Question::of_message(&message, 8));
            let read = move || SearchCall::from_message(&message, now);
            let find = move |call: SearchCall, scanned: &Scanned<'_>| {
                let mut progress = Progress::new(sender, scanned.control, scanned.allowance(), call.origin);
                let found = upstream::search(scanned, &call.query, &call.request, &mut progress)?;
                let messages = progress.finish(&found.answer)?;
                Ok(Messages::new(messages).missing(found.away))
            };
            state.scan(lane, read, find).await
        }),
        "SearchTags" | "SearchTagsV2" => {
            let version = if method == "SearchTags" { Version::V1 } else { Version::V2 };
            answer(&admission, move |_| async move {
                let read = move || TagsCall::from_message(&message, now);
                let find = move |call: TagsCall, scanned: &Scanned<'_>| {
                    let Federated { answer: tags, away } = find_names(&call, version, scanned)?;
                    let allowance = scanned.allowance();
                    let messages = match version {
                        Version::V1 => protobuf::tag_names(&tags, MESSAGE_BYTES_MAX, allowance),
                        Version::V2 => protobuf::tag_names_v2(&tags, MESSAGE_BYTES_MAX, allowance),
                    };
                    Ok(Messages::new(messages?).missing(away))
                };
                state.scan(Lane::Scan(Question::UNKNOWN), read, find).await
            })
        }
        "SearchTagValues" | "SearchTagValuesV2" => {
            let version = if method == "SearchTagValues" { Version::V1 } else { Version::V2 };
            answer(&admission, move |_| async move {
                let read = move || ValuesCall::from_message(&message, version.tag_names(), now);
                let find = move |call: ValuesCall, scanned: &Scanned<'_>| {
                    let Federated { answer: values, away } = find_values(&call, scanned)?;
                    let allowance = scanned.allowance();
                    let messages = match version {
                        Version::V1 => protobuf::tag_values(&values, MESSAGE_BYTES_MAX, allowance),
                        Version::V2 => protobuf::tag_values_v2(&values, MESSAGE_BYTES_MAX, allowance),
                    };
                    Ok(Messages::new(messages?).missing(away))
                };
                state.scan(Lane::Scan(Question::UNKNOWN), read, find).await
            })
        }
        "MetricsQueryRange" => answer(&admission, move |_| async move {
            let lane = Lane::Metrics(Question::of_message(&message, 1));
            let read = move || RangeCall::from_message(&message, now);
            let find = |call: RangeCall, scanned: &Scanned<'_>| {
                let series = upstream::range(scanned, &call.query, &call.request)?;
                Ok(Messages::new(protobuf::range(&series, MESSAGE_BYTES_MAX, scanned.allowance())?))
            };
            state.scan(lane, read, find).await
        }),
        "MetricsQueryInstant" => answer(&admission, move |_| async move {
            let lane = Lane::Metrics(Question::of_message(&message, 1));
            let read = move || InstantCall::from_message(&message, now);
            let find = |call: InstantCall, scanned: &Scanned<'_>| {
                let series = upstream::instant(scanned, &call.query, &call.request)?;
                Ok(Messages::new(protobuf::instant(&series, MESSAGE_BYTES_MAX, scanned.allowance())?))
            };
            state.scan(lane, read, find).await
        }),
        _ => return None,
    })
}

/// `Check`, unary; `Watch` is not offered, which clients take for "do not watch".
async fn health(State(state): State<QueryState>, Path(method): Path<String>, request: Request) -> Response {
    const SERVING: u64 = 1;
    const NOT_SERVING: u64 = 2;
    let message = match receive(request).await {
        Ok(message) => message,
        Err(refused) => return refused,
    };
    if method != "Check" {
        let text = format!("unknown method {method} for service grpc.health.v1.Health");
        return Status::new(Code::Unimplemented, text).into_response();
    }
    // HealthCheckRequest { service 1 }; without one it is the process that is asked about.
    let service = wire::Fields::new(&message).map_while(Result::ok).find_map(|field| field.bytes(1));
    if service.is_some_and(|service| !service.is_empty() && service != SERVICE.as_bytes()) {
        return Status::new(Code::NotFound, "unknown service".to_owned()).into_response();
    }
    let ready = state.introspection().readiness() == Readiness::Ready;
    let mut response = Vec::new();
    wire::put_uint(&mut response, 1, if ready { SERVING } else { NOT_SERVING });
    let (body, hangup) = body::unary(state.admission(), response);
    grpc(body, hangup)
}

/// The one message of a request, or the answer to something that is none.
async fn receive(request: Request) -> Result<Bytes, Response> {
    let plain = |status: StatusCode, text: &'static str| {
        (status, [(CONTENT_TYPE, HeaderValue::from_static(TEXT))], text).into_response()
    };
    if !is_grpc(request.headers()) {
        return Err(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this path takes application/grpc"));
    }
    if request.version() != HttpVersion::HTTP_2 {
        return Err(plain(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "gRPC requires HTTP/2; a proxy in between must pass it on",
        ));
    }
    if request.method() != Method::POST {
        return Err(plain(StatusCode::METHOD_NOT_ALLOWED, "gRPC requires POST"));
    }
    let compression = Compression::of(request.headers());
    frame::read(request.into_body(), compression).await.map_err(IntoResponse::into_response)
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn grpc(body: Body, hangup: Hangup) -> Response {
    let mut response = Response::new(body);
    response.extensions_mut().insert(hangup);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
