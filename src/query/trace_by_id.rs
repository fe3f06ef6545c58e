//! `/api/traces/{id}` and `/api/v2/traces/{id}`, as Tempo answers them.
//!
//! They differ in three things: the first answers a missing trace with 404 and one that is too large with 422, and its
//! body is the trace itself; the second always answers 200, with a trace that is present even if empty, because
//! Grafana reads into it without looking, and says `PARTIAL` of what was cut off.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use bytes::Bytes;
use http::HeaderMap;

use super::admission::Lane;
use super::error::QueryError;
use super::negotiation::{Coding, Format, Payload};
use super::parameters::{ParameterError, Parameters, signed};
use super::router::QueryState;
use super::source::{FoundTrace, TraceSource};
use super::trace_id::parse_trace_id;
use super::upstream::{Away, Unanswered, Upstream, has_root};
use crate::otlp::TraceId;
use crate::otlp::json::{TopKey, protobuf_to_tempo_json, put_string};
use crate::otlp::wire;
use crate::store::assemble::{AssembleLimits, Completeness, Trace, assemble};
use crate::traceql::control::Control;

/// `tempopb.PartialStatus.PARTIAL`.
const PARTIAL: u64 = 1;

pub(super) async fn v1(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    let lookup = Lookup::new(&state, &id, &Parameters::new(parameters), &headers)?;
    let source = state.source().clone();
    state.admission().run(Lane::Trace, move |control| lookup.answer_v1(&*source, control)).await
}

pub(super) async fn v2(
    State(state): State<QueryState>,
    Path(id): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    let lookup = Lookup::new(&state, &id, &Parameters::new(parameters), &headers)?;
    let source = state.source().clone();
    state.admission().run(Lane::Trace, move |control| lookup.answer_v2(&*source, control)).await
}

/// Traces of up to so many bytes are read without booking them.
const SMALL_BYTES_MAX: usize = 512 * 1024;
/// How many times the bytes of a trace are held at once: its fragments, the whole, and the answer, which is larger in JSON.
const COPIES_OF_LARGE: usize = 4;

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

    /// Nearly all traces are small, and cost next to nothing: only a large one is booked, before it is read as a whole.
    fn read(&self, source: &dyn TraceSource, control: &Control) -> Result<FoundTrace, QueryError> {
        if self.limits.trace_bytes_max > SMALL_BYTES_MAX {
            let found = source.trace(self.id, &AssembleLimits { trace_bytes_max: SMALL_BYTES_MAX })?;
            if found.completeness == Completeness::Complete {
                return Ok(found);
            }
        }
        let bytes = self.limits.trace_bytes_max.saturating_mul(COPIES_OF_LARGE);
        control.reserve(bytes.min(control.bytes_max()))?;
        Ok(source.trace(self.id, &self.limits)?)
    }

    fn find(&self, source: &dyn TraceSource, control: &Control) -> Result<Found, QueryError> {
        let here = self.read(source, control)?;
        let mut trace = self.assembled(&here.fragments)?;
        let inspected_bytes = here.inspected_bytes;
        let truncated = here.completeness == Completeness::Truncated;
        let mut away = None;
        // A trace without root has lost its beginning, or it has not come yet.
        if let Some(upstream) = &self.upstream
            && !has_root(&trace.request)
        {
            match upstream.trace(self.id, control) {
                Ok(older) if older.is_empty() => {}
                Ok(older) => {
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
        Ok(Found { trace, inspected_bytes, away })
    }

    fn assembled(&self, fragments: &[Bytes]) -> Result<Trace, QueryError> {
        Ok(assemble(fragments.iter().map(|fragment| &fragment[..]), &self.limits)?)
    }

    fn answer_v1(&self, source: &dyn TraceSource, control: &Control) -> Result<Payload, QueryError> {
        let Found { trace, away, .. } = self.find(source, control)?;
        if trace.completeness == Completeness::Truncated {
            return Err(QueryError::TraceTooLarge { bytes_max: self.limits.trace_bytes_max });
        }
        if trace.spans == 0 {
            return Err(away.map_or(QueryError::NotFound, QueryError::Away));
        }
        let body = match self.format {
            Format::Protobuf => trace.request,
            Format::Json => {
                let mut body = Vec::with_capacity(trace.request.len() * 2);
                protobuf_to_tempo_json(&mut body, &trace.request, TopKey::Batches)?;
                body
            }
        };
        Ok(Payload::new(self.format.content_type(), body, self.coding))
    }

    fn answer_v2(&self, source: &dyn TraceSource, control: &Control) -> Result<Payload, QueryError> {
        let Found { trace, inspected_bytes, away } = self.find(source, control)?;
        let partial = match trace.completeness {
            Completeness::Truncated => {
                let bytes_max = self.limits.trace_bytes_max;
                Some(format!("Trace exceeds maximum size of {bytes_max} bytes, a partial trace is returned"))
            }
            Completeness::Complete => away.map(|away| away.to_string()),
        };
        let body = match self.format {
            Format::Protobuf => response_protobuf(&trace.request, inspected_bytes, partial.as_deref()),
            Format::Json => response_json(&trace.request, inspected_bytes, partial.as_deref())?,
        };
        Ok(Payload::new(self.format.content_type(), body, self.coding))
    }
}

/// `tempopb.TraceByIDResponse`: trace 1, metrics 2 { inspectedBytes 1 }, status 3, message 4.
fn response_protobuf(trace: &[u8], inspected_bytes: u64, partial: Option<&str>) -> Vec<u8> {
    // Beyond the trace: the metrics, at most 13 bytes, and a short message.
    const REST_LEN: usize = 128;
    let mut body = Vec::with_capacity(trace.len() + REST_LEN);
    wire::put_bytes(&mut body, 1, trace);
    let mut metrics = Vec::new();
    if inspected_bytes != 0 {
        wire::put_uint(&mut metrics, 1, inspected_bytes);
    }
    wire::put_bytes(&mut body, 2, &metrics);
    if let Some(message) = partial {
        wire::put_uint(&mut body, 3, PARTIAL);
        wire::put_bytes(&mut body, 4, message.as_bytes());
    }
    body
}

/// The same in Tempo's JSON.
fn response_json(trace: &[u8], inspected_bytes: u64, partial: Option<&str>) -> Result<Vec<u8>, QueryError> {
    let mut body = Vec::with_capacity(trace.len() * 2 + 128);
    body.extend_from_slice(b"{\"trace\":");
    protobuf_to_tempo_json(&mut body, trace, TopKey::ResourceSpans)?;
    body.extend_from_slice(b",\"metrics\":{");
    if inspected_bytes != 0 {
        body.extend_from_slice(format!("\"inspectedBytes\":\"{inspected_bytes}\"").as_bytes());
    }
    body.push(b'}');
    if let Some(message) = partial {
        body.extend_from_slice(b",\"status\":\"PARTIAL\",\"message\":");
        put_string(&mut body, message);
    }
    body.push(b'}');
    Ok(body)
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
