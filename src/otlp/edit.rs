//! A request that can be changed, at the price of what is changed.
//!
//! ```text
//! Traces ─▶ ResourceSpans { resource, scopes ─▶ ScopeSpans { scope, spans ─▶ Span { .., attributes, events, links } } }
//! ```
//!
//! Every message borrows its bytes from the request. Fields and attributes are read when somebody asks for them, and
//! [`Traces::encode`] copies verbatim what nobody changed: unknown fields, their order, schema URLs and dropped counts
//! survive always. A request in which nothing was changed comes out byte for byte.
//!
//! Everything here works on bytes that [`super::scan::scan`] accepted and [`whole`] has seen; on others it stops early
//! instead of failing. What is put in lives as long as the request (`'a`), so constants of a configuration are borrowed.

mod attributes;
mod items;
mod lazy;
mod objects;
mod record;
mod span;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use attributes::{Attribute, Attributes};
pub use items::{Item, Place, TooManyObjects, edit_items};
pub use objects::objects;
pub use span::{Event, Link, Span};
pub use value::{List, Map, Value};

use super::view::messages;
use super::wire::{Fields, put_bytes};
use objects::record_objects;
use record::{Record, Scalar};
use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use write::put_message;

/// An `ExportTraceServiceRequest` under edit.
#[derive(Debug)]
pub struct Traces<'a> {
    raw: &'a [u8],
    pub resources: Kept<ResourceSpans<'a>>,
}

/// The spans of one resource.
#[derive(Debug)]
pub struct ResourceSpans<'a> {
    pub schema_url: SchemaUrl<'a>,
    pub resource: Resource<'a>,
    pub scopes: Kept<ScopeSpans<'a>>,
}

/// The spans of one instrumentation scope.
#[derive(Debug)]
pub struct ScopeSpans<'a> {
    pub schema_url: SchemaUrl<'a>,
    pub scope: Scope<'a>,
    pub spans: Kept<Span<'a>>,
}

/// A resource. One that is absent reads as empty, and appears when something is put in.
#[derive(Debug)]
pub struct Resource<'a>(Record<'a>);

/// An instrumentation scope. One that is absent reads as empty, and appears when something is put in.
#[derive(Debug)]
pub struct Scope<'a>(Record<'a>);

/// The schema URL of an envelope, apart from what else is in it: so it can be borrowed beside resource, scope and spans.
#[derive(Debug)]
pub struct SchemaUrl<'a>(Record<'a>);

/// Messages of which some can be taken out, and none put in: a slice with [`Kept::retain`].
#[derive(Debug)]
pub struct Kept<T> {
    items: Vec<T>,
    removed: bool,
}

/// What changes mean for whoever scanned the request before they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing: counts, times, traces and soundness are as they were.
    Described,
    /// Spans are gone; those that are left are as sound as they were, and of the same times and traces.
    Removed,
    /// Ids, times or what may be nested too deep: only a scan can tell.
    Unknown,
}

impl Effect {
    fn removed(removed: bool) -> Self {
        if removed { Self::Removed } else { Self::Described }
    }
}

/// Field numbers, see [`super::schema`].
const RESOURCE_SPANS: u32 = 1;
const RESOURCE: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SCOPE: u32 = 1;
const SPANS: u32 = 2;
const SCHEMA_URL: u32 = 3;

/// The request with every resource and every scope in one piece; `None` if it was so already. Protobuf lets a message
/// come in pieces, which nothing known to us makes use of.
pub fn whole(request: &[u8]) -> Option<Vec<u8>> {
    let is_whole = messages(request, RESOURCE_SPANS).all(|resource_spans| {
        !in_pieces(resource_spans, RESOURCE)
            && messages(resource_spans, SCOPE_SPANS).all(|scope_spans| !in_pieces(scope_spans, SCOPE))
    });
    (!is_whole).then(|| {
        rebuilt(request, RESOURCE_SPANS, |resource_spans| {
            let joined = joined(resource_spans, RESOURCE);
            rebuilt(&joined, SCOPE_SPANS, joined_scope)
        })
    })
}

/// As [`whole`], for resources alone: the spans are not looked at.
pub fn whole_resources(request: &[u8]) -> Option<Vec<u8>> {
    let is_whole = messages(request, RESOURCE_SPANS).all(|envelope| !in_pieces(envelope, RESOURCE));
    (!is_whole).then(|| rebuilt(request, RESOURCE_SPANS, |envelope| joined(envelope, RESOURCE)))
}

fn in_pieces(message: &[u8], number: u32) -> bool {
    messages(message, number).nth(1).is_some()
}

/// Changes the resources of a request of any signal: traces, metrics and logs have them at the same place. `None`: nothing
/// was changed. What else is in the request is copied verbatim and not looked at. For requests whose resources are in one piece, see
/// [`whole_resources`].
///
/// # Errors
/// A resource has more than `objects_max` attributes and values; it would take too much memory while it is edited.
pub fn edit_resources<'a>(
    request: &'a [u8],
    objects_max: usize,
    mut edit: impl FnMut(&mut Attributes<'a>),
) -> Result<Option<Vec<u8>>, TooManyObjects> {
    let mut is_changed = false;
    let mut out = Vec::with_capacity(request.len() + request.len() / 8);
    for field in Fields::new(request).map_while(Result::ok) {
        let Some(envelope) = field.bytes(RESOURCE_SPANS) else {
            out.extend_from_slice(field.raw);
            continue;
        };
        let mut resource = Resource(Record::new(messages(envelope, RESOURCE).next().unwrap_or_default(), 1));
        if record_objects(resource.0.raw(), 1, 0, objects_max) > objects_max {
            return Err(TooManyObjects);
        }
        edit(resource.attributes_mut());
        if !resource.0.is_changed() {
            out.extend_from_slice(field.raw);
            continue;
        }
        is_changed = true;
        put_message(&mut out, RESOURCE_SPANS, envelope.len(), |out| {
            let mut changed = Some(&resource.0);
            for field in Fields::new(envelope).map_while(Result::ok) {
                if !replaces(out, &mut changed, field.bytes(RESOURCE)) {
                    out.extend_from_slice(field.raw);
                }
            }
            put_absent(out, RESOURCE, changed);
        });
    }
    Ok(is_changed.then_some(out))
}

fn joined_scope(scope_spans: &[u8]) -> Vec<u8> {
    joined(scope_spans, SCOPE)
}

/// The message with all fields `number` as one, at the place of the first. Joined end to end they are the merged message.
fn joined(message: &[u8], number: u32) -> Vec<u8> {
    let mut pieces = Some(messages(message, number).collect::<Vec<_>>().concat());
    let mut out = Vec::with_capacity(message.len());
    for field in Fields::new(message).map_while(Result::ok) {
        match field.bytes(number) {
            Some(_) => {
                if let Some(joined) = pieces.take() {
                    put_bytes(&mut out, number, &joined);
                }
            }
            None => out.extend_from_slice(field.raw),
        }
    }
    out
}

fn rebuilt(message: &[u8], number: u32, change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for field in Fields::new(message).map_while(Result::ok) {
        match field.bytes(number) {
            Some(inner) => put_bytes(&mut out, number, &change(inner)),
            None => out.extend_from_slice(field.raw),
        }
    }
    out
}

impl<'a> Traces<'a> {
    /// Looks no deeper than to the bounds of the spans.
    pub fn parse(request: &'a [u8]) -> Self {
        Self { raw: request, resources: Kept::of(request, RESOURCE_SPANS, ResourceSpans::parse) }
    }

    pub fn is_changed(&self) -> bool {
        self.resources.removed || self.resources.iter().any(ResourceSpans::is_changed)
    }

    /// What of [`super::scan::Scanned`] the changes may have made untrue.
    pub fn effect(&self) -> Effect {
        let of_resource = |it: &ResourceSpans<'_>| {
            let of_scopes = it.scopes.iter().map(ScopeSpans::effect).max().unwrap_or(Effect::Described);
            of_scopes.max(Effect::removed(it.scopes.removed)).max(it.resource.0.effect(&[]))
        };
        let of_resources = self.resources.iter().map(of_resource).max().unwrap_or(Effect::Described);
        of_resources.max(Effect::removed(self.resources.removed))
    }

    /// How many spans are left.
    pub fn span_count(&self) -> u64 {
        self.resources.iter().map(ResourceSpans::span_count).sum()
    }

    /// Takes out the spans that `keep` does not want, and tells how many.
    pub fn retain_spans(&mut self, mut keep: impl FnMut(&Resource<'a>, &Scope<'a>, &Span<'a>) -> bool) -> u64 {
        let before = self.span_count();
        for ResourceSpans { resource, scopes, .. } in self.resources.iter_mut() {
            for ScopeSpans { scope, spans, .. } in scopes.iter_mut() {
                spans.retain(|span| keep(resource, scope, span));
            }
        }
        before - self.span_count()
    }

    /// The request as it is now. Resources and scopes that lost all their spans are gone.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len() + self.raw.len() / 8);
        let mut kept = self.resources.iter().peekable();
        for field in Fields::new(self.raw).map_while(Result::ok) {
            let Some(payload) = field.bytes(RESOURCE_SPANS) else {
                out.extend_from_slice(field.raw);
                continue;
            };
            let Some(resource_spans) = kept.next_if(|kept| kept.schema_url.0.is_of(payload)) else { continue };
            if !resource_spans.is_changed() {
                out.extend_from_slice(field.raw);
            } else if !resource_spans.is_emptied() {
                put_message(&mut out, RESOURCE_SPANS, payload.len(), |out| resource_spans.encode(out));
            }
        }
        out
    }
}

impl<'a> ResourceSpans<'a> {
    fn parse(raw: &'a [u8]) -> Self {
        Self {
            schema_url: SchemaUrl(Record::plain(raw)),
            resource: Resource(Record::new(messages(raw, RESOURCE).next().unwrap_or_default(), 1)),
            scopes: Kept::of(raw, SCOPE_SPANS, ScopeSpans::parse),
        }
    }

    pub fn span_count(&self) -> u64 {
        self.scopes.iter().map(|scope| scope.spans.len() as u64).sum()
    }

    fn is_changed(&self) -> bool {
        self.schema_url.0.is_changed()
            || self.resource.0.is_changed()
            || self.scopes.removed
            || self.scopes.iter().any(ScopeSpans::is_changed)
    }

    /// Whether it had spans and has none.
    fn is_emptied(&self) -> bool {
        self.span_count() == 0 && (self.scopes.removed || self.scopes.iter().any(|scope| scope.spans.removed))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut kept = self.scopes.iter().peekable();
        let mut resource = self.resource.0.is_changed().then_some(&self.resource.0);
        self.schema_url.0.encode(out, &[RESOURCE, SCOPE_SPANS], |out, field| {
            if let Some(payload) = field.bytes(SCOPE_SPANS) {
                let Some(scope) = kept.next_if(|kept| kept.schema_url.0.is_of(payload)) else { return true };
                if scope.is_emptied() {
                    return true;
                }
                if scope.is_changed() {
                    put_message(out, SCOPE_SPANS, payload.len(), |out| scope.encode(out));
                }
                return scope.is_changed();
            }
            replaces(out, &mut resource, field.bytes(RESOURCE))
        });
        put_absent(out, RESOURCE, resource);
    }
}

impl<'a> ScopeSpans<'a> {
    fn parse(raw: &'a [u8]) -> Self {
        Self {
            schema_url: SchemaUrl(Record::plain(raw)),
            scope: Scope(Record::new(messages(raw, SCOPE).next().unwrap_or_default(), 3)),
            spans: Kept::of(raw, SPANS, Span::parse),
        }
    }

    fn is_changed(&self) -> bool {
        self.schema_url.0.is_changed()
            || self.scope.0.is_changed()
            || self.spans.removed
            || self.spans.iter().any(Span::is_changed)
    }

    fn effect(&self) -> Effect {
        let of_spans = self.spans.iter().map(Span::effect).max().unwrap_or(Effect::Described);
        of_spans.max(Effect::removed(self.spans.removed)).max(self.scope.0.effect(&[]))
    }

    fn is_emptied(&self) -> bool {
        self.spans.removed && self.spans.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut kept = self.spans.iter().peekable();
        let mut scope = self.scope.0.is_changed().then_some(&self.scope.0);
        self.schema_url.0.encode(out, &[SCOPE, SPANS], |out, field| {
            if let Some(payload) = field.bytes(SPANS) {
                let Some(span) = kept.next_if(|kept| kept.is_of(payload)) else { return true };
                if span.is_changed() {
                    put_message(out, SPANS, payload.len(), |out| span.encode(out));
                }
                return span.is_changed();
            }
            replaces(out, &mut scope, field.bytes(SCOPE))
        });
        put_absent(out, SCOPE, scope);
    }
}

/// Writes a changed resource or scope (both are field 1) where the old one stood.
fn replaces(out: &mut Vec<u8>, changed: &mut Option<&Record<'_>>, old: Option<&[u8]>) -> bool {
    let (Some(old), Some(record)) = (old, *changed) else { return false };
    put_message(out, RESOURCE, old.len(), |out| record.encode_alone(out));
    *changed = None;
    true
}

/// Writes what had no place yet.
fn put_absent(out: &mut Vec<u8>, number: u32, changed: Option<&Record<'_>>) {
    if let Some(record) = changed {
        put_message(out, number, 0, |out| record.encode_alone(out));
    }
}

impl<'a> SchemaUrl<'a> {
    pub fn get(&self) -> Cow<'_, str> {
        self.0.text(SCHEMA_URL)
    }

    pub fn set(&mut self, url: Cow<'a, str>) {
        self.0.set(SCHEMA_URL, Scalar::text(url));
    }
}

impl<'a> Resource<'a> {
    pub fn attributes(&self) -> &Attributes<'a> {
        self.0.attributes()
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        self.0.attributes_mut()
    }

    pub fn dropped_attributes_count(&self) -> u32 {
        self.0.varint(2) as u32
    }

    pub fn set_dropped_attributes_count(&mut self, count: u32) {
        self.0.set(2, Scalar::Varint(count.into()));
    }
}

impl<'a> Scope<'a> {
    pub fn name(&self) -> Cow<'_, str> {
        self.0.text(1)
    }

    pub fn set_name(&mut self, name: Cow<'a, str>) {
        self.0.set(1, Scalar::text(name));
    }

    pub fn version(&self) -> Cow<'_, str> {
        self.0.text(2)
    }

    pub fn set_version(&mut self, version: Cow<'a, str>) {
        self.0.set(2, Scalar::text(version));
    }

    pub fn attributes(&self) -> &Attributes<'a> {
        self.0.attributes()
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        self.0.attributes_mut()
    }

    pub fn dropped_attributes_count(&self) -> u32 {
        self.0.varint(4) as u32
    }

    pub fn set_dropped_attributes_count(&mut self, count: u32) {
        self.0.set(4, Scalar::Varint(count.into()));
    }
}

impl<T> Kept<T> {
    /// Of the fields `number` of a message.
    fn of<'a>(message: &'a [u8], number: u32, parse: impl Fn(&'a [u8]) -> T) -> Self {
        let mut items = Vec::with_capacity(messages(message, number).count());
        items.extend(messages(message, number).map(parse));
        Self { items, removed: false }
    }

    /// Takes out what `keep` does not want.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        let before = self.items.len();
        self.items.retain(keep);
        self.removed |= self.items.len() < before;
    }

    /// As [`Kept::retain`], with a look that may change what is kept.
    pub fn retain_mut(&mut self, keep: impl FnMut(&mut T) -> bool) {
        let before = self.items.len();
        self.items.retain_mut(keep);
        self.removed |= self.items.len() < before;
    }
}

impl<T> Deref for Kept<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items
    }
}
