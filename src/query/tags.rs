//! Names and values of attributes: `/api/search/tags`, `/api/search/tag/{tag}/values`, and both under `/api/v2`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use http::HeaderMap;

use super::call::{TagNames, TagScope, TagsCall, ValuesCall, now};
use super::encode::{Tags, json, protobuf};
use super::engine;
use super::error::QueryError;
use super::negotiation::{Coding, Format, Payload};
use super::parameters::Parameters;
use super::router::QueryState;
use crate::traceql::answer::ValuesAnswer;
use crate::traceql::ast::Scope;
use crate::traceql::control::Control;
use crate::traceql::segment::Source;

/// Where the intrinsics stand among the scopes.
const INTRINSIC: &str = "intrinsic";

/// The one attribute that is always offered.
const SERVICE_NAME: &str = "service.name";

/// What Tempo offers: those that mean something to people, under both of their names.
const INTRINSICS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// The versions of the API. The first lists names and strings, the second has scopes and types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

pub(super) async fn names_v1(
    state: State<QueryState>,
    parameters: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    names(state, parameters, headers, Version::V1).await
}

pub(super) async fn names_v2(
    state: State<QueryState>,
    parameters: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    names(state, parameters, headers, Version::V2).await
}

pub(super) async fn values_v1(
    state: State<QueryState>,
    path: Path<String>,
    parameters: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    values(state, path, parameters, headers, Version::V1).await
}

pub(super) async fn values_v2(
    state: State<QueryState>,
    path: Path<String>,
    parameters: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Payload, QueryError> {
    values(state, path, parameters, headers, Version::V2).await
}

async fn names(
    State(state): State<QueryState>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    version: Version,
) -> Result<Payload, QueryError> {
    let call = TagsCall::from_url(&Parameters::new(parameters), now())?;
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let work = move |source: &dyn Source, control: &Control| {
        let tags = find_names(&call, version, source, control)?;
        let body = match (format, version) {
            (Format::Json, Version::V1) => json::tag_names(&tags),
            (Format::Json, Version::V2) => json::tag_names_v2(&tags),
            (Format::Protobuf, Version::V1) => protobuf::tag_names(&tags, usize::MAX).concat(),
            (Format::Protobuf, Version::V2) => protobuf::tag_names_v2(&tags, usize::MAX).concat(),
        };
        Payload::of_scan(format.content_type(), body, coding)
    };
    state.scan(work).await
}

async fn values(
    State(state): State<QueryState>,
    Path(rest): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    version: Version,
) -> Result<Payload, QueryError> {
    // A tag's name may have slashes in it, plain or percent-encoded.
    let tag = rest.strip_suffix("/values").ok_or(QueryError::NoSuchPath)?;
    let call = ValuesCall::from_url(tag, version.tag_names(), &Parameters::new(parameters), now())?;
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let work = move |source: &dyn Source, control: &Control| {
        let answer = find_values(&call, source, control)?;
        let body = match (format, version) {
            (Format::Json, Version::V1) => json::tag_values(&answer),
            (Format::Json, Version::V2) => json::tag_values_v2(&answer),
            (Format::Protobuf, Version::V1) => protobuf::tag_values(&answer, usize::MAX).concat(),
            (Format::Protobuf, Version::V2) => protobuf::tag_values_v2(&answer, usize::MAX).concat(),
        };
        Payload::of_scan(format.content_type(), body, coding)
    };
    state.scan(work).await
}

impl Version {
    pub fn tag_names(self) -> TagNames {
        match self {
            Self::V1 => TagNames::Plain,
            Self::V2 => TagNames::TraceQl,
        }
    }
}

/// Names by scope. The first version offers intrinsics only to those who ask for them.
pub(super) fn find_names(
    call: &TagsCall,
    version: Version,
    source: &dyn Source,
    control: &Control,
) -> Result<Tags, QueryError> {
    let find = |scope| engine::tag_names(source, scope, call.filter.as_ref(), &call.request, control);
    let mut tags = match call.scope {
        TagScope::All => Tags::from(find(None)?),
        TagScope::Attributes(scope) => Tags::from(find(Some(scope))?),
        TagScope::Intrinsic | TagScope::Trace => Tags::default(),
    };
    tags.scopes.retain(|(scope, names)| *scope != INTRINSIC && !names.is_empty());
    if matches!(call.scope, TagScope::All | TagScope::Attributes(Scope::Resource)) {
        offer_service_name(&mut tags);
    }
    if call.scope == TagScope::Intrinsic || (call.scope == TagScope::All && version == Version::V2) {
        let count_max = if call.request.count_max == 0 { INTRINSICS.len() } else { call.request.count_max };
        tags.scopes.push((INTRINSIC, INTRINSICS.iter().take(count_max).map(|name| Arc::from(*name)).collect()));
    }
    Ok(tags)
}

fn offer_service_name(tags: &mut Tags) {
    let resource = Scope::Resource.as_str();
    match tags.scopes.iter_mut().find(|(scope, _)| *scope == resource) {
        Some((_, names)) => {
            if let Err(position) = names.binary_search_by(|name| (**name).cmp(SERVICE_NAME)) {
                names.insert(position, SERVICE_NAME.into());
            }
        }
        None => tags.scopes.push((resource, vec![SERVICE_NAME.into()])),
    }
}

pub(super) fn find_values(
    call: &ValuesCall,
    source: &dyn Source,
    control: &Control,
) -> Result<ValuesAnswer, QueryError> {
    match call {
        ValuesCall::Known(values) => Ok(ValuesAnswer { values: values.clone(), inspected_bytes: 0 }),
        ValuesCall::Stored { field, filter, request } => {
            engine::tag_values(source, field, filter.as_ref(), request, control)
        }
    }
}
