//! Columns as evaluation sees them: distinct values, and for each span the number of its value.

use std::sync::Arc;

use super::value::Value;

/// The number of a value in its [`Dictionary`]. [`NIL`] stands for no value.
pub type Code = u16;

pub const NIL: Code = 0;

/// Rows of a segment, at most: a code per row then has room for every distinct value.
pub const ROWS_MAX: usize = Code::MAX as usize;

/// What one span has for a field: one value, or for events and links one per event or link.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    One(Value),
    /// Never empty; in the order of the events or links that have the field.
    Many(Arc<[Value]>),
}

/// The distinct values of a column. Codes count from 1, in the order of the fields below.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dictionary {
    /// Sorted bytewise, without repetition.
    pub strings: Strings,
    /// Sorted, without repetition.
    pub ints: Vec<i64>,
    /// Everything else, without repetition, in no particular order: floats, booleans, arrays, values of several events.
    pub others: Vec<Cell>,
}

/// Strings end to end. Sorted bytewise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Where each string ends.
    ends: Vec<u32>,
}

/// A value that is read without copying it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry<'a> {
    String(&'a str),
    Int(i64),
    Other(&'a Cell),
}

impl Strings {
    /// Strings that stand end to end, by where each ends, ascending; `None` if one ends within a character, or the last before the
    /// end of `text`.
    pub fn of(text: &str, ends: Vec<u32>) -> Option<Self> {
        let is_whole = ends.last().map_or(0, |end| *end as usize) == text.len();
        let fits = is_whole && ends.is_sorted() && ends.iter().all(|end| text.is_char_boundary(*end as usize));
        fits.then(|| Self { text: text.to_owned(), ends })
    }

    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len() as u32);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        self.text.get(start..end)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The place of a string.
    #[must_use]
    pub fn position(&self, string: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle)?.cmp(string) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl Dictionary {
    /// How many distinct values there are; codes go from 1 to this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.strings.len() + self.ints.len() + self.others.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let strings = self.strings.text.len() + self.strings.ends.len() * size_of::<u32>();
        let ints = self.ints.len() * size_of::<i64>();
        let others = self.others.iter().map(|cell| size_of::<Cell>() + cell.heap_bytes());
        strings + ints + others.sum::<usize>()
    }

    /// The value of a code; `None` for [`NIL`] and codes beyond the last.
    #[must_use]
    pub fn get(&self, code: Code) -> Option<Entry<'_>> {
        let index = usize::from(code).checked_sub(1)?;
        if let Some(string) = self.strings.get(index) {
            return Some(Entry::String(string));
        }
        let index = index - self.strings.len();
        if let Some(int) = self.ints.get(index) {
            return Some(Entry::Int(*int));
        }
        self.others.get(index - self.ints.len()).map(Entry::Other)
    }

    /// Every value with its code.
    pub fn iter(&self) -> impl Iterator<Item = (Code, Entry<'_>)> {
        (1..=self.len() as Code).filter_map(|code| Some((code, self.get(code)?)))
    }
}

/// For each row of a segment, the number of its resource or scope. In a box, so that whoever remembers it for others, by a
/// [`std::sync::Weak`], does not keep its memory.
pub type GroupsOfRows = Arc<Box<[Code]>>;

/// For each row of a segment, the code of its value.
#[derive(Debug, Clone, PartialEq)]
pub enum Codes {
    /// One per row.
    Rows(Arc<[Code]>),
    /// One per resource or scope (`codes[groups[row]]`): attributes of resources and instrumentation scopes.
    Groups { groups: GroupsOfRows, codes: Arc<[Code]> },
}

impl Cell {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::One(value) => value.heap_bytes(),
            Self::Many(values) => values.iter().map(|value| size_of::<Value>() + value.heap_bytes()).sum(),
        }
    }
}

impl Codes {
    /// What it takes in memory. Resources and scopes of rows, which columns share, are counted for each.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let codes = match self {
            Self::Rows(codes) => codes.len(),
            Self::Groups { groups, codes } => groups.len() + codes.len(),
        };
        codes * size_of::<Code>()
    }

    #[must_use]
    pub fn get(&self, row: usize) -> Code {
        match self {
            Self::Rows(codes) => codes.get(row).copied().unwrap_or(NIL),
            Self::Groups { groups, codes } => {
                groups.get(row).and_then(|group| codes.get(usize::from(*group))).copied().unwrap_or(NIL)
            }
        }
    }
}
