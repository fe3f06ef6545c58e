//! Questions that are answered here and, where that is not enough, upstream.

use super::merge;
use super::{Away, Unanswered, Upstream};
use crate::query::engine;
use crate::query::error::QueryError;
use crate::query::router::Scanned;
use crate::traceql::answer::{Inspected, MetricsAnswer, SearchAnswer, TagsAnswer, ValuesAnswer};
use crate::traceql::ast::{Expression, Field, Query, Scope};
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};
use crate::traceql::search::Listener;

/// An answer, and whether something may be missing from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federated<T> {
    pub answer: T,
    /// Who may have more does not answer.
    pub away: Option<Away>,
}

impl<T> Federated<T> {
    fn whole(answer: T) -> Self {
        Self { answer, away: None }
    }
}

/// Searches here and, where that is not enough, upstream. The listener takes the traces; what is held of them is a portion,
/// if upstream has nothing to be asked for.
pub fn search(
    scanned: &Scanned<'_>,
    query: &Query,
    request: &SearchRequest,
    listener: &mut dyn Listener,
) -> Result<Federated<Inspected>, QueryError> {
    let Some((upstream, oldest)) = older_than_here(scanned, request.start) else {
        let inspected = engine::search_each(query, request, scanned.source, scanned.control, listener)?;
        return Ok(Federated::whole(inspected));
    };
    let found = engine::search(query, request, scanned.source, scanned.control, listener)?;
    let Federated { answer, away } = with_older(scanned, query, request, found, upstream, oldest)?;
    // It takes as many as it wants.
    let _ = answer.traces.into_iter().try_for_each(|trace| listener.take(trace, &answer.inspected));
    Ok(Federated { answer: answer.inspected, away })
}

fn with_older(
    scanned: &Scanned<'_>,
    query: &Query,
    request: &SearchRequest,
    mut found: SearchAnswer,
    upstream: &dyn Upstream,
    oldest: u64,
) -> Result<Federated<SearchAnswer>, QueryError> {
    if found.traces.len() >= request.limit {
        return Ok(Federated::whole(found));
    }
    let older = SearchRequest { end: request.end.min(oldest), ..*request };
    match upstream.search(&query.to_string(), &older, scanned.control) {
        Ok(mut older) => {
            // It was asked when spans began.
            if let Some(overlap) = request.overlapping {
                older.traces.retain(|trace| overlap.meets(trace.start, trace.start.saturating_add(trace.duration)));
            }
            Ok(Federated::whole(merge::traces(found, older, request.limit)))
        }
        Err(unanswered) => {
            // One job more, which was not done.
            found.inspected.segments = found.inspected.segments.saturating_add(1);
            alone(found, unanswered)
        }
    }
}

/// Series, of which the intervals before the oldest data come from upstream.
pub fn range(scanned: &Scanned<'_>, query: &Query, request: &RangeRequest) -> Result<MetricsAnswer, QueryError> {
    let Some((upstream, oldest)) = older_than_here(scanned, request.start.saturating_sub(request.step)) else {
        return engine::range(query, request, scanned.source, scanned.control);
    };
    let (older, here) = split(request, oldest);
    let own = match &here {
        Some(here) => engine::range(query, here, scanned.source, scanned.control)?,
        None => MetricsAnswer::default(),
    };
    let Some(older) = older else { return Ok(own) };
    match upstream.range(&query.to_string(), &older, scanned.control) {
        Ok(mut answer) => {
            merge::keep_within(&mut answer, &older);
            Ok(merge::series(query, own, answer, request, here.as_ref(), scanned.control)?)
        }
        // Better the interval that is here in part than none.
        Err(unanswered) => partial(engine::range(query, request, scanned.source, scanned.control)?, unanswered),
    }
}

/// A value per series: from upstream alone if the range begins before the oldest data.
pub fn instant(scanned: &Scanned<'_>, query: &Query, request: &InstantRequest) -> Result<MetricsAnswer, QueryError> {
    let Some((upstream, _)) = older_than_here(scanned, request.start) else {
        return engine::instant(query, request, scanned.source, scanned.control);
    };
    match upstream.instant(&query.to_string(), request, scanned.control) {
        Ok(answer) => Ok(answer),
        Err(unanswered) => partial(engine::instant(query, request, scanned.source, scanned.control)?, unanswered),
    }
}

pub fn tag_names(
    scanned: &Scanned<'_>,
    scope: Option<Scope>,
    filter: Option<&Expression>,
    request: &TagsRequest,
) -> Result<Federated<TagsAnswer>, QueryError> {
    let own = engine::tag_names(scanned.source, scope, filter, request, scanned.control)?;
    let Some((upstream, oldest)) = older_than_here(scanned, request.start) else {
        return Ok(Federated::whole(own));
    };
    let older = TagsRequest { end: request.end.min(oldest), ..*request };
    match upstream.tag_names(scope, filter, &older, scanned.control) {
        Ok(older) => Ok(Federated::whole(merge::names(own, older, request))),
        Err(unanswered) => alone(own, unanswered),
    }
}

pub fn tag_values(
    scanned: &Scanned<'_>,
    field: &Field,
    filter: Option<&Expression>,
    request: &TagsRequest,
) -> Result<Federated<ValuesAnswer>, QueryError> {
    let own = engine::tag_values(scanned.source, field, filter, request, scanned.control)?;
    let Some((upstream, oldest)) = older_than_here(scanned, request.start) else {
        return Ok(Federated::whole(own));
    };
    let older = TagsRequest { end: request.end.min(oldest), ..*request };
    match upstream.tag_values(field, filter, &older, scanned.control) {
        Ok(older) => Ok(Federated::whole(merge::values(own, older, request))),
        Err(unanswered) => alone(own, unanswered),
    }
}

/// Whom to ask for what started before everything here, and since when everything is here; `None` if nobody has to be
/// asked for a range that begins at `start`.
fn older_than_here<'s>(scanned: &Scanned<'s>, start: u64) -> Option<(&'s dyn Upstream, u64)> {
    let upstream = scanned.state.upstream()?;
    let oldest = scanned.source.whole_since();
    (start < oldest).then_some((&**upstream, oldest))
}

/// The intervals that begin before `oldest`, and those that are wholly here.
fn split(request: &RangeRequest, oldest: u64) -> (Option<RangeRequest>, Option<RangeRequest>) {
    // An interval is that of the sample at its end; it begins one step before.
    let late = oldest.checked_add(request.step).map(|time| time.saturating_sub(request.start));
    let first_here = late.and_then(|late| request.start.checked_add(late.checked_next_multiple_of(request.step)?));
    let first_here = first_here.filter(|first| *first <= request.end);
    match first_here {
        None => (Some(*request), None),
        Some(first) if first == request.start => (None, Some(*request)),
        Some(first) => {
            let older = RangeRequest { end: first - request.step, ..*request };
            (Some(older), Some(RangeRequest { start: first, ..*request }))
        }
    }
}

/// What is here, with a word of who is away.
fn alone<T>(answer: T, unanswered: Unanswered) -> Result<Federated<T>, QueryError> {
    let away = away(unanswered)?;
    Ok(Federated { answer, away: Some(away) })
}

/// As [`alone`], where the answer has a place for the word.
fn partial(mut answer: MetricsAnswer, unanswered: Unanswered) -> Result<MetricsAnswer, QueryError> {
    let away = away(unanswered)?.to_string();
    answer.partial = Some(match answer.partial {
        Some(limited) => format!("{limited} {away}"),
        None => away,
    });
    Ok(answer)
}

fn away(unanswered: Unanswered) -> Result<Away, QueryError> {
    match unanswered {
        Unanswered::Stopped(stopped) => Err(stopped.into()),
        Unanswered::Away(away) => {
            tracing::warn!(%away, "a query is answered from here alone");
            Ok(away)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 60;

    fn request(start: u64, end: u64) -> RangeRequest {
        RangeRequest { start, end, step: STEP, exemplars: 0, series_max: 0 }
    }

    #[test]
    fn intervals_are_here_if_they_begin_when_everything_is() {
        let parts = |oldest| split(&request(600, 1200), oldest);
        assert_eq!(parts(539), (None, Some(request(600, 1200))));
        assert_eq!(parts(540), (None, Some(request(600, 1200))));
        assert_eq!(parts(541), (Some(request(600, 600)), Some(request(660, 1200))));
        assert_eq!(parts(1140), (Some(request(600, 1140)), Some(request(1200, 1200))));
        assert_eq!(parts(1141), (Some(request(600, 1200)), None));
        assert_eq!(parts(u64::MAX), (Some(request(600, 1200)), None));
        // One sample, which is at no multiple of its interval.
        assert_eq!(split(&request(1199, 1199), 1139), (None, Some(request(1199, 1199))));
        assert_eq!(split(&request(1199, 1199), 1140), (Some(request(1199, 1199)), None));
    }
}
