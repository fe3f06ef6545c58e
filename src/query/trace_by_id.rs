//! `/api/traces/{id}` and `/api/v2/traces/{id}`, as Tempo answers them.
//!
//! They differ in four things: the first answers a missing trace with 404 and one that is too large with 422, and its
//! body is the trace itself; the second always answers 200, with a trace that is present even if empty, because
//! Grafana reads into it without looking, and says `PARTIAL` of what was cut off; and only the second takes a filter ([`super::trace_filter`]).

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::HeaderMap;

use super::admission::Lane;
use super::asked::Asked;
use super::body::{Allowance, Body};
use super::error::QueryError;
use super::negotiation::{Coding, Format, Payload};
use super::parameters::{ParameterError, Parameters, signed};
use super::router::QueryState;
use super::source::{FoundTrace, SpanSource};
use super::trace_filter::{FILTERED, TraceFilter};
use super::trace_id::parse_trace_id;
use super::upstream::{Away, Unanswered, Upstream, whole_start};
use crate::otlp::TraceId;
use crate::otlp::json::{TopKey, protobuf_to_tempo_json, put_string};
use crate::otlp::wire;
use crate::store::assemble::{AssembleLimits, Completeness, Trace, assemble};
use crate::traceql::control::{Booked, Control};

/// `tempopb.PartialStatus.PARTIAL`.
const PARTIAL: u64 = 1;

pub(super) async fn v1(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let lookup = Lookup::new(&state, &id, &parameters, &headers)?;
    let source = state.source().clone();
    state
        .admission()
        .run(Lane::Trace, move |control| control.again(|| lookup.answer_v1(&*source, control), QueryError::is_busy))
        .await
}

pub(super) async fn v2(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let lookup = Lookup::new(&state, &id, &parameters, &headers)?;
    let source = state.source().clone();
    let answer = move |control: &Control| {
        let filter = TraceFilter::from_url(&parameters)?;
        control.again(|| lookup.answer_v2(&*source, filter.as_ref(), control), QueryError::is_busy)
    };
    state.admission().run(Lane::Trace, answer).await
}

/// Traces of up to so many bytes are read without booking them: nearly all are smaller, and are over before anything else
/// of their size is.
const SMALL_BYTES_MAX: usize = 512 * 1024;
/// A larger one is read anew, up to so many times more, until it is whole.
const READ_AGAIN_FACTOR: usize = 2;
/// While a trace is read: fragments, of which some more than the limit are read to be sure of it, and the whole.
const COPIES_READ: usize = 3;

/// A request that was understood.
struct Lookup {
    id: TraceId,
    limits: AssembleLimits,
    format: Format,
    coding: Coding,
    upstream: Option<Arc<dyn Upstream>>,
}

/// What was found of a trace.
struct Found {
    trace: Trace,
    /// How many bytes were looked at.
    inspected_bytes: u64,
    /// Whoever may have more does not answer.
    away: Option<Away>,
    _booked: Booked,
}

impl Lookup {
    fn new(state: &QueryState, id: &str, parameters: &Parameters, headers: &HeaderMap) -> Result<Self, QueryError> {
        let id = parse_trace_id(id)?;
        check_range(parameters)?;
        Ok(Self {
            id,
            limits: AssembleLimits { trace_bytes_max: state.limits().trace_bytes_max },
            format: Format::of(headers),
            coding: Coding::of(headers),
            upstream: state.upstream().cloned(),
        })
    }

    /// Nearly all traces are small, and cost next to nothing: only a large one is booked, as far as it goes and before it is
    /// read.
    fn read(&self, source: &dyn SpanSource, booked: &mut Booked) -> Result<FoundTrace, QueryError> {
        let mut limits = AssembleLimits { trace_bytes_max: self.limits.trace_bytes_max.min(SMALL_BYTES_MAX) };
        loop {
            let found = source.trace(self.id, &limits)?;
            let whole = found.completeness == Completeness::Complete;
            if whole || limits.trace_bytes_max >= self.limits.trace_bytes_max {
                return Ok(found);
            }
            drop(found);
            limits.trace_bytes_max =
                limits.trace_bytes_max.saturating_mul(READ_AGAIN_FACTOR).min(self.limits.trace_bytes_max);
            // It may have to wait for others, and holds nothing meanwhile.
            booked.shrink_to(0);
            booked.grow(limits.trace_bytes_max.saturating_mul(COPIES_READ))?;
        }
    }

    fn find(&self, source: &dyn SpanSource, control: &Control) -> Result<Found, QueryError> {
        let mut booked = control.nothing_booked();
        let here = self.read(source, &mut booked)?;
        let mut trace = self.assembled(&here.fragments)?;
        let inspected_bytes = here.inspected_bytes;
        let truncated = here.completeness == Completeness::Truncated;
        let mut away = None;
        if let Some(upstream) = &self.upstream
            && may_be_elsewhere(&trace.request, source)?
        {
            match upstream.trace(self.id, control) {
                Ok(older) if older.is_empty() => {}
                Ok(older) => {
                    control.reserve(older.len())?;
                    let mut fragments = here.fragments;
                    fragments.push(older);
                    trace = self.assembled(&fragments)?;
                }
                Err(Unanswered::Away(nobody)) => away = Some(nobody),
                Err(Unanswered::Stopped(stopped)) => return Err(stopped.into()),
            }
        }
        if truncated {
            trace.completeness = Completeness::Truncated;
        }
        // The fragments are gone.
        booked.shrink_to(trace.request.len());
        Ok(Found { trace, inspected_bytes, away, _booked: booked })
    }

    fn assembled(&self, fragments: &[Bytes]) -> Result<Trace, QueryError> {
        Ok(assemble(fragments.iter().map(|fragment| &fragment[..]), &self.limits)?)
    }

    fn answer_v1(&self, source: &dyn SpanSource, control: &Control) -> Result<Payload, QueryError> {
        let Found { trace, away, _booked, .. } = self.find(source, control)?;
        if trace.completeness == Completeness::Truncated {
            return Err(QueryError::TraceTooLarge { bytes_max: self.limits.trace_bytes_max });
        }
        if trace.spans == 0 {
            return Err(away.map_or(QueryError::NotFound, QueryError::Away));
        }
        let mut body = self.body(control);
        match self.format {
            Format::Protobuf => body.put(&trace.request),
            Format::Json => protobuf_to_tempo_json(&mut body, &trace.request, TopKey::Batches)?,
        }
        Payload::new(self.format.content_type(), body)
    }

    fn answer_v2(
        &self,
        source: &dyn SpanSource,
        filter: Option<&TraceFilter>,
        control: &Control,
    ) -> Result<Payload, QueryError> {
        let Found { mut trace, inspected_bytes, away, _booked } = self.find(source, control)?;
        let mut missing = Vec::new();
        match trace.completeness {
            Completeness::Truncated => {
                let bytes_max = self.limits.trace_bytes_max;
                missing.push(format!("Trace exceeds maximum size of {bytes_max} bytes, a partial trace is returned"));
            }
            Completeness::Complete => missing.extend(away.map(|away| away.to_string())),
        }
        if let Some(filter) = filter {
            let before = trace.request.len();
            trace.request = filter.applied(trace.request, control)?;
            if trace.request.len() < before {
                missing.push(FILTERED.to_owned());
            }
        }
        let partial = (!missing.is_empty()).then(|| missing.join("; "));
        let mut body = self.body(control);
        match self.format {
            Format::Protobuf => put_protobuf(&mut body, &trace.request, inspected_bytes, partial.as_deref()),
            Format::Json => put_json(&mut body, &trace.request, inspected_bytes, partial.as_deref())?,
        }
        Payload::new(self.format.content_type(), body)
    }

    /// Limited by the trace alone, which has a limit.
    fn body(&self, control: &Control) -> Body {
        Body::new(self.coding, Allowance::new(control, usize::MAX))
    }
}

/// Whether a part of a trace may only be where it was forwarded to. Without a root it has lost its beginning, or that has not
/// come yet; and of one that began before everything here the parts that came first may be gone, though the root, which
/// ends last, is here.
fn may_be_elsewhere(trace: &[u8], source: &dyn SpanSource) -> Result<bool, QueryError> {
    Ok(match whole_start(trace) {
        Some(start) => start < source.searchable()?.whole_since(),
        None => true,
    })
}

/// `tempopb.TraceByIDResponse`: trace 1, metrics 2 { inspectedBytes 1 }, status 3, message 4.
fn put_protobuf(body: &mut Body, trace: &[u8], inspected_bytes: u64, partial: Option<&str>) {
    wire::put_header(body, 1, trace.len());
    body.put(trace);
    let mut metrics = Vec::new();
    if inspected_bytes != 0 {
        wire::put_uint(&mut metrics, 1, inspected_bytes);
    }
    wire::put_bytes(body, 2, &metrics);
    if let Some(message) = partial {
        wire::put_uint(body, 3, PARTIAL);
        wire::put_bytes(body, 4, message.as_bytes());
    }
}

/// The same in Tempo's JSON.
fn put_json(body: &mut Body, trace: &[u8], inspected_bytes: u64, partial: Option<&str>) -> Result<(), QueryError> {
    body.extend_from_slice(b"{\"trace\":");
    protobuf_to_tempo_json(body, trace, TopKey::ResourceSpans)?;
    body.extend_from_slice(b",\"metrics\":{");
    if inspected_bytes != 0 {
        body.extend_from_slice(format!("\"inspectedBytes\":\"{inspected_bytes}\"").as_bytes());
    }
    body.push(b'}');
    if let Some(message) = partial {
        body.extend_from_slice(b",\"status\":\"PARTIAL\",\"message\":");
        put_string(body, message);
    }
    body.push(b'}');
    Ok(())
}

/// `start` and `end` only tell Tempo where to look; a trace is found here wherever it lies, so they are just checked.
fn check_range(parameters: &Parameters) -> Result<(), ParameterError> {
    let start = seconds(parameters, "start")?;
    let end = seconds(parameters, "end")?;
    match (start, end) {
        (Some(start), Some(end)) if end <= start => Err(ParameterError::EmptyRange { start, end }),
        _ => Ok(()),
    }
}

/// A parameter in Unix seconds. Zero is the same as absent.
fn seconds(parameters: &Parameters, name: &'static str) -> Result<Option<i64>, ParameterError> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let seconds = signed(text).map_err(|reason| ParameterError::Invalid { name, reason })?;
    Ok(Some(seconds).filter(|seconds| *seconds != 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::query::admission::Answer as _;
    use crate::query::source::{SourceError, TraceSource};
    use crate::traceql::segment::Source;

    const MIB: usize = 1024 * 1024;

    /// A trace of so many spans of 64 KiB, each a fragment.
    struct Large(u64);

    impl TraceSource for Large {
        fn trace(&self, id: TraceId, limits: &AssembleLimits) -> Result<FoundTrace, SourceError> {
            let mut found =
                FoundTrace { fragments: Vec::new(), completeness: Completeness::Complete, inspected_bytes: 0 };
            let mut bytes = 0;
            for number in 1..=self.0 {
                if bytes > 2 * limits.trace_bytes_max {
                    found.completeness = Completeness::Truncated;
                    break;
                }
                let (mut span, mut scope, mut resource, mut request) = Default::default();
                wire::put_bytes(&mut span, 1, &id.0);
                wire::put_bytes(&mut span, 2, &number.to_be_bytes());
                wire::put_bytes(&mut span, 5, &[b'x'; 64 * 1024]);
                wire::put_bytes(&mut scope, 2, &span);
                wire::put_bytes(&mut resource, 2, &scope);
                wire::put_bytes(&mut request, 1, &resource);
                bytes += request.len();
                found.fragments.push(request.into());
            }
            Ok(found)
        }
    }

    impl SpanSource for Large {
        fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
            Err(SourceError::Stopping)
        }
    }

    fn lookup(format: Format) -> Lookup {
        let limits = AssembleLimits { trace_bytes_max: 8 * MIB };
        Lookup { id: TraceId([7; 16]), limits, format, coding: Coding::Identity, upstream: None }
    }

    #[test]
    fn a_trace_is_booked_by_its_size_and_a_small_one_not_at_all() {
        let control = Control::new(Duration::from_secs(3600), 32 * MIB);
        let mut booked = control.nothing_booked();
        lookup(Format::Json).read(&Large(8), &mut booked).unwrap();
        assert_eq!(booked.bytes(), 0);
        let found = lookup(Format::Json).read(&Large(48), &mut booked).unwrap();
        assert_eq!((found.fragments.len(), found.completeness), (48, Completeness::Complete));
        // Of 3 MiB; the largest that there may be takes four times as much.
        assert!((3 * MIB..=6 * MIB).contains(&booked.bytes()), "{}", booked.bytes());
    }

    #[test]
    fn the_largest_trace_leaves_memory_to_others_while_it_is_written() {
        for format in [Format::Json, Format::Protobuf] {
            let control = Control::new(Duration::from_secs(3600), 32 * MIB);
            let payload = lookup(format).answer_v2(&Large(120), None, &control).unwrap();
            assert!(payload.bytes() > 7 * MIB);
            // What was written stays booked, and nothing else does.
            assert!((7 * MIB..9 * MIB).contains(&control.used_bytes()), "{}", control.used_bytes());
        }
        let small = Control::new(Duration::from_secs(3600), 4 * MIB);
        assert!(matches!(lookup(Format::Json).answer_v2(&Large(120), None, &small), Err(QueryError::Stopped(_))));
    }
}
