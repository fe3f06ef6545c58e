//! `/api/metrics/query_range` and `/api/metrics/query`. As with Tempo the answer is JSON whatever is accepted.

use axum::extract::State;
use http::HeaderMap;

use super::admission::Lane;
use super::asked::Asked;
use super::call::{InstantCall, RangeCall, now};
use super::encode::json;
use super::error::QueryError;
use super::lengths::Question;
use super::negotiation::{Coding, JSON, Payload};
use super::parameters::Parameters;
use super::router::{QueryState, Scanned};
use super::upstream;

pub(super) async fn range(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let (now, coding) = (now(), Coding::of(&headers));
    let lane = Lane::Metrics(Question::of(asked_for(&parameters)));
    let answer = move |call: RangeCall, scanned: &Scanned<'_>| {
        let series = upstream::range(scanned, &call.query, &call.request)?;
        let mut body = scanned.body(coding);
        json::range(&mut body, &series);
        Payload::new(JSON, body)
    };
    state.scan(lane, move || RangeCall::from_url(&parameters, now), answer).await
}

pub(super) async fn instant(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let (now, coding) = (now(), Coding::of(&headers));
    let lane = Lane::Metrics(Question::of(asked_for(&parameters)));
    let answer = move |call: InstantCall, scanned: &Scanned<'_>| {
        let series = upstream::instant(scanned, &call.query, &call.request)?;
        let mut body = scanned.body(coding);
        json::instant(&mut body, &series);
        Payload::new(JSON, body)
    };
    state.scan(lane, move || InstantCall::from_url(&parameters, now), answer).await
}

/// `q` wins over `query`.
fn asked_for(parameters: &Parameters) -> &str {
    parameters.get("q").or_else(|| parameters.get("query")).unwrap_or_default()
}
