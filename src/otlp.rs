//! The bytes of OTLP: what every other room asks about a request without building objects from it.
//!
//! In: protobuf or JSON bodies of `ExportTraceServiceRequest`, and of metrics and logs, already decompressed.
//! Out: counts ([`items`] for metrics and logs), time ranges and trace ids ([`scan`]), borrowed views of resources, scopes and spans ([`view`]), smaller
//! requests ([`split`]), the pods that speak ([`resource`]), and the other encoding ([`json`]). Other formats' spans become
//! requests through a [`draft`].
//!
//! ```text
//! ExportTraceServiceRequest { 1: ResourceSpans { 1: Resource, 2: ScopeSpans { 1: Scope, 2: Span, 3: url }, 3: url } }
//! ```
//!
//! Invariants: bytes that were accepted are never changed (unknown fields survive); two requests joined end to end are
//! one request; nothing here does I/O or trusts a length before comparing it with the bytes that are there.

pub mod draft;
pub mod edit;
pub mod ids;
pub mod items;
pub mod json;
pub mod percent;
pub mod plain;
pub mod resource;
pub mod scan;
pub mod schema;
pub mod signal;
pub mod split;
pub mod view;
pub mod wire;

pub use ids::{SpanId, TraceId};
pub use signal::Signal;
