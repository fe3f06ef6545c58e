//! Data points and log records under edit, one at a time: what is not changed is copied verbatim.
//!
//! Requests of metrics are wide (a point has a hundred bytes and few attributes), so no tree of them is built: an editor
//! goes through the request once, and holds one item.

use super::objects::record_objects;
use super::record::Record;
use super::write::put_message;
use super::{Attributes, RESOURCE, RESOURCE_SPANS, Resource, SCOPE, SCOPE_SPANS, SPANS, Scope, Value};
use crate::otlp::Signal;
use crate::otlp::view::messages;
use crate::otlp::wire::Fields;
use std::borrow::Cow;

/// What an item stands under.
#[derive(Debug)]
pub struct Place<'p, 'a> {
    pub resource: &'p Resource<'a>,
    pub scope: &'p Scope<'a>,
    /// The metric's name; empty for log records.
    pub metric: &'p str,
}

/// A data point or a log record. What only log records have is empty or zero for points.
#[derive(Debug)]
pub struct Item<'a>(Record<'a>);

/// An item with more objects than the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyObjects;

const METRIC_NAME: u32 = 1;
const POINTS: u32 = 1;
/// A metric's alternatives, and where points of each have their attributes.
const POINT_ATTRIBUTES: [(u32, u32); 5] = [(5, 7), (7, 7), (9, 9), (10, 1), (11, 7)];
const LOG_ATTRIBUTES: u32 = 6;
const LOG_SEVERITY_NUMBER: u32 = 2;
const LOG_SEVERITY_TEXT: u32 = 3;
const LOG_BODY: u32 = 5;

impl<'a> Item<'a> {
    pub fn attributes(&self) -> &Attributes<'a> {
        self.0.attributes()
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        self.0.attributes_mut()
    }

    /// The number of a `SeverityNumber`; 0 is unspecified.
    pub fn severity_number(&self) -> i32 {
        self.0.varint(LOG_SEVERITY_NUMBER) as i32
    }

    pub fn severity_text(&self) -> Cow<'_, str> {
        self.0.text(LOG_SEVERITY_TEXT)
    }

    pub fn body(&self) -> Value<'_> {
        Value::parse(self.0.bytes(LOG_BODY))
    }
}

/// Changes the items of a request of metrics or logs; `None`: nothing was changed. For requests in one piece, see
/// [`super::whole`].
///
/// # Errors
/// An item has more than `objects_max` attributes and values; it would take too much memory while it is edited.
pub fn edit_items<'a>(
    signal: Signal,
    request: &'a [u8],
    objects_max: usize,
    edit: impl FnMut(&Place<'_, 'a>, &mut Item<'a>),
) -> Result<Option<Vec<u8>>, TooManyObjects> {
    let mut walk = Walk { signal, objects_max, edit, is_changed: false, is_too_large: false };
    let mut out = Vec::with_capacity(request.len() + request.len() / 8);
    within(&mut out, request, RESOURCE_SPANS, |out, envelope| walk.envelope(out, envelope));
    match walk {
        Walk { is_too_large: true, .. } => Err(TooManyObjects),
        Walk { is_changed, .. } => Ok(is_changed.then_some(out)),
    }
}

/// Copies `message`, but for its fields `number`, which `write` writes.
fn within<'a>(out: &mut Vec<u8>, message: &'a [u8], number: u32, mut write: impl FnMut(&mut Vec<u8>, &'a [u8])) {
    for field in Fields::new(message).map_while(Result::ok) {
        match field.bytes(number) {
            Some(inner) => put_message(out, number, inner.len(), |out| write(out, inner)),
            None => out.extend_from_slice(field.raw),
        }
    }
}

struct Walk<F> {
    signal: Signal,
    objects_max: usize,
    edit: F,
    is_changed: bool,
    is_too_large: bool,
}

impl<'a, F: FnMut(&Place<'_, 'a>, &mut Item<'a>)> Walk<F> {
    fn envelope(&mut self, out: &mut Vec<u8>, envelope: &'a [u8]) {
        let resource = Resource(Record::new(messages(envelope, RESOURCE).next().unwrap_or_default(), 1));
        within(out, envelope, SCOPE_SPANS, |out, scope_items| {
            let scope = Scope(Record::new(messages(scope_items, SCOPE).next().unwrap_or_default(), 3));
            within(out, scope_items, SPANS, |out, inner| match self.signal {
                Signal::Metrics => self.metric(out, inner, &resource, &scope),
                _ => self.item(out, inner, LOG_ATTRIBUTES, &Place { resource: &resource, scope: &scope, metric: "" }),
            });
        });
    }

    fn metric(&mut self, out: &mut Vec<u8>, metric: &'a [u8], resource: &Resource<'a>, scope: &Scope<'a>) {
        let name = messages(metric, METRIC_NAME).last().map(String::from_utf8_lossy).unwrap_or_default();
        let place = Place { resource, scope, metric: &name };
        for field in Fields::new(metric).map_while(Result::ok) {
            let data =
                POINT_ATTRIBUTES.iter().find_map(|(number, attributes)| Some((*attributes, field.bytes(*number)?)));
            let Some((attributes, data)) = data else {
                out.extend_from_slice(field.raw);
                continue;
            };
            put_message(out, field.number, data.len(), |out| {
                within(out, data, POINTS, |out, point| self.item(out, point, attributes, &place));
            });
        }
    }

    fn item(&mut self, out: &mut Vec<u8>, raw: &'a [u8], attributes: u32, place: &Place<'_, 'a>) {
        self.is_too_large |= record_objects(raw, attributes, LOG_BODY, self.objects_max) > self.objects_max;
        let mut item = Item(Record::new(raw, attributes));
        if !self.is_too_large {
            (self.edit)(place, &mut item);
        }
        if item.0.is_changed() {
            self.is_changed = true;
            item.0.encode_alone(out);
        } else {
            out.extend_from_slice(raw);
        }
    }
}
