//! One column: while spans come in, and once it is done.
//!
//! ```text
//! open   values: distinct by their bytes, in the order they came     occurrences: (row, number of the value) ...
//! done   dictionary: sorted, distinct by meaning                     codes: one per row, or only where there is one
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::anyvalue::AnyValue;
use super::intern::{Bytes, Place};
use crate::traceql::column::{Cell, Code, Codes, Dictionary, Entry, GroupsOfRows, NIL};
use crate::traceql::segment::{Column, SKETCH_ANY, sketch};
use crate::traceql::value::Value;

/// A dictionary of so few bytes is worth its place whatever is in it.
const LISTED_BYTES: usize = 16 * 1024;
/// Strings that mostly do not repeat are listed up to so many bytes of dictionary a row. Sketches cost two bytes a row,
/// so longer ones (ids in hex, URLs with an id in them) are cheaper to look up where the span lies.
const LISTED_BYTES_PER_ROW: usize = 8;

/// A column of a segment.
#[derive(Debug, Clone)]
pub struct FieldColumn {
    /// Never [`Column::Absent`].
    pub values: Column,
    pub codes: Placed,
}

/// Codes of a column, as small as they come.
#[derive(Debug, Clone)]
pub enum Placed {
    /// An unlisted column has none.
    Nowhere,
    /// One per row.
    Rows(Arc<[Code]>),
    /// Few rows have a value: these, ascending, with their codes.
    Some { rows: Box<[u16]>, codes: Box<[Code]> },
    /// One per resource.
    Resources(Arc<[Code]>),
    /// One per scope.
    Scopes(Arc<[Code]>),
}

/// The rows' resources and scopes, by index.
#[derive(Debug, Clone)]
pub struct Groups {
    pub resources: GroupsOfRows,
    pub scopes: GroupsOfRows,
}

impl Placed {
    /// The codes as evaluation wants them.
    #[must_use]
    pub fn codes(&self, groups: &Groups) -> Codes {
        match self {
            Self::Nowhere => Codes::Rows(Arc::default()),
            Self::Rows(codes) => Codes::Rows(Arc::clone(codes)),
            Self::Some { rows, codes } => {
                let mut all = vec![NIL; groups.resources.len()];
                for (row, code) in rows.iter().zip(codes) {
                    if let Some(slot) = all.get_mut(usize::from(*row)) {
                        *slot = *code;
                    }
                }
                Codes::Rows(all.into())
            }
            Self::Resources(codes) => Codes::Groups { groups: Arc::clone(&groups.resources), codes: Arc::clone(codes) },
            Self::Scopes(codes) => Codes::Groups { groups: Arc::clone(&groups.scopes), codes: Arc::clone(codes) },
        }
    }

    /// The code of one row.
    #[must_use]
    pub fn get(&self, row: usize, groups: &Groups) -> Code {
        let of_group =
            |groups: &[Code], codes: &[Code]| groups.get(row).and_then(|group| codes.get(usize::from(*group))).copied();
        let code = match self {
            Self::Nowhere => None,
            Self::Rows(codes) => codes.get(row).copied(),
            Self::Some { rows, codes } => {
                let at = u16::try_from(row).ok().and_then(|row| rows.binary_search(&row).ok());
                at.and_then(|at| codes.get(at)).copied()
            }
            Self::Resources(codes) => of_group(&groups.resources, codes),
            Self::Scopes(codes) => of_group(&groups.scopes, codes),
        };
        code.unwrap_or(NIL)
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Nowhere => 0,
            Self::Rows(codes) | Self::Resources(codes) | Self::Scopes(codes) => codes.len() * size_of::<Code>(),
            Self::Some { rows, codes } => rows.len() * 2 + codes.len() * size_of::<Code>(),
        }
    }
}

impl FieldColumn {
    /// A column of a value of every row, by number in `values`; only those that occur are listed.
    pub(super) fn of_all(values: &[Value], numbers: impl Iterator<Item = u8> + Clone) -> Self {
        let mut used = vec![false; values.len()];
        for number in numbers.clone() {
            if let Some(used) = used.get_mut(usize::from(number)) {
                *used = true;
            }
        }
        let mut dictionary = Dictionary::default();
        let mut codes = vec![NIL; values.len()];
        for (number, value) in values.iter().enumerate().filter(|(number, _)| used[*number]) {
            dictionary.others.push(Cell::One(value.clone()));
            codes[number] = dictionary.others.len() as Code;
        }
        let rows: Vec<Code> = numbers.map(|number| codes.get(usize::from(number)).copied().unwrap_or(NIL)).collect();
        Self { values: Column::Listed(Arc::new(dictionary)), codes: Placed::Rows(rows.into()) }
    }

    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let values = match &self.values {
            Column::Absent => 0,
            Column::Unlisted { sketches } => sketches.len() * 2,
            Column::Listed(dictionary) => {
                let text: usize = dictionary.strings.iter().map(|string| string.len() + 4).sum();
                size_of::<Dictionary>()
                    + text
                    + dictionary.ints.len() * 8
                    + dictionary.others.iter().map(cell_bytes).sum::<usize>()
            }
        };
        size_of::<Self>() + values + self.codes.bytes()
    }
}

fn cell_bytes(cell: &Cell) -> usize {
    size_of::<Cell>()
        + match cell {
            Cell::One(value) => value_bytes(value),
            Cell::Many(values) => values.iter().map(|value| size_of::<Value>() + value_bytes(value)).sum(),
        }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        // Two counters stand before the bytes.
        Value::String(string) => 16 + string.len(),
        Value::Array(values) => values.iter().map(|value| size_of::<Value>() + value_bytes(value)).sum(),
        _ => 0,
    }
}

/// A value where it lies, or decoded where that is no longer.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawValue {
    Text(Place),
    /// An id, to be shown in hex.
    Hex(Place),
    Int(i64),
    /// Nanoseconds.
    Duration(i64),
    /// An `AnyValue` of another type.
    Encoded(Place),
}

/// How many values a row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// One, and never [`Column::Unlisted`].
    Listed,
    /// One per event or link that has the field.
    Many,
}

/// Where rows go: sorted, and without those that were dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    /// By arrival; [`DROPPED`] for rows that go nowhere. `None`: rows stay as they came.
    pub ranks: Option<&'a [u32]>,
    /// Rows that are left.
    pub rows: usize,
}

pub(super) const DROPPED: u32 = u32::MAX;

/// The number of what is no value for TraceQL.
pub(super) const NO_VALUE: u32 = u32::MAX;

impl Order<'_> {
    #[inline]
    fn of(&self, row: u16) -> u32 {
        match self.ranks {
            Some(ranks) => ranks.get(usize::from(row)).copied().unwrap_or(DROPPED),
            None => u32::from(row),
        }
    }

    fn drops(&self) -> bool {
        self.ranks.is_some_and(|ranks| ranks.len() > self.rows)
    }
}

/// A column while spans come in.
#[derive(Debug, Default)]
pub(super) struct OpenColumn {
    pub name: Arc<str>,
    values: Vec<RawValue>,
    /// Of the values that are text.
    text_bytes: usize,
    texts: usize,
    rows: Vec<u16>,
    numbers: Vec<u32>,
    /// The last span, event or link that was added, counted from 1.
    last_carrier: u32,
    /// The name stood twice in one of them.
    repeats: bool,
}

impl OpenColumn {
    /// The number of a value whose bytes are new to this column.
    pub fn learn(&mut self, value: RawValue) -> u32 {
        let text_bytes = match value {
            RawValue::Text(place) => Some(place.len as usize),
            RawValue::Hex(place) => Some(place.len as usize * 2),
            _ => None,
        };
        self.text_bytes += text_bytes.unwrap_or(0);
        self.texts += usize::from(text_bytes.is_some());
        self.values.push(value);
        self.values.len() as u32 - 1
    }

    /// Of a name that stands twice in one span, event or link the first counts.
    #[inline]
    pub fn add(&mut self, row: u16, carrier: u32, number: u32) {
        if self.last_carrier == carrier {
            self.repeats = true;
            return;
        }
        self.last_carrier = carrier;
        if number != NO_VALUE {
            self.rows.push(row);
            self.numbers.push(number);
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.rows.clear();
        self.numbers.clear();
        (self.text_bytes, self.texts, self.last_carrier, self.repeats) = (0, 0, 0, false);
    }

    /// `None` where no row has a value.
    pub fn finish<B: Bytes + ?Sized>(&self, shape: Shape, order: Order<'_>, batches: &B) -> Option<FieldColumn> {
        let used = (self.repeats || order.drops()).then(|| self.used(order));
        if self.rows.is_empty() || used.as_ref().is_some_and(|used| !used.contains(&true)) {
            return None;
        }
        if shape != Shape::Listed && self.is_unlisted() {
            return Some(self.sketched(order, batches));
        }
        let (dictionary, map) = self.dictionary(used.as_deref(), batches);
        if shape == Shape::Many {
            return Some(self.many(&dictionary, &map, order));
        }
        let codes = self.place(order, |number| map.get(number as usize).copied().unwrap_or(0) as Code);
        Some(FieldColumn { values: Column::Listed(Arc::new(dictionary)), codes })
    }

    /// Which values rows that are not dropped have.
    fn used(&self, order: Order<'_>) -> Vec<bool> {
        let mut used = vec![false; self.values.len()];
        for (row, number) in self.rows.iter().zip(&self.numbers) {
            if order.of(*row) != DROPPED
                && let Some(used) = used.get_mut(*number as usize)
            {
                *used = true;
            }
        }
        used
    }

    fn is_unlisted(&self) -> bool {
        let rows = self.rows.len();
        self.texts == self.values.len()
            && self.text_bytes > LISTED_BYTES
            && self.text_bytes > rows * LISTED_BYTES_PER_ROW
            && self.values.len() > rows / 2
    }

    fn sketched<B: Bytes + ?Sized>(&self, order: Order<'_>, batches: &B) -> FieldColumn {
        let by_number: Vec<u16> =
            self.values.iter().map(|value| value.text(batches).map_or(0, |text| sketch(&text))).collect();
        let mut sketches = vec![0; order.rows];
        self.scatter(order, |rank, number| {
            if let (Some(slot), Some(sketch)) = (sketches.get_mut(rank), by_number.get(number as usize)) {
                *slot = if *slot == NIL { *sketch } else { SKETCH_ANY };
            }
        });
        FieldColumn { values: Column::Unlisted { sketches: sketches.into() }, codes: Placed::Nowhere }
    }

    #[inline]
    fn scatter(&self, order: Order<'_>, mut put: impl FnMut(usize, u32)) {
        for (row, number) in self.rows.iter().zip(&self.numbers) {
            let rank = order.of(*row);
            if rank != DROPPED {
                put(rank as usize, *number);
            }
        }
    }

    /// Codes for values that rows have once.
    fn place(&self, order: Order<'_>, code_of: impl Fn(u32) -> Code) -> Placed {
        // Row and code take as much as two codes.
        if self.rows.len() * 2 < order.rows {
            let mut some = Vec::with_capacity(self.rows.len());
            self.scatter(order, |rank, number| some.push((rank as u16, code_of(number))));
            some.retain(|(_, code)| *code != NIL);
            some.sort_unstable();
            let (rows, codes): (Vec<u16>, Vec<Code>) = some.into_iter().unzip();
            return Placed::Some { rows: rows.into(), codes: codes.into() };
        }
        let mut all = vec![NIL; order.rows];
        self.scatter(order, |rank, number| {
            if let Some(slot) = all.get_mut(rank) {
                *slot = code_of(number);
            }
        });
        Placed::Rows(all.into())
    }

    /// The values in order and without repetition, and for each number its code (0: not used). Codes may exceed
    /// [`Code`] where rows have many values.
    fn dictionary<B: Bytes + ?Sized>(&self, used: Option<&[bool]>, batches: &B) -> (Dictionary, Vec<u32>) {
        let mut texts: Vec<(u64, Cow<'_, str>, u32)> = Vec::new();
        let mut ints: Vec<(i64, u32)> = Vec::new();
        let mut others: Vec<(Value, u32)> = Vec::new();
        for (number, value) in (0u32..).zip(&self.values) {
            if used.is_some_and(|used| !used.get(number as usize).is_some_and(|used| *used)) {
                continue;
            }
            if let Some(text) = value.text(batches) {
                texts.push((prefix(text.as_bytes()), text, number));
                continue;
            }
            match value {
                RawValue::Int(int) => ints.push((*int, number)),
                RawValue::Duration(nanos) => others.push((Value::Duration(*nanos), number)),
                RawValue::Encoded(place) => {
                    if let Some(value) = AnyValue::read(batches.at(*place)).to_value() {
                        others.push((value, number));
                    }
                }
                RawValue::Text(_) | RawValue::Hex(_) => {}
            }
        }
        // Most comparisons end at the first eight bytes, without a look at the text.
        texts.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        ints.sort_unstable();

        let mut dictionary = Dictionary::default();
        let mut map = vec![0u32; self.values.len()];
        let mut code = 0;
        let mut last: Option<&str> = None;
        for (_, text, number) in &texts {
            if last.replace(text) != Some(text) {
                dictionary.strings.push(text);
                code += 1;
            }
            map[*number as usize] = code;
        }
        for (int, number) in ints {
            if dictionary.ints.last() != Some(&int) {
                dictionary.ints.push(int);
                code += 1;
            }
            map[number as usize] = code;
        }
        let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
        for (value, number) in others {
            let mut key = Vec::new();
            put_identity(&value, &mut key);
            map[number as usize] = *known.entry(key).or_insert_with(|| {
                dictionary.others.push(Cell::One(value));
                code += 1;
                code
            });
        }
        (dictionary, map)
    }

    /// Rows that have several values have the list of them as their value.
    fn many(&self, single: &Dictionary, map: &[u32], order: Order<'_>) -> FieldColumn {
        let values: Vec<Value> = entries(single).map(to_value).collect();
        let mut dictionary = Dictionary::default();
        let mut known: HashMap<Vec<u32>, Code> = HashMap::new();
        let mut placed: Vec<(u16, Code)> = Vec::new();
        let mut list = Vec::new();
        let mut at = 0;
        while let Some(row) = self.rows.get(at) {
            let len = self.rows[at..].iter().take_while(|other| *other == row).count();
            let numbers = &self.numbers[at..at + len];
            at += len;
            let rank = order.of(*row);
            if rank == DROPPED {
                continue;
            }
            list.clear();
            list.extend(numbers.iter().filter_map(|number| map.get(*number as usize)).filter(|code| **code != 0));
            let code = match known.get(&list) {
                Some(code) => *code,
                None => {
                    let cells: Vec<Value> =
                        list.iter().filter_map(|code| values.get(*code as usize - 1).cloned()).collect();
                    if cells.is_empty() {
                        continue;
                    }
                    dictionary.others.push(Cell::Many(cells.into()));
                    let code = dictionary.others.len() as Code;
                    known.insert(list.clone(), code);
                    code
                }
            };
            placed.push((rank as u16, code));
        }
        placed.sort_unstable();
        let (rows, codes): (Vec<u16>, Vec<Code>) = placed.into_iter().unzip();
        FieldColumn {
            values: Column::Listed(Arc::new(dictionary)),
            codes: Placed::Some { rows: rows.into(), codes: codes.into() },
        }
    }
}

impl RawValue {
    fn text<'a, B: Bytes + ?Sized>(&self, batches: &'a B) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(place) => Some(String::from_utf8_lossy(batches.at(*place))),
            Self::Hex(place) => Some(Cow::Owned(hex(batches.at(*place)))),
            _ => None,
        }
    }
}

/// Lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |digit: u8| char::from(DIGITS[usize::from(digit & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The first eight bytes as a number that sorts as they do.
fn prefix(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = text.len().min(8);
    bytes[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(bytes)
}

/// All entries, also those beyond what a [`Code`] can number.
fn entries(dictionary: &Dictionary) -> impl Iterator<Item = Entry<'_>> {
    let strings = dictionary.strings.iter().map(Entry::String);
    let ints = dictionary.ints.iter().map(|int| Entry::Int(*int));
    strings.chain(ints).chain(dictionary.others.iter().map(Entry::Other))
}

fn to_value(entry: Entry<'_>) -> Value {
    match entry {
        Entry::String(string) => Value::String(string.into()),
        Entry::Int(int) => Value::Int(int),
        Entry::Other(Cell::One(value)) => value.clone(),
        Entry::Other(Cell::Many(values)) => Value::Array(Arc::clone(values)),
    }
}

/// Bytes that two values share only if they are the same (a NaN is the same as itself).
fn put_identity(value: &Value, out: &mut Vec<u8>) {
    let (tag, bytes): (u8, &[u8]) = match value {
        Value::Float(float) => (0, &float.to_bits().to_le_bytes()),
        Value::Bool(bool) => (1, &[u8::from(*bool)]),
        Value::Duration(nanos) => (2, &nanos.to_le_bytes()),
        Value::Int(int) => (3, &int.to_le_bytes()),
        Value::String(string) => (4, string.as_bytes()),
        Value::Status(status) => (5, &[*status as u8]),
        Value::Kind(kind) => (6, &[*kind as u8]),
        Value::Array(values) => {
            out.push(7);
            out.extend_from_slice(&(values.len() as u32).to_le_bytes());
            values.iter().for_each(|value| put_identity(value, out));
            return;
        }
    };
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}
