//! The attributes of one scope: a column per name.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::anyvalue::{AnyValue, key_value};
use super::column::{FieldColumn, NO_VALUE, OpenColumn, Order, RawValue, Shape};
use super::intern::{Bytes, Interner, Place};

/// Names of one scope in a segment. Beyond this, attributes with yet other names are stored but not found by search;
/// a builder is [`super::Pushed::Full`] long before.
pub(super) const NAMES_MAX: usize = 65_536;

/// Columns by name, while spans come in.
#[derive(Debug)]
pub(super) struct Attributes {
    shape: Shape,
    /// Whole `KeyValue`s, with what they mean.
    seen: Interner,
    targets: Vec<Target>,
    names: HashMap<Box<[u8]>, u32>,
    columns: Vec<OpenColumn>,
    /// Columns of earlier builds, for their memory.
    spare: Vec<OpenColumn>,
    /// Otherwise the memory of a column goes once it is finished.
    is_kept: bool,
}

#[derive(Debug, Clone, Copy)]
struct Target {
    column: u32,
    /// The number of the value in the column.
    number: u32,
}

const NO_COLUMN: u32 = u32::MAX;
/// Memory is kept for so many columns from one build to the next.
const SPARE_MAX: usize = 64;

/// The finished columns of a scope, sorted by name. A name whose values TraceQL has no type for has no column.
pub(super) type Named = Vec<(Arc<str>, Option<FieldColumn>)>;

impl Attributes {
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            seen: Interner::default(),
            targets: Vec::new(),
            names: HashMap::new(),
            columns: Vec::new(),
            spare: Vec::new(),
            is_kept: true,
        }
    }

    pub fn names(&self) -> usize {
        self.columns.len()
    }

    /// Adds a `KeyValue` of a row. `carrier` counts the spans, events or links that attributes stand in.
    #[inline]
    pub fn add<B: Bytes + ?Sized>(&mut self, row: u16, carrier: u32, attribute: &[u8], batches: &B, place: Place) {
        let (seen, new) = self.seen.intern(attribute, batches, || place);
        if new {
            let target = self.learn(attribute, place);
            self.targets.push(target);
        }
        if let Some(target) = self.targets.get(seen as usize)
            && let Some(column) = self.columns.get_mut(target.column as usize)
        {
            column.add(row, carrier, target.number);
        }
    }

    fn learn(&mut self, attribute: &[u8], place: Place) -> Target {
        let (name, value) = key_value(attribute);
        let column = match self.names.get(name) {
            Some(column) => *column,
            None => self.learn_name(name),
        };
        let number = match self.columns.get_mut(column as usize) {
            Some(column) => match raw_value(value, attribute, place) {
                Some(value) => column.learn(value),
                None => NO_VALUE,
            },
            None => NO_VALUE,
        };
        Target { column, number }
    }

    #[cold]
    fn learn_name(&mut self, name: &[u8]) -> u32 {
        if self.columns.len() >= NAMES_MAX {
            return NO_COLUMN;
        }
        let mut column = self.spare.pop().unwrap_or_default();
        column.name = String::from_utf8_lossy(name).into();
        self.columns.push(column);
        let index = self.columns.len() as u32 - 1;
        self.names.insert(name.into(), index);
        index
    }

    /// The columns; the builder is then ready for another segment.
    pub fn finish<B: Bytes + ?Sized>(&mut self, order: Order<'_>, batches: &B) -> Named {
        let mut named: Named = Vec::with_capacity(self.columns.len());
        for column in std::mem::take(&mut self.columns) {
            named.push((Arc::clone(&column.name), column.finish(self.shape, order, batches)));
            if self.is_kept && self.spare.len() < SPARE_MAX {
                self.spare.push(column);
            }
        }
        named.sort_by(|a, b| a.0.cmp(&b.0));
        // Names that differ only in what is not UTF-8 read the same; the first stands for them.
        named.dedup_by(|later, first| later.0 == first.0);
        self.clear();
        named
    }

    /// Frees what tells new attributes from known ones. Nothing may be added before [`Self::finish`].
    pub fn release_known(&mut self) {
        self.seen.release();
        self.targets = Vec::new();
        self.is_kept = false;
    }

    /// Frees the memory of earlier builds.
    pub fn release_spare(&mut self) {
        self.spare = Vec::new();
        self.is_kept = true;
    }

    pub fn clear(&mut self) {
        self.seen.clear();
        self.targets.clear();
        self.names.clear();
        self.spare.append(&mut self.columns);
        self.spare.truncate(SPARE_MAX);
        self.spare.iter_mut().for_each(OpenColumn::clear);
    }
}

fn raw_value(value: AnyValue<'_>, attribute: &[u8], place: Place) -> Option<RawValue> {
    let within = |part: &[u8]| Place {
        batch: place.batch,
        offset: place.offset + super::offset_in(attribute, part) as u32,
        len: part.len() as u32,
    };
    Some(match value {
        AnyValue::Text(text) => RawValue::Text(within(text)),
        AnyValue::Int(int) => RawValue::Int(int),
        AnyValue::Untyped => return None,
        // The value is read again when the column is finished: once per distinct value.
        AnyValue::Bool(_) | AnyValue::Float(_) | AnyValue::Array(_) => {
            value.to_value()?;
            RawValue::Encoded(within(super::anyvalue::value_bytes(attribute)))
        }
    })
}
