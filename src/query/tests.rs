//! The API through its router: requests as clients send them, over traces in memory.

mod bad_input;
mod drilldown;
mod grafana;
mod leaving;
mod live;
mod shop;
mod streaming;
mod upstream;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value as Json;
use tower_service::Service;

use super::*;
use crate::otlp::TraceId;
use crate::store::assemble::{AssembleLimits, Completeness};
use crate::traceql::segment::Source;
use crate::traceql::tests::memory::Memory;

/// What can be searched, but not found by id.
struct Stored(Memory);

impl TraceSource for Stored {
    fn trace(&self, _: TraceId, _: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        Ok(FoundTrace { fragments: Vec::new(), completeness: Completeness::Complete, inspected_bytes: 0 })
    }
}

impl SpanSource for Stored {
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
        Ok(Arc::new(self.0.clone()))
    }
}

struct Process;

impl Introspection for Process {
    fn metrics(&self) -> crate::telemetry::Pages {
        Box::new((0..3).map(|page| format!("page{page} {}\n", "1".repeat(2_000))))
    }

    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn status(&self) -> Json {
        Json::Null
    }
}

struct Api(Router);

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Api {
    fn over(memory: Memory) -> Self {
        Self::within(memory, QueryLimits::default())
    }

    fn within(memory: Memory, limits: QueryLimits) -> Self {
        Self(router(QueryState::new(Arc::new(Stored(memory)), Arc::new(Process), limits)))
    }

    /// The router as it is, whatever comes back.
    async fn call(&self, request: Request<Body>) -> http::Response<Body> {
        self.0.clone().call(request).await.unwrap()
    }

    async fn request(&self, method: Method, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = self.call(request.body(Body::empty()).unwrap()).await.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.request(Method::GET, &uri(path, parameters), &[]).await
    }

    /// The JSON of an answer that must be a good one.
    async fn json(&self, path: &str, parameters: &[(&str, &str)]) -> Json {
        let answer = self.get(path, parameters).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {parameters:?}: {}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/json");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A TraceQL search over the last hour.
    async fn search(&self, query: &str, more: &[(&str, &str)]) -> Json {
        let (start, end) = last_hour();
        let mut parameters = vec![("q", query), ("start", &start), ("end", &end)];
        parameters.extend(more);
        self.json("/api/search", &parameters).await
    }
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn last_hour() -> (String, String) {
    let now = call::now() / 1_000_000_000;
    ((now - 3600).to_string(), now.to_string())
}

/// With everything encoded that could mean something.
fn uri(path: &str, parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
