//! `/api/metrics/query_range` and `/api/metrics/query`. As with Tempo the answer is JSON whatever is accepted.

use axum::extract::{Query, State};
use http::HeaderMap;

use super::call::{InstantCall, RangeCall, now};
use super::encode::json;
use super::engine;
use super::error::QueryError;
use super::negotiation::{Coding, JSON, Payload};
use super::parameters::Parameters;
use super::router::QueryState;
use crate::traceql::control::Control;
use crate::traceql::segment::Source;

pub(super) async fn range(
    State(state): State<QueryState>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    let RangeCall { query, request } = RangeCall::from_url(&Parameters::new(parameters), now())?;
    let coding = Coding::of(&headers);
    let work = move |source: &dyn Source, control: &Control| {
        let answer = engine::range(&query, &request, source, control)?;
        Payload::of_scan(JSON, json::range(&answer), coding)
    };
    state.scan(work).await
}

pub(super) async fn instant(
    State(state): State<QueryState>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    let InstantCall { query, request } = InstantCall::from_url(&Parameters::new(parameters), now())?;
    let coding = Coding::of(&headers);
    let work = move |source: &dyn Source, control: &Control| {
        let answer = engine::instant(&query, &request, source, control)?;
        Payload::of_scan(JSON, json::instant(&answer), coding)
    };
    state.scan(work).await
}
