//! `tracestate` as W3C has it, with OpenTelemetry's part (`ot=`) taken apart.

use super::threshold::{Randomness, Threshold};
use std::fmt;

/// Of the whole text.
const BYTES_MAX: usize = 1024;
/// The Collector counts one less than W3C allows.
const MEMBERS_MAX: usize = 31;
const KEY_BYTES_MAX: usize = 256;
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;
const VALUE_BYTES_MAX: usize = 256;

/// A trace state. Written with OpenTelemetry's part first, the others in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceState {
    opentelemetry: OpenTelemetry,
    others: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OpenTelemetry {
    /// With the digits as they came.
    randomness: Option<(Randomness, String)>,
    threshold: Option<(Threshold, String)>,
    others: Vec<(String, String)>,
}

impl TraceState {
    /// What can be read of the text, and whether it was well-formed.
    pub fn parse(text: &str) -> (Self, bool) {
        let mut state = Self::default();
        if text.len() > BYTES_MAX || !text.split(',').all(is_member) {
            return (state, false);
        }
        if text.is_empty() {
            return (state, true);
        }
        let mut well_formed = true;
        for (index, member) in text.split(',').enumerate() {
            if index >= MEMBERS_MAX {
                return (state, false);
            }
            let Some((key, value)) = trimmed(member).split_once('=') else { continue };
            let fits = match key.split_once('@') {
                Some((tenant, system)) => tenant.len() <= TENANT_BYTES_MAX && system.len() <= SYSTEM_BYTES_MAX,
                None => true,
            };
            if key.len() > KEY_BYTES_MAX || !fits {
                well_formed = false;
            } else if key == "ot" {
                let (opentelemetry, sound) = OpenTelemetry::parse(value);
                state.opentelemetry = opentelemetry;
                well_formed &= sound;
            } else {
                state.others.push((key.to_owned(), value.to_owned()));
            }
        }
        (state, well_formed)
    }

    pub fn randomness(&self) -> Option<Randomness> {
        self.opentelemetry.randomness.as_ref().map(|(randomness, _)| *randomness)
    }

    pub fn set_randomness(&mut self, randomness: Randomness) {
        self.opentelemetry.randomness = Some((randomness, randomness.text()));
    }

    pub fn threshold(&self) -> Option<Threshold> {
        self.opentelemetry.threshold.as_ref().map(|(threshold, _)| *threshold)
    }

    pub fn clear_threshold(&mut self) {
        self.opentelemetry.threshold = None;
    }

    /// Sets the threshold, unless a higher one stands there: what was left out before cannot come back.
    pub fn raise_threshold(&mut self, threshold: Threshold) {
        if self.threshold().is_none_or(|arrived| arrived <= threshold) {
            self.opentelemetry.threshold = Some((threshold, threshold.text()));
        }
    }
}

impl OpenTelemetry {
    fn parse(text: &str) -> (Self, bool) {
        let mut parsed = Self::default();
        if text.is_empty() || !text.split(';').all(is_field) {
            return (parsed, false);
        }
        let mut well_formed = true;
        for (key, value) in text.split(';').filter_map(|field| field.split_once(':')) {
            match key {
                "rv" => {
                    parsed.randomness = Randomness::parse(value).map(|randomness| (randomness, value.to_owned()));
                    well_formed &= parsed.randomness.is_some();
                }
                "th" => {
                    parsed.threshold = Threshold::parse(value).map(|threshold| (threshold, value.to_owned()));
                    well_formed &= parsed.threshold.is_some();
                }
                _ => parsed.others.push((key.to_owned(), value.to_owned())),
            }
        }
        (parsed, well_formed)
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let randomness = self.randomness.iter().map(|(_, text)| ("rv", text.as_str()));
        let threshold =
            self.threshold.iter().map(|(_, text)| ("th", text.as_str())).filter(|(_, text)| !text.is_empty());
        let others = self.others.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        randomness.chain(threshold).chain(others)
    }
}

impl fmt::Display for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (index, (key, value)) in self.opentelemetry.fields().enumerate() {
            write!(f, "{}{key}:{value}", if index == 0 { "ot=" } else { ";" })?;
            separator = ",";
        }
        for (key, value) in &self.others {
            write!(f, "{separator}{key}={value}")?;
            separator = ",";
        }
        Ok(())
    }
}

fn trimmed(member: &str) -> &str {
    member.trim_matches([' ', '\t'])
}

/// `key=value` with spaces around it, or nothing.
fn is_member(member: &str) -> bool {
    let member = trimmed(member);
    member.is_empty() || member.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value))
}

fn is_key(key: &str) -> bool {
    let rest = |text: &str| {
        text.bytes().skip(1).all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte))
    };
    let begins = |text: &str, digit: bool| {
        text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || (digit && byte.is_ascii_digit()))
    };
    match key.split_once('@') {
        Some((tenant, system)) => begins(tenant, true) && rest(tenant) && begins(system, false) && rest(system),
        None => begins(key, false) && rest(key),
    }
}

fn is_value(value: &str) -> bool {
    let fits = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= VALUE_BYTES_MAX && value.bytes().all(fits) && !value.ends_with(' ')
}

/// `key:value` of OpenTelemetry's part.
fn is_field(field: &str) -> bool {
    field.split_once(':').is_some_and(|(key, value)| {
        let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        begins
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> (String, bool) {
        let (state, well_formed) = TraceState::parse(text);
        (state.to_string(), well_formed)
    }

    #[test]
    fn opentelemetrys_part_comes_first_and_the_others_stay_in_order() {
        let expected = ("ot=rv:11223344556677;th:c;x:1,b=2,a@v=1".to_owned(), true);
        assert_eq!(written("b=2 , ot=x:1;th:c;rv:11223344556677,,a@v=1"), expected);
        assert_eq!(written(""), (String::new(), true));
    }

    #[test]
    fn what_is_no_trace_state_is_told() {
        let long = format!("a={}", "x".repeat(VALUE_BYTES_MAX + 1));
        let many = vec!["a=1"; MEMBERS_MAX + 1].join(",");
        for text in [
            "a", "=1", "A=1", "a=", "a=1=2", "a=\u{e9}", "1a=1", "a@1=1", "ot=", "ot=th:c;", "ot=th", "ot=Th:c", &long,
            &many,
        ] {
            assert!(!written(text).1, "{text}");
        }
        assert_eq!(written("ot=th:xyz,a=1"), ("a=1".to_owned(), false));
        assert_eq!(written("ot=rv:123;th:c"), ("ot=th:c".to_owned(), false));
    }

    #[test]
    fn a_threshold_is_raised_and_never_lowered() {
        let mut state = TraceState::parse("ot=th:c").0;
        state.raise_threshold(Threshold::ALWAYS);
        assert_eq!(state.to_string(), "ot=th:c");
        state.raise_threshold(Threshold::parse("e").unwrap());
        assert_eq!(state.to_string(), "ot=th:e");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "[a-z@=,;:0-9 .th]{0,40}|ot=(th:[0-9a-f]{1,14};)?rv:[0-9a-f]{14}(,[a-z]=[a-z]){0,3}") {
            let (state, well_formed) = TraceState::parse(&text);
            if well_formed {
                prop_assert_eq!(TraceState::parse(&state.to_string()), (state, true));
            }
        }
    }
}
