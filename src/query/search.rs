//! `/api/search`.

use axum::extract::{Query, State};
use http::HeaderMap;

use super::call::{SearchCall, now};
use super::encode::{json, protobuf};
use super::error::QueryError;
use super::negotiation::{Coding, Format, Payload};
use super::parameters::Parameters;
use super::router::QueryState;
use super::upstream;
use crate::traceql::control::Control;
use crate::traceql::segment::Source;

pub(super) async fn search(
    State(state): State<QueryState>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    let call = SearchCall::from_url(&Parameters::new(parameters), now())?;
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let asked = state.clone();
    let work = move |source: &dyn Source, control: &Control| {
        let answer = upstream::search(&asked, &call, source, control, &mut |_| {})?;
        let body = match format {
            Format::Json => json::search(&answer, call.origin),
            Format::Protobuf => protobuf::search(&answer, call.origin),
        };
        Payload::of_scan(format.content_type(), body, coding)
    };
    state.scan(work).await
}
