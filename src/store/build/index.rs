//! What search asks of a segment, and how a builder comes to it.

use std::sync::Arc;

use foldhash::HashMap;

use super::attributes::{Attributes, Named};
use super::column::{FieldColumn, Groups, OpenColumn, Order, Placed, Shape};
use super::{Builder, Built, Spans};
use crate::otlp::view;
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::segment::{Ids, Parent, Times, Traces};
use crate::traceql::value::{Kind, Status, Value};

/// Traces, times, parents, ids and columns of a segment.
#[derive(Debug, Clone)]
pub struct Index {
    pub traces: Arc<Traces>,
    pub times: Times,
    pub starts: Arc<[u64]>,
    pub durations: Arc<[u64]>,
    pub parents: Arc<[Parent]>,
    pub ids: Arc<[Ids]>,
    pub groups: Groups,
    /// Attributes with their scope, and the intrinsics that [`crate::traceql::segment::Segment::column`] names.
    pub columns: HashMap<Field, FieldColumn>,
    pub names: Names,
    /// Of each trace the spans that repeated another one's id and kind, and have no row; those behind the last that had one
    /// are not listed.
    pub repeats: Box<[u32]>,
}

/// Names of attributes by scope, sorted.
#[derive(Debug, Clone, Default)]
pub struct Names([Arc<[Arc<str>]>; Scope::ALL.len()]);

impl Names {
    #[must_use]
    pub fn of(&self, scope: Scope) -> Arc<[Arc<str>]> {
        let index = Scope::ALL.iter().position(|other| *other == scope);
        index.and_then(|index| self.0.get(index)).map(Arc::clone).unwrap_or_default()
    }
}

impl Index {
    #[must_use]
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// Roughly what it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let per_row = size_of::<u64>() * 2 + size_of::<Parent>() + size_of::<Ids>() + size_of::<u16>() * 2;
        let columns: usize = self.columns.iter().map(|(field, column)| column.bytes() + field_bytes(field)).sum();
        self.rows() * per_row + self.traces.len() * (16 + 4) + self.repeats.len() * size_of::<u32>() + columns
    }
}

fn field_bytes(field: &Field) -> usize {
    size_of::<Field>()
        + match field {
            Field::Attribute(attribute) => attribute.name.len() * 2,
            Field::Intrinsic(_) => 0,
        }
}

impl Builder {
    /// The segment, with little memory beside it: what tells new values from known ones goes before columns are made of
    /// them, and nothing is kept for the next segment. For large ones: together it would be twice the batches.
    pub fn finish_lean(&mut self) -> Built {
        self.release_known();
        let built = self.finish();
        self.release();
        built
    }

    /// The segment; the builder is then ready for another one, with the memory that it has.
    pub fn finish(&mut self) -> Built {
        let sorted = super::order::sort(&self.rows, &self.traces);
        let order = Order { ranks: Some(&sorted.ranks), rows: sorted.arrivals.len() };
        let rows: Vec<_> = sorted.arrivals.iter().filter_map(|arrival| self.rows.get(*arrival as usize)).collect();

        let mut columns = Columns::default();
        columns.intrinsics(self, order);
        let statuses = Status::ALL.map(Value::Status);
        columns.put(Intrinsic::Status, Some(FieldColumn::of_all(&statuses, rows.iter().map(|row| row.status as u8))));
        let kinds = Kind::ALL.map(Value::Kind);
        columns
            .put(Intrinsic::Kind, Some(FieldColumn::of_all(&kinds, rows.iter().map(|row| row.key.known_kind() as u8))));

        let batches = self.batches.as_slice();
        columns.put_attributes(Scope::Span, self.span_attributes.finish(order, batches));
        columns.put_attributes(Scope::Event, self.event_attributes.finish(order, batches));
        columns.put_attributes(Scope::Link, self.link_attributes.finish(order, batches));
        columns.resources(&self.resources.list.iter().map(|envelope| envelope.content()).collect::<Vec<_>>());
        columns.scopes(&self.scopes.list.iter().map(|envelope| envelope.content()).collect::<Vec<_>>());

        let starts: Arc<[u64]> = rows.iter().map(|row| row.key.start).collect();
        let durations: Arc<[u64]> = rows.iter().map(|row| row.duration).collect();
        let index = Index {
            times: times(&starts, &durations),
            traces: Arc::new(sorted.traces),
            starts,
            durations,
            parents: sorted.parents.into(),
            ids: rows.iter().map(|row| Ids { span: row.key.span, parent: row.key.parent }).collect(),
            groups: Groups {
                resources: Arc::new(rows.iter().map(|row| row.resource).collect()),
                scopes: Arc::new(rows.iter().map(|row| row.scope).collect()),
            },
            columns: columns.by_field,
            names: columns.names,
            repeats: sorted.repeats.into(),
        };
        let spans = Spans {
            places: rows.iter().map(|row| row.place).collect(),
            batches: std::mem::take(&mut self.batches),
            resources: std::mem::take(&mut self.resources.list),
            scopes: std::mem::take(&mut self.scopes.list),
        };
        self.clear();
        Built { index, spans }
    }
}

fn times(starts: &[u64], durations: &[u64]) -> Times {
    let nothing = Times { min_start: u64::MAX, max_start: 0, max_end: 0, min_duration: u64::MAX, max_duration: 0 };
    starts.iter().zip(durations).fold(nothing, |times, (start, duration)| Times {
        min_start: times.min_start.min(*start),
        max_start: times.max_start.max(*start),
        max_end: times.max_end.max(start.saturating_add(*duration)),
        min_duration: times.min_duration.min(*duration),
        max_duration: times.max_duration.max(*duration),
    })
}

/// Finished columns.
#[derive(Default)]
struct Columns {
    by_field: HashMap<Field, FieldColumn>,
    names: Names,
}

impl Columns {
    fn put(&mut self, intrinsic: Intrinsic, column: Option<FieldColumn>) {
        if let Some(column) = column {
            self.by_field.insert(Field::Intrinsic(intrinsic), column);
        }
    }

    fn put_attributes(&mut self, scope: Scope, named: Named) {
        let index = Scope::ALL.iter().position(|other| *other == scope);
        if let Some(names) = index.and_then(|index| self.names.0.get_mut(index)) {
            *names = named.iter().map(|(name, _)| Arc::clone(name)).collect();
        }
        for (name, column) in named {
            let Some(column) = column else { continue };
            let attribute = Attribute { scope: Some(scope), of_parent: false, name: name.as_ref().to_owned() };
            self.by_field.insert(Field::Attribute(attribute), column);
        }
    }

    fn intrinsics(&mut self, builder: &Builder, order: Order<'_>) {
        let batches = builder.batches.as_slice();
        let finish = |column: &OpenColumn, shape| column.finish(shape, order, batches);
        self.put(Intrinsic::Name, finish(&builder.strings.names.column, Shape::Listed));
        self.put(Intrinsic::StatusMessage, finish(&builder.strings.messages.column, Shape::Listed));
        self.put(Intrinsic::EventName, finish(&builder.events.names.column, Shape::Many));
        self.put(Intrinsic::EventTimeSinceStart, finish(&builder.events.times, Shape::Many));
        self.put(Intrinsic::LinkTraceId, finish(&builder.links.trace_ids.column, Shape::Many));
        self.put(Intrinsic::LinkSpanId, finish(&builder.links.span_ids.column, Shape::Many));
    }

    fn resources(&mut self, resources: &[&[u8]]) {
        let named = group_attributes(resources, 1).into_iter();
        let placed = named
            .map(|(name, column)| (name, column.map(|column| of_groups(column, resources.len(), Placed::Resources))));
        self.put_attributes(Scope::Resource, placed.collect());
    }

    fn scopes(&mut self, scopes: &[&[u8]]) {
        let named = group_attributes(scopes, 3).into_iter();
        let placed =
            named.map(|(name, column)| (name, column.map(|column| of_groups(column, scopes.len(), Placed::Scopes))));
        self.put_attributes(Scope::Instrumentation, placed.collect());
        for (field, intrinsic) in [(1, Intrinsic::InstrumentationName), (2, Intrinsic::InstrumentationVersion)] {
            let mut texts = super::TextColumn::default();
            let strings: Vec<bytes::Bytes> = scopes
                .iter()
                .map(|scope| bytes::Bytes::copy_from_slice(view::messages(scope, field).last().unwrap_or_default()))
                .collect();
            for (group, string) in (0u32..).zip(&strings) {
                let place = super::Place { batch: group, offset: 0, len: string.len() as u32 };
                texts.add(group as u16, group + 1, string, &strings, place);
            }
            let order = Order { ranks: None, rows: scopes.len() };
            let column = texts.column.finish(Shape::Listed, order, strings.as_slice());
            self.put(intrinsic, column.map(|column| of_groups(column, scopes.len(), Placed::Scopes)));
        }
    }
}

/// The columns of resources or scopes, whose attributes are their fields `number`.
fn group_attributes(groups: &[&[u8]], number: u32) -> Named {
    let mut attributes = Attributes::new(Shape::Listed);
    for (group, message) in (0u32..).zip(groups) {
        for attribute in view::messages(message, number) {
            let offset = super::offset_in(message, attribute) as u32;
            let place = super::Place { batch: group, offset, len: attribute.len() as u32 };
            attributes.add(group as u16, group + 1, attribute, groups, place);
        }
    }
    attributes.finish(Order { ranks: None, rows: groups.len() }, groups)
}

/// A column whose rows were resources or scopes.
fn of_groups(column: FieldColumn, groups: usize, placed: fn(Arc<[u16]>) -> Placed) -> FieldColumn {
    let codes: Arc<[u16]> = match column.codes {
        Placed::Rows(codes) | Placed::Resources(codes) | Placed::Scopes(codes) => codes,
        Placed::Nowhere => Arc::default(),
        Placed::Some { rows, codes } => {
            let mut all = vec![0; groups];
            for (row, code) in rows.iter().zip(&codes) {
                if let Some(slot) = all.get_mut(usize::from(*row)) {
                    *slot = *code;
                }
            }
            all.into()
        }
    };
    FieldColumn { values: column.values, codes: placed(codes) }
}
