//! Regular expressions of a configuration, as Go reads them.

use crate::config::Section;
use crate::traceql::pattern;
use regex::Regex;

/// A compiled pattern that may match anywhere in a text; compared by its text.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// It is none, or too large when compiled; in one line.
    pub fn compile(text: &str) -> Result<Self, String> {
        match pattern::search(text) {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => Err("the pattern is too large when compiled".to_owned()),
            Err(error) => {
                // The crate draws the place over several lines; the last one says what is wrong.
                let text = error.to_string();
                Err(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
            }
        }
    }

    /// The pattern at `key`; a bad one is reported there.
    pub fn decode(section: &mut Section<'_>, key: &'static str) -> Option<Self> {
        let text = section.optional_text(key, crate::config::Secrecy::Open)?;
        Self::reported(section, key, &text)
    }

    /// The texts at `key` as patterns; bad ones are reported there.
    pub fn reported(section: &Section<'_>, key: &str, text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        Self::compile(text).map_err(|problem| section.error(key, format!("is no valid pattern: {problem}"), "")).ok()
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
