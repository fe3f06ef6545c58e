//! `tempopb.SearchResponse`, written trace by trace: an answer of very many is never held as such.

use std::ops::ControlFlow;

use super::{json, protobuf};
use crate::otlp::wire::put_bytes;
use crate::query::body::Body;
use crate::query::call::Origin;
use crate::query::negotiation::Format;
use crate::traceql::answer::{FoundTrace, Inspected};
use crate::traceql::search::Listener;

/// An answer under way.
#[derive(Debug)]
pub struct Written {
    body: Body,
    format: Format,
    origin: Origin,
    empty: bool,
}

impl Written {
    pub fn new(mut body: Body, format: Format, origin: Origin) -> Self {
        if format == Format::Json {
            body.extend_from_slice(b"{\"traces\":[");
        }
        Self { body, format, origin, empty: true }
    }

    pub fn put(&mut self, trace: &FoundTrace) {
        let is_first = std::mem::take(&mut self.empty);
        match self.format {
            Format::Json => {
                if !is_first {
                    self.body.push(b',');
                }
                json::found_trace(&mut self.body, trace, self.origin);
            }
            Format::Protobuf => put_bytes(&mut self.body, 1, &protobuf::trace(trace, self.origin, usize::MAX)),
        }
    }

    pub fn finish(mut self, inspected: &Inspected) -> Body {
        match self.format {
            Format::Json => json::end_of_search(&mut self.body, inspected),
            Format::Protobuf => self.body.extend_from_slice(&protobuf::metrics(inspected)),
        }
        self.body
    }
}

impl Listener for Written {
    /// Nobody gets to see what is written behind a refusal.
    fn take(&mut self, trace: FoundTrace, _: &Inspected) -> ControlFlow<()> {
        self.put(&trace);
        if self.body.goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
