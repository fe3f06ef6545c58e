//! `/api/search`.

use axum::extract::State;
use http::HeaderMap;

use super::admission::Lane;
use super::asked::Asked;
use super::call::{SearchCall, now};
use super::encode::Written;
use super::error::QueryError;
use super::lengths::Question;
use super::negotiation::{Coding, Format, Payload};
use super::router::{QueryState, Scanned};
use super::upstream::{self, Federated};

pub(super) async fn search(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let now = now();
    let lane = Lane::Scan(Question::of(parameters.get("q").unwrap_or_default()));
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let answered = move |call: &SearchCall, scanned: &Scanned<'_>| {
        let mut written = Written::new(scanned.body(coding), format, call.origin);
        let Federated { answer, away } = upstream::search(scanned, &call.query, &call.request, &mut written)?;
        Ok(Payload::new(format.content_type(), written.finish(&answer))?.missing(away))
    };
    let answer = move |call: SearchCall, scanned: &Scanned<'_>| {
        scanned.control.again(|| answered(&call, scanned), QueryError::is_busy)
    };
    state.scan(lane, move || SearchCall::from_url(&parameters, now), answer).await
}
