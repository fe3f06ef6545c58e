//! What is wrong with a statement, and where.

use std::fmt;

use thiserror::Error;

/// A byte offset in the text of a statement. Trees are compared by what they say: all places are equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place(pub u32);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Place {
    pub(super) fn new(offset: usize) -> Self {
        Self(u32::try_from(offset).unwrap_or(u32::MAX))
    }

    /// Line and column (in characters) within `text`, both from 1.
    pub fn line_and_column(self, text: &str) -> (u32, u32) {
        let offset = (self.0 as usize).min(text.len());
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |feed| feed + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }
}

/// Why a text is no statement or condition, or one that can never work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Problem {
    /// Within the statement, from 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    pub reason: String,
    /// What a person can do about it; may be empty.
    pub remedy: String,
}

impl Problem {
    pub(super) fn new(text: &str, place: Place, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (line, column) = place.line_and_column(text);
        Self { line, column, reason: reason.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}
