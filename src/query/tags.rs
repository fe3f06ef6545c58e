//! Names and values of attributes: `/api/search/tags`, `/api/search/tag/{tag}/values`, and both under `/api/v2`.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::HeaderMap;

use super::admission::Lane;
use super::asked::Asked;
use super::call::{TagNames, TagScope, TagsCall, ValuesCall, now};
use super::encode::{Tags, json, protobuf};
use super::error::QueryError;
use super::lengths::Question;
use super::negotiation::{Coding, Format, Payload};
use super::router::{QueryState, Scanned};
use super::upstream::{self, Federated};
use crate::traceql::answer::ValuesAnswer;
use crate::traceql::ast::Scope;

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
    headers: HeaderMap,
    asked: Asked,
) -> Result<Payload, QueryError> {
    names(state, headers, asked, Version::V1).await
}

pub(super) async fn names_v2(
    state: State<QueryState>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Payload, QueryError> {
    names(state, headers, asked, Version::V2).await
}

pub(super) async fn values_v1(
    state: State<QueryState>,
    path: Path<String>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Payload, QueryError> {
    values(state, path, headers, asked, Version::V1).await
}

pub(super) async fn values_v2(
    state: State<QueryState>,
    path: Path<String>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Payload, QueryError> {
    values(state, path, headers, asked, Version::V2).await
}

async fn names(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Asked(parameters): Asked,
    version: Version,
) -> Result<Payload, QueryError> {
    let now = now();
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let answer = move |call: TagsCall, scanned: &Scanned<'_>| {
        let Federated { answer: tags, away } = find_names(&call, version, scanned)?;
        let mut body = scanned.body(coding);
        let allowance = scanned.allowance();
        match (format, version) {
            (Format::Json, Version::V1) => json::tag_names(&mut body, &tags),
            (Format::Json, Version::V2) => json::tag_names_v2(&mut body, &tags),
            (Format::Protobuf, Version::V1) => body.put_all(protobuf::tag_names(&tags, usize::MAX, allowance)?),
            (Format::Protobuf, Version::V2) => body.put_all(protobuf::tag_names_v2(&tags, usize::MAX, allowance)?),
        }
        Ok(Payload::new(format.content_type(), body)?.missing(away))
    };
    state.scan(Lane::Scan(Question::UNKNOWN), move || TagsCall::from_url(&parameters, now), answer).await
}

async fn values(
    State(state): State<QueryState>,
    Path(rest): Path<String>,
    headers: HeaderMap,
    Asked(parameters): Asked,
    version: Version,
) -> Result<Payload, QueryError> {
    // A tag's name may have slashes in it, plain or percent-encoded.
    let tag = rest.strip_suffix("/values").ok_or(QueryError::NoSuchPath)?.to_owned();
    let now = now();
    let (format, coding) = (Format::of(&headers), Coding::of(&headers));
    let answer = move |call: ValuesCall, scanned: &Scanned<'_>| {
        let Federated { answer, away } = find_values(&call, scanned)?;
        let mut body = scanned.body(coding);
        let allowance = scanned.allowance();
        match (format, version) {
            (Format::Json, Version::V1) => json::tag_values(&mut body, &answer),
            (Format::Json, Version::V2) => json::tag_values_v2(&mut body, &answer),
            (Format::Protobuf, Version::V1) => body.put_all(protobuf::tag_values(&answer, usize::MAX, allowance)?),
            (Format::Protobuf, Version::V2) => body.put_all(protobuf::tag_values_v2(&answer, usize::MAX, allowance)?),
        }
        Ok(Payload::new(format.content_type(), body)?.missing(away))
    };
    state
        .scan(
            Lane::Scan(Question::UNKNOWN),
            move || ValuesCall::from_url(&tag, version.tag_names(), &parameters, now),
            answer,
        )
        .await
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
    scanned: &Scanned<'_>,
) -> Result<Federated<Tags>, QueryError> {
    let find = |scope| upstream::tag_names(scanned, scope, call.filter.as_ref(), &call.request);
    let found = match call.scope {
        TagScope::All => Some(find(None)?),
        TagScope::Attributes(scope) => Some(find(Some(scope))?),
        TagScope::Intrinsic | TagScope::Trace => None,
    };
    let (mut tags, away) = found.map_or_else(Default::default, |found| (Tags::from(found.answer), found.away));
    tags.scopes.retain(|(scope, names)| *scope != INTRINSIC && !names.is_empty());
    if matches!(call.scope, TagScope::All | TagScope::Attributes(Scope::Resource)) {
        offer_service_name(&mut tags, call.request.count_max);
    }
    if call.scope == TagScope::Intrinsic || (call.scope == TagScope::All && version == Version::V2) {
        let count_max = if call.request.count_max == 0 { INTRINSICS.len() } else { call.request.count_max };
        tags.scopes.push((INTRINSIC, INTRINSICS.iter().take(count_max).map(|name| Arc::from(*name)).collect()));
    }
    Ok(Federated { answer: tags, away })
}

/// It takes the place of another if there are as many as are wanted; `count_max` 0: any number.
fn offer_service_name(tags: &mut Tags, count_max: usize) {
    let resource = Scope::Resource.as_str();
    match tags.scopes.iter_mut().find(|(scope, _)| *scope == resource) {
        Some((_, names)) => {
            if let Err(position) = names.binary_search_by(|name| (**name).cmp(SERVICE_NAME)) {
                names.insert(position, SERVICE_NAME.into());
                if count_max != 0 && names.len() > count_max {
                    let last_is_it = position + 1 == names.len();
                    names.remove(names.len() - if last_is_it { 2 } else { 1 });
                }
            }
        }
        None => tags.scopes.push((resource, vec![SERVICE_NAME.into()])),
    }
}

pub(super) fn find_values(call: &ValuesCall, scanned: &Scanned<'_>) -> Result<Federated<ValuesAnswer>, QueryError> {
    match call {
        ValuesCall::Known(values) => {
            let answer = ValuesAnswer { values: values.clone(), inspected_bytes: 0 };
            Ok(Federated { answer, away: None })
        }
        ValuesCall::Stored { field, filter, request } => upstream::tag_values(scanned, field, filter.as_ref(), request),
    }
}
