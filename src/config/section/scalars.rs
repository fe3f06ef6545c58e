//! The getters for single values.

use super::{Secrecy, Section, quotes, text_of};
use crate::config::diagnostic::suggestion;
use crate::config::duration::{self, DurationError};
use crate::config::effective::Effective;
use crate::config::node::{Entry, Kind, Node, Value, excerpt};
use std::path::PathBuf;
use std::time::Duration;

const DURATION_REMEDY: &str = "write it with a unit, e.g. 300ms, 5s or 1h30m";

impl Section<'_> {
    /// `true` or `false`.
    pub fn bool(&mut self, key: &'static str, default: bool) -> bool {
        let value = self.bool_value(key).unwrap_or(default);
        self.record(key, Effective::Bool(value));
        value
    }

    /// `true` or `false`, for which absence means something else than either.
    pub fn optional_bool(&mut self, key: &'static str) -> Option<bool> {
        let value = self.bool_value(key)?;
        self.record(key, Effective::Bool(value));
        Some(value)
    }

    fn bool_value(&mut self, key: &'static str) -> Option<bool> {
        let entry = self.value(key)?;
        match &entry.node.value {
            Value::Scalar(scalar) if let Kind::Bool(value) = scalar.kind => Some(value),
            _ => {
                self.mismatch(entry, "true or false", "");
                None
            }
        }
    }

    /// A whole number from 0 to 4294967295.
    pub fn u32(&mut self, key: &'static str, default: u32) -> u32 {
        let wide = self.integer(key, default.into(), 0, u32::MAX.into());
        u32::try_from(wide).unwrap_or(default)
    }

    /// A whole number from 0.
    pub fn u64(&mut self, key: &'static str, default: u64) -> u64 {
        let wide = self.integer(key, default.into(), 0, u64::MAX.into());
        u64::try_from(wide).unwrap_or(default)
    }

    /// A whole number.
    pub fn i64(&mut self, key: &'static str, default: i64) -> i64 {
        let wide = self.integer(key, default.into(), i64::MIN.into(), i64::MAX.into());
        i64::try_from(wide).unwrap_or(default)
    }

    fn integer(&mut self, key: &'static str, default: i128, min: i128, max: i128) -> i128 {
        /// Above it a float no longer tells whole numbers apart.
        const FLOAT_EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        let value = match self.value(key) {
            None => default,
            Some(entry) => {
                let number = match &entry.node.value {
                    Value::Scalar(scalar) => match scalar.kind {
                        Kind::Int(value) => Some(value),
                        Kind::Float(value) if value.fract() == 0.0 && value.abs() <= FLOAT_EXACT_MAX => {
                            Some(value as i128)
                        }
                        _ => None,
                    },
                    _ => None,
                };
                match number {
                    Some(number) if (min..=max).contains(&number) => number,
                    Some(number) if number < min => {
                        self.error(key, format!("must not be below {min}, is {number}"), "");
                        default
                    }
                    Some(number) => {
                        self.error(key, format!("must not be above {max}, is {number}"), "");
                        default
                    }
                    None => {
                        self.mismatch(entry, "a whole number", unquote(entry));
                        default
                    }
                }
            }
        };
        self.record(key, Effective::Int(value));
        value
    }

    /// A number.
    pub fn f64(&mut self, key: &'static str, default: f64) -> f64 {
        let value = match self.value(key) {
            None => default,
            Some(entry) => match &entry.node.value {
                Value::Scalar(scalar) if let Kind::Float(value) = scalar.kind => value,
                Value::Scalar(scalar) if let Kind::Int(value) = scalar.kind => value as f64,
                _ => {
                    self.mismatch(entry, "a number", unquote(entry));
                    default
                }
            },
        };
        self.record(key, Effective::Float(value));
        value
    }

    /// A list of numbers; `None` if it is not written.
    pub fn numbers(&mut self, key: &'static str) -> Option<Vec<f64>> {
        let entry = self.value(key)?;
        let items = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            _ => {
                self.mismatch(entry, "a list of numbers", "");
                return None;
            }
        };
        let number = |item: &Node| match &item.value {
            Value::Scalar(scalar) if let Kind::Float(value) = scalar.kind => Some(value),
            Value::Scalar(scalar) if let Kind::Int(value) = scalar.kind => Some(value as f64),
            _ => {
                let reason = format!("expected a number in this list, got {}", item.describe());
                self.report.error(&item.position, &self.child_path(key), reason, "");
                None
            }
        };
        let numbers: Vec<f64> = items.iter().filter_map(number).collect();
        self.record(key, Effective::List(numbers.iter().copied().map(Effective::Float).collect()));
        Some(numbers)
    }

    /// A duration as Go writes it. A bare whole number is nanoseconds, which earns a warning.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let value = self.value(key).and_then(|entry| self.duration_of(entry)).unwrap_or(default);
        self.record(key, Effective::Text(duration::format(value)));
        value
    }

    /// A duration for which absence means something else than any duration.
    pub fn optional_duration(&mut self, key: &'static str) -> Option<Duration> {
        let entry = self.value(key)?;
        let value = self.duration_of(entry)?;
        self.record(key, Effective::Text(duration::format(value)));
        Some(value)
    }

    /// Reads a duration, reports what is wrong with it.
    pub(super) fn duration_of(&self, entry: &Entry) -> Option<Duration> {
        let remedy = DURATION_REMEDY;
        let scalar = match &entry.node.value {
            Value::Scalar(scalar) => scalar,
            _ => {
                self.mismatch(entry, "a duration", remedy);
                return None;
            }
        };
        match scalar.kind {
            Kind::Int(nanos) => self.bare_duration(entry, nanos),
            // What is behind the point goes, as in the Collector; so do floats beyond every duration.
            Kind::Float(nanos) if nanos.is_finite() => self.bare_duration(entry, nanos as i128),
            Kind::Text => match duration::parse(&scalar.text) {
                Ok(value) => Some(value),
                Err(error) => {
                    let remedy = match &error {
                        DurationError::UnknownUnit(unit) if unit.starts_with(' ') => {
                            "write number and unit without a space"
                        }
                        DurationError::UnknownUnit(_) => "units: ns, us, ms, s, m, h; a day is 24h",
                        DurationError::Negative | DurationError::TooLong => "",
                        DurationError::NoUnit | DurationError::Malformed => remedy,
                    };
                    self.error(&entry.key, format!("{} {error}", excerpt(&scalar.text)), remedy);
                    None
                }
            },
            Kind::Bool(_) | Kind::Float(_) => {
                self.mismatch(entry, "a duration", remedy);
                None
            }
        }
    }

    /// A number without a unit.
    fn bare_duration(&self, entry: &Entry, nanos: i128) -> Option<Duration> {
        if nanos == 0 {
            return Some(Duration::ZERO);
        }
        match u64::try_from(nanos) {
            Ok(nanos) if i64::try_from(nanos).is_ok() => {
                let value = Duration::from_nanos(nanos);
                let shown = duration::format(value);
                let reason = format!("{nanos} without a unit means nanoseconds, as in the Collector: {shown}");
                self.warn(&entry.key, reason, format!("did you mean {nanos}s?"));
                Some(value)
            }
            _ => {
                self.error(&entry.key, format!("{nanos} is no duration"), DURATION_REMEDY);
                None
            }
        }
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, default: &str) -> String {
        let value = self.text_value(key).unwrap_or_else(|| default.to_owned());
        self.record(key, Effective::Text(value.clone()));
        value
    }

    /// A text that may be absent; an empty one is given as it is.
    pub fn optional_text(&mut self, key: &'static str, secrecy: Secrecy) -> Option<String> {
        let value = self.text_value(key)?;
        self.record(key, secrecy.of(&value));
        Some(value)
    }

    /// A text that must be there and not be empty; `remedy` shows one.
    pub fn required_text(&mut self, key: &'static str, remedy: &str) -> String {
        let entry = self.written(key);
        let value = self.text_value(key).unwrap_or_default();
        if value.is_empty() {
            let position = self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node.position);
            match entry {
                // A value of another type, or a reference that failed, was reported already.
                _ if position.is_some_and(|position| self.report.has_error_at(position)) => {}
                None => self.error(key, "is missing", remedy),
                Some(_) => self.error(key, "must not be empty", remedy),
            }
        }
        self.record(key, Effective::Text(value.clone()));
        value
    }

    /// The path of a file or directory; empty means absent, as in the Collector.
    pub fn file_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let value = self.text_value(key).filter(|value| !value.is_empty())?;
        self.record(key, Effective::Text(value.clone()));
        Some(value.into())
    }

    /// `host:port` to listen on. The host may be empty (all interfaces); the port is a number, 0 for any free one.
    pub fn endpoint(&mut self, key: &'static str, default: &str) -> String {
        let value = self.text_value(key).unwrap_or_else(|| default.to_owned());
        if let Err((reason, remedy)) = check_endpoint(&value, default) {
            self.error(key, reason, remedy);
        }
        self.record(key, Effective::Text(value.clone()));
        value
    }

    /// One of a few words, lower case.
    pub fn word<T: Copy + PartialEq>(&mut self, key: &'static str, words: &[(&'static str, T)], default: T) -> T {
        self.word_folded(key, words, default, str::to_owned)
    }

    /// One of a few words, in any case: levels, as the Collector reads them.
    pub fn word_any_case<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        default: T,
    ) -> T {
        self.word_folded(key, words, default, str::to_ascii_lowercase)
    }

    fn word_folded<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        default: T,
        fold: fn(&str) -> String,
    ) -> T {
        let value = match self.value(key) {
            None => default,
            Some(entry) => match text_of(&entry.node) {
                None => {
                    self.mismatch(entry, "text", quotes(&entry.node));
                    default
                }
                Some(text) => match words.iter().find(|(word, _)| *word == fold(&text)) {
                    Some((_, value)) => *value,
                    None => {
                        let remedy = suggestion(&text, "one of", words.iter().map(|(word, _)| *word));
                        self.error(key, format!("{} is not one of its values", excerpt(&text)), remedy);
                        default
                    }
                },
            },
        };
        if let Some((word, _)) = words.iter().find(|(_, candidate)| *candidate == value) {
            self.record(key, Effective::Text((*word).to_owned()));
        }
        value
    }

    fn text_value(&mut self, key: &'static str) -> Option<String> {
        let entry = self.written(key)?;
        let text = text_of(&entry.node);
        if text.is_none() {
            self.mismatch(entry, "text", quotes(&entry.node));
        }
        text
    }
}

fn unquote(entry: &Entry) -> &'static str {
    match &entry.node.value {
        Value::Scalar(scalar) if scalar.kind == Kind::Text && scalar.text.parse::<f64>().is_ok() => {
            "write it without quotes"
        }
        _ => "",
    }
}

/// Checks a `host:port` to listen on; the error is a reason and a remedy, made with the port of `example`.
pub fn check_endpoint(text: &str, example: &str) -> Result<(), (String, String)> {
    let refuse = |reason: &str, remedy: String| Err((format!("{} {reason}", excerpt(text)), remedy));
    if text.is_empty() {
        return Err(("must not be empty".to_owned(), format!("write host:port, e.g. {example}")));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host_port = rest.split('/').next().unwrap_or_default();
        return refuse("is a URL; a listener takes host:port", format!("write {host_port}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.parse::<u16>().is_ok() {
            return refuse("is a port without a host", format!("write \"localhost:{text}\" or \":{text}\""));
        }
        let port = example.rsplit(':').next().unwrap_or_default();
        return refuse("has no port", format!("write {text}:{port}"));
    };
    if port.parse::<u16>().is_err() {
        return refuse("has no port number from 0 to 65535 after the last colon", String::new());
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return refuse("has an IPv6 address without brackets", format!("write [{host}]:{port}"));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return refuse("has a host with spaces or slashes", String::new());
    }
    Ok(())
}
