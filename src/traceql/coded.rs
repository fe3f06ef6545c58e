//! The values of one field for the rows of one segment, as codes: what grouping, measuring and exemplars read.
//!
//! Columns with a dictionary are used as they are. For everything else (fields without scope, values that are not listed,
//! ids, durations, what belongs to the trace) the values of the wanted rows are numbered here.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::ast::{Attribute, Expression, Field, Intrinsic};
use super::column::{Cell, Code, Codes, Dictionary, Entry, NIL};
use super::datum::Datum;
use super::filter::row::{Bound, RowExpression, scoped};
use super::keys::{write_key, write_text_key};
use super::reader::{Reader, Scan, has_column};
use super::segment::{Column, Parent, SegmentError};
use super::trace::view::service_name;
use super::value::Value;

/// Rows, or traces, of slow work between two looks at whether the query is to end.
const ROWS_BETWEEN_CHECKS: usize = 1024;

pub struct Coded {
    codes: Codes,
    values: Values,
}

enum Values {
    Dictionary(Arc<Dictionary>),
    /// The value of code 1, 2, ...
    Numbered(Vec<Cell>),
}

/// The values of a field; `None` where no span has it. Rows that are not among `rows` (ascending) may have no value.
///
/// # Errors
/// The segment could not be read.
pub fn read(field: &Field, scan: &Scan<'_>, reader: &Rc<Reader>, rows: &[u16]) -> Result<Option<Coded>, SegmentError> {
    match field {
        Field::Attribute(Attribute { of_parent: true, .. }) => Ok(None),
        Field::Attribute(Attribute { scope: None, name, .. }) => unscoped(name, scan, reader, rows),
        Field::Attribute(_) => column(field, scan, reader, rows),
        Field::Intrinsic(intrinsic) if has_column(*intrinsic) => column(field, scan, reader, rows),
        Field::Intrinsic(Intrinsic::RootName | Intrinsic::RootServiceName) => {
            roots(field, scan, reader, rows).map(Some)
        }
        Field::Intrinsic(Intrinsic::TraceId | Intrinsic::TraceDuration) => {
            let compiled = compiled(field)?;
            let bound = compiled.bind(scan, reader)?;
            of_traces(scan, reader, rows, |numbers, _, first| Ok(numbers.code_of(value_of(&bound, first)?))).map(Some)
        }
        Field::Intrinsic(_) => {
            let compiled = compiled(field)?;
            let bound = compiled.bind(scan, reader)?;
            number(scan, reader, rows, |row| Ok(value_of(&bound, row)?.map(Cell::One))).map(Some)
        }
    }
}

impl Coded {
    /// A column with its dictionary.
    #[must_use]
    pub fn listed(dictionary: Arc<Dictionary>, codes: Codes) -> Self {
        Self { codes, values: Values::Dictionary(dictionary) }
    }

    /// Codes are at most this.
    #[must_use]
    pub fn code_max(&self) -> usize {
        match &self.values {
            Values::Dictionary(dictionary) => dictionary.len(),
            Values::Numbered(values) => values.len(),
        }
    }

    /// Of several values (events, links) the first; `None` for nil.
    #[must_use]
    pub fn value(&self, code: Code) -> Option<Value> {
        let mut first = None;
        self.each_value(code, |value| {
            first.get_or_insert(value);
        });
        first
    }

    /// All values of a code: several where a span has several events or links.
    pub fn each_value(&self, code: Code, mut found: impl FnMut(Value)) {
        self.each(code, |met| found(met.into_value()));
    }

    /// As [`Coded::each_value`], without making values that nobody keeps.
    pub fn each(&self, code: Code, mut found: impl FnMut(Met<'_>)) {
        let mut of_cell = |cell: &Cell| match cell {
            Cell::One(value) => found(Met::Value(value)),
            Cell::Many(values) => values.iter().map(Met::Value).for_each(&mut found),
        };
        match &self.values {
            Values::Numbered(values) => {
                if let Some(cell) = usize::from(code).checked_sub(1).and_then(|index| values.get(index)) {
                    of_cell(cell);
                }
            }
            Values::Dictionary(dictionary) => match dictionary.get(code) {
                None => {}
                Some(Entry::String(string)) => found(Met::Text(string)),
                Some(Entry::Int(int)) => found(Met::Int(int)),
                Some(Entry::Other(cell)) => of_cell(cell),
            },
        }
    }

    /// A number where the code has one; the others are not made to have one.
    #[must_use]
    pub fn number(&self, code: Code) -> Option<Number> {
        let number = |value: &Value| match value {
            Value::Int(int) => Some(Number::Int(*int)),
            Value::Float(float) if !float.is_nan() => Some(Number::Float(*float)),
            Value::Duration(nanos) => Some(Number::Nanos(*nanos)),
            _ => None,
        };
        match &self.values {
            Values::Numbered(values) => first(values.get(usize::from(code).checked_sub(1)?)?).and_then(number),
            Values::Dictionary(dictionary) => match dictionary.get(code)? {
                Entry::String(_) => None,
                Entry::Int(int) => Some(Number::Int(int)),
                Entry::Other(cell) => first(cell).and_then(number),
            },
        }
    }

    #[must_use]
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// The same with codes of these rows alone, in their order.
    #[must_use]
    pub fn at(self, rows: &[u16]) -> Self {
        let codes = match self.codes {
            Codes::Rows(_) => {
                let mut gathered = Vec::with_capacity(rows.len());
                self.gather(rows, &mut gathered);
                Codes::Rows(gathered.into())
            }
            groups => groups,
        };
        Self { codes, ..self }
    }

    /// The codes of these rows, in their order.
    pub fn gather(&self, rows: &[u16], out: &mut Vec<Code>) {
        out.clear();
        match &self.codes {
            Codes::Rows(codes) => {
                out.extend(rows.iter().map(|row| codes.get(usize::from(*row)).copied().unwrap_or(NIL)));
            }
            Codes::Groups { groups, codes } => out.extend(rows.iter().map(|row| {
                groups.get(usize::from(*row)).and_then(|group| codes.get(usize::from(*group))).copied().unwrap_or(NIL)
            })),
        }
    }
}

/// A value as it lies in a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Met<'a> {
    Text(&'a str),
    Int(i64),
    Value(&'a Value),
}

impl Met<'_> {
    pub fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.into()),
            Self::Int(int) => Value::Int(int),
            Self::Value(value) => value.clone(),
        }
    }

    /// The key of the value, as [`write_key`] writes it.
    pub fn write_key(self, key: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write_text_key(text, key),
            Self::Int(int) => write_key(Some(&Value::Int(int)), key),
            Self::Value(value) => write_key(Some(value), key),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Int(i64),
    Float(f64),
    Nanos(i64),
}

fn first(cell: &Cell) -> Option<&Value> {
    match cell {
        Cell::One(value) => Some(value),
        Cell::Many(values) => values.first(),
    }
}

fn column(field: &Field, scan: &Scan<'_>, reader: &Reader, rows: &[u16]) -> Result<Option<Coded>, SegmentError> {
    match reader.column(field)? {
        Column::Absent => Ok(None),
        Column::Listed(dictionary) => Ok(Some(Coded::listed(dictionary, reader.codes(field)?))),
        Column::Unlisted { sketches } => {
            let cell = |row: usize| match sketches.get(row) {
                None | Some(0) => Ok(None),
                Some(_) => reader.cell(field, row),
            };
            number(scan, reader, rows, cell).map(Some)
        }
    }
}

/// `.name`: the first scope in which a row has it.
fn unscoped(name: &str, scan: &Scan<'_>, reader: &Reader, rows: &[u16]) -> Result<Option<Coded>, SegmentError> {
    let mut scopes = Vec::new();
    for field in scoped(name) {
        scopes.extend(column(&field, scan, reader, rows)?);
    }
    if scopes.len() <= 1 {
        return Ok(scopes.pop());
    }
    let cell = |row: usize| {
        let of_scope = scopes.iter().map(|coded| (coded, coded.codes.get(row))).find(|(_, code)| *code != NIL);
        Ok(of_scope.and_then(|(coded, code)| coded.value(code)).map(Cell::One))
    };
    number(scan, reader, rows, cell).map(Some)
}

/// One value for all rows of a trace; its code is asked for with the index of the trace and the first of the rows.
fn of_traces(
    scan: &Scan<'_>,
    reader: &Reader,
    rows: &[u16],
    mut code: impl FnMut(&mut Numbers, usize, usize) -> Result<Code, SegmentError>,
) -> Result<Coded, SegmentError> {
    let traces = reader.traces()?;
    let mut numbers = Numbers::new(reader.rows());
    let mut rest = rows.iter().map(|row| usize::from(*row)).peekable();
    for index in 0..traces.len() {
        if index % ROWS_BETWEEN_CHECKS == 0 {
            scan.check()?;
        }
        let of_trace = traces.rows(index);
        let Some(first) = rest.next_if(|row| of_trace.contains(row)) else { continue };
        let code = code(&mut numbers, index, first)?;
        numbers.set(first, code);
        while let Some(row) = rest.next_if(|row| of_trace.contains(row)) {
            numbers.set(row, code);
        }
    }
    Ok(numbers.coded())
}

/// A field of the root span of each trace.
fn roots(field: &Field, scan: &Scan<'_>, reader: &Rc<Reader>, rows: &[u16]) -> Result<Coded, SegmentError> {
    let compiled = compiled(field)?;
    let bound = compiled.bind(scan, reader)?;
    let (traces, parents) = (reader.traces()?, reader.parents()?);
    let root = |trace| traces.rows(trace).find(|row| parents.get(*row) == Some(&Parent::Root));
    let root_rows: Vec<u16> = (0..traces.len()).filter_map(|trace| Some(root(trace)? as u16)).collect();
    let of_root = match field {
        Field::Intrinsic(Intrinsic::RootName) => Field::Intrinsic(Intrinsic::Name),
        _ => service_name(),
    };
    let of_root = column(&of_root, scan, reader, &root_rows)?;
    // By the code of the root: the number of its value here, or NIL until that is known.
    let mut numbers_of: Vec<Code> = vec![NIL; of_root.as_ref().map_or(0, Coded::code_max) + 1];
    of_traces(scan, reader, rows, |numbers, trace, first| match root(trace) {
        // Where the root is here and there is no other piece, columns say it all.
        Some(root) if !reader.may_be_split(scan, trace) => {
            let code = of_root.as_ref().map_or(NIL, |coded| coded.codes.get(root));
            let known = numbers_of.get(usize::from(code)).copied().unwrap_or(NIL);
            if known != NIL {
                return Ok(known);
            }
            let value = of_root.as_ref().and_then(|coded| coded.value(code));
            let number = numbers.code_of(Some(value.unwrap_or_else(|| Value::String("".into()))));
            if let Some(slot) = numbers_of.get_mut(usize::from(code)) {
                *slot = number;
            }
            Ok(number)
        }
        _ => Ok(numbers.code_of(value_of(&bound, first)?)),
    })
}

fn compiled(field: &Field) -> Result<RowExpression, SegmentError> {
    // Only regular expressions can be wrong, and a field has none.
    RowExpression::compile(&Expression::Field(field.clone())).map_err(|error| SegmentError::Read(error.to_string()))
}

fn value_of(bound: &Bound<'_, '_>, row: usize) -> Result<Option<Value>, SegmentError> {
    Ok(bound.value(row)?.and_then(Datum::into_value))
}

/// Numbers the values of rows in the order in which they come.
fn number(
    scan: &Scan<'_>,
    reader: &Reader,
    rows: &[u16],
    mut cell: impl FnMut(usize) -> Result<Option<Cell>, SegmentError>,
) -> Result<Coded, SegmentError> {
    let mut numbers = Numbers::new(reader.rows());
    for (count, row) in rows.iter().map(|row| usize::from(*row)).enumerate() {
        if count % ROWS_BETWEEN_CHECKS == 0 {
            scan.check()?;
        }
        if let Some(cell) = cell(row)? {
            let code = numbers.code(cell);
            numbers.set(row, code);
        }
    }
    Ok(numbers.coded())
}

struct Numbers {
    codes: Vec<Code>,
    cells: Vec<Cell>,
    known: HashMap<Box<[u8]>, Code, RandomState>,
    key: Vec<u8>,
}

impl Numbers {
    fn new(rows: usize) -> Self {
        Self { codes: vec![NIL; rows], cells: Vec::new(), known: HashMap::default(), key: Vec::new() }
    }

    fn code(&mut self, cell: Cell) -> Code {
        self.key.clear();
        match &cell {
            Cell::One(value) => write_key(Some(value), &mut self.key),
            Cell::Many(several) => several.iter().for_each(|value| write_key(Some(value), &mut self.key)),
        }
        if let Some(known) = self.known.get(&self.key[..]) {
            return *known;
        }
        self.cells.push(cell);
        // A segment has no more rows than there are codes.
        let code = self.cells.len() as Code;
        self.known.insert(self.key.as_slice().into(), code);
        code
    }

    fn code_of(&mut self, value: Option<Value>) -> Code {
        value.map_or(NIL, |value| self.code(Cell::One(value)))
    }

    fn set(&mut self, row: usize, code: Code) {
        if let Some(own) = self.codes.get_mut(row) {
            *own = code;
        }
    }

    fn coded(self) -> Coded {
        Coded { codes: Codes::Rows(self.codes.into()), values: Values::Numbered(self.cells) }
    }
}
