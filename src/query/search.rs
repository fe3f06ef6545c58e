//! `/api/search`.

use axum::extract::State;
use http::HeaderMap;

use super::asked::Asked;
use super::call::{SearchCall, now};
use super::encode::{json, protobuf};
use super::error::QueryError;
use super::negotiation::{Coding, Format, Payload};
use super::router::{QueryState, Scanned};
use super::upstream::{self, Federated};

pub(super) async fn search(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let now = now();
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let answer = move |call: SearchCall, scanned: &Scanned<'_>| {
        let Federated { answer, away } = upstream::search(scanned, &call.query, &call.request, &mut |_| {})?;
        let body = match format {
            Format::Json => json::search(&answer, call.origin),
            Format::Protobuf => protobuf::search(&answer, call.origin),
        };
        Ok(Payload::of_scan(format.content_type(), body, coding)?.missing(away))
    };
    state.scan(move || SearchCall::from_url(&parameters, now), answer).await
}
