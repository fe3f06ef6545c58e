//! Reading traces back through the Tempo API.

use super::http::{Broken, Connection};
use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message;

/// `tempopb.TraceByIDResponse`; its `Trace` is byte-compatible with OTLP's `TracesData`.
#[derive(Clone, PartialEq, Message)]
struct TraceByIdResponse {
    #[prost(message, optional, tag = "1")]
    trace: Option<TracesData>,
}

/// One connection to the query API.
pub struct Query(Connection);

impl Query {
    pub async fn open(port: u16) -> Result<Self, Broken> {
        Connection::open(port).await.map(Self)
    }

    /// All spans of a trace, with the name of their service; empty if there is no such trace.
    pub async fn spans(&mut self, trace: [u8; 16]) -> Result<Vec<(String, Span)>, Broken> {
        let path = format!("/api/v2/traces/{}", super::traces::hex(&trace));
        let response = self.0.send(Method::GET, &path, &[("accept", "application/protobuf")], Bytes::new()).await?;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        let found = TraceByIdResponse::decode(response.body).expect("a TraceByIDResponse");
        let mut spans = Vec::new();
        for resource in found.trace.expect("the field `trace` is always present").resource_spans {
            let service = resource.resource.as_ref().and_then(super::traces::service_name).unwrap_or_default();
            let scopes = resource.scope_spans.into_iter();
            spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| (service.clone(), span)));
        }
        Ok(spans)
    }

    /// Those of `traces` that have fewer than `spans` spans here.
    pub async fn missing(
        &mut self,
        traces: impl IntoIterator<Item = [u8; 16]>,
        spans: usize,
    ) -> Result<Vec<[u8; 16]>, Broken> {
        let mut missing = Vec::new();
        for trace in traces {
            if self.spans(trace).await?.len() < spans {
                missing.push(trace);
            }
        }
        Ok(missing)
    }
}
