//! What the answer says of a trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::newest::Candidate;
use crate::traceql::answer::{FoundSpan, FoundSpanset, FoundTrace, RootSpan, ServiceStats};
use crate::traceql::ast::{Expression, Field, Intrinsic};
use crate::traceql::datum::Datum;
use crate::traceql::error::{Invalid, QueryError};
use crate::traceql::filter::Test;
use crate::traceql::filter::row::RowExpression;
use crate::traceql::reader::Scan;
use crate::traceql::segment::{SegmentError, Source};
use crate::traceql::trace::evaluate::{PerSpan, SpansetOf, StartedWithin};
use crate::traceql::trace::plan::Plan;
use crate::traceql::trace::view::{View, service_name};
use crate::traceql::value::{Status, Value};

/// What is shown of spans: what the query names, if it has no place of its own.
pub struct Details {
    spans_per_spanset: usize,
    names: bool,
    attributes: Vec<Shown>,
}

struct Shown {
    key: String,
    value: RowExpression,
    /// Of the values of several events or links that which passes one of these is shown: it is why the span was found.
    tests: Vec<Test>,
}

impl Details {
    pub fn new(plan: &Plan, spans_per_spanset: usize) -> Result<Self, Invalid> {
        let mut details = Self { spans_per_spanset, names: false, attributes: Vec::new() };
        for field in plan.fields() {
            let key = match field {
                Field::Intrinsic(Intrinsic::Name) => {
                    details.names = true;
                    continue;
                }
                Field::Intrinsic(
                    Intrinsic::Duration
                    | Intrinsic::TraceDuration
                    | Intrinsic::RootName
                    | Intrinsic::RootServiceName
                    | Intrinsic::TraceId
                    | Intrinsic::SpanId,
                ) => continue,
                Field::Intrinsic(intrinsic) => intrinsic.as_str().to_owned(),
                Field::Attribute(attribute) => attribute.name.clone(),
            };
            let value = RowExpression::compile(&Expression::Field(field.clone()))?;
            let tests =
                plan.tests_of_many().iter().filter(|(of, _)| of == field).map(|(_, test)| test.clone()).collect();
            details.attributes.push(Shown { key, value, tests });
        }
        Ok(details)
    }

    /// `None` if the trace yields nothing any more, since part of it is gone.
    pub fn found(
        &self,
        plan: &Plan,
        scan: &Scan<'_>,
        candidate: &Candidate<'_>,
        within: StartedWithin,
    ) -> Result<Option<FoundTrace>, QueryError> {
        let reader = candidate.reader(scan);
        let view = View::open(scan, &reader, candidate.trace)?;
        let spansets = plan.spansets(scan, &view, within)?;
        if spansets.is_empty() {
            return Ok(None);
        }
        let root = match view.root()? {
            Some(root) => Some(RootSpan {
                service: view.text(root, &service_name())?,
                name: view.text(root, &Field::Intrinsic(Intrinsic::Name))?,
            }),
            None => None,
        };
        let mut shown = Vec::with_capacity(self.attributes.len());
        for attribute in &self.attributes {
            shown.push((attribute, PerSpan::new(&attribute.value, scan, &view)?));
        }
        let spansets = spansets.into_iter().map(|spanset| self.spanset(scan.source(), &view, spanset, &shown));
        Ok(Some(FoundTrace {
            id: view.id(),
            root,
            start: view.start(),
            duration: view.duration()?,
            spansets: spansets.collect::<Result<_, _>>()?,
            services: services(&view)?,
        }))
    }

    fn spanset(
        &self,
        source: &dyn Source,
        view: &View,
        spanset: SpansetOf,
        shown: &[(&Shown, PerSpan<'_, '_>)],
    ) -> Result<FoundSpanset, SegmentError> {
        let ids = view.ids()?;
        let (mut spans, mut hidden) = (Vec::new(), 0);
        for span in spanset.spans.iter() {
            let (Some(place), Some(ids)) = (view.places().get(span), ids.get(span)) else { continue };
            if !source.shows(view.id(), ids.span) {
                hidden += 1;
                continue;
            }
            if spans.len() == self.spans_per_spanset {
                if source.is_part() { continue } else { break }
            }
            let mut attributes = Vec::with_capacity(shown.len());
            for (Shown { key, tests, .. }, values) in shown {
                attributes.extend(values.value_passing(span, tests)?.map(|value: Value| (key.clone(), value)));
            }
            let name = if self.names { Some(view.text(*place, &Field::Intrinsic(Intrinsic::Name))?) } else { None };
            spans.push(FoundSpan {
                id: ids.span,
                name,
                start: place.start,
                duration: view.duration_at(*place)?,
                attributes,
            });
        }
        let attributes = spanset.attributes.into_iter().map(|(label, value)| (label.as_ref().to_owned(), value));
        Ok(FoundSpanset { spans, matched: (spanset.spans.count() - hidden) as u32, attributes: attributes.collect() })
    }
}

fn services(view: &View) -> Result<BTreeMap<Arc<str>, ServiceStats>, SegmentError> {
    let (service, status) = (service_name(), Field::Intrinsic(Intrinsic::Status));
    let mut columns = Vec::with_capacity(view.pieces().len());
    for piece in view.pieces() {
        columns.push((&piece.reader, piece.reader.values(&service)?, piece.reader.values(&status)?));
    }
    let mut services: BTreeMap<Arc<str>, ServiceStats> = BTreeMap::new();
    for place in view.places() {
        let Some((reader, services_of, statuses)) = columns.get(place.piece as usize) else { continue };
        let row = place.row as usize;
        let name = services_of.get(reader, row)?;
        let name = match &name {
            Some(Datum::String(text)) => text.as_str(),
            _ => "",
        };
        let failed = matches!(statuses.get(reader, row)?, Some(Datum::Status(Status::Error)));
        let count = |stats: &mut ServiceStats| {
            stats.spans += 1;
            stats.errors += u32::from(failed);
        };
        match services.get_mut(name) {
            Some(stats) => count(stats),
            None => count(services.entry(Arc::from(name)).or_default()),
        }
    }
    Ok(services)
}
