//! `include` and `exclude`: which spans, data points or log records are meant.

use crate::config::{Plain, Secrecy, Section, Shape, WhenNull};
use crate::otlp::Signal;
use crate::otlp::edit::{self, Item, Place, Resource, Scope, Span, Value};
use crate::process::actions::constant;
use crate::process::pattern::Pattern;
use crate::process::text::text;
use std::borrow::Cow;

/// Properties that a span, data point or log record must have, all of them; a list of texts is met by any of its entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    services: Option<Texts>,
    span_names: Option<Texts>,
    span_kinds: Option<Texts>,
    attributes: Vec<Attribute>,
    resources: Vec<Attribute>,
    libraries: Vec<Library>,
    /// Of a log record, as text.
    log_bodies: Option<Texts>,
    log_severity_texts: Option<Texts>,
    log_severity: Option<Severity>,
    metric_names: Option<Texts>,
}

/// `log_severity_number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Severity {
    /// This or more.
    min: i32,
    /// What holds for records that say none.
    match_undefined: bool,
}

/// Texts that are compared, or patterns that are searched for.
#[derive(Debug, Clone, PartialEq)]
enum Texts {
    Strict(Vec<String>),
    Regexp(Vec<Pattern>),
}

#[derive(Debug, Clone, PartialEq)]
struct Attribute {
    key: String,
    expected: Expected,
}

#[derive(Debug, Clone, PartialEq)]
enum Expected {
    /// That the key is there.
    Any,
    /// Of this type too.
    Equal(Plain),
    Match(Texts),
}

#[derive(Debug, Clone, PartialEq)]
struct Library {
    name: Texts,
    version: Option<Texts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MatchType {
    Strict,
    Regexp,
}

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

impl Properties {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        // The Collector has no default either.
        let words = [("", None), ("strict", Some(MatchType::Strict)), ("regexp", Some(MatchType::Regexp))];
        let match_type = section.word("match_type", &words, None);
        if match_type.is_none() && section.is_sound() {
            section.error("match_type", "is missing", "strict compares texts, regexp searches in them");
        }
        let how = match_type.unwrap_or(MatchType::Strict);
        section.inert("regexp", Shape::Map, "results are not cached, patterns are compiled once");
        let properties = Self {
            services: Texts::decode(section, "services", how),
            span_names: Texts::decode(section, "span_names", how),
            span_kinds: Texts::decode(section, "span_kinds", how),
            attributes: section.sections("attributes", |section| Attribute::decode(section, how)),
            resources: section.sections("resources", |section| Attribute::decode(section, how)),
            libraries: section.sections("libraries", |section| Library::decode(section, how)),
            log_bodies: Texts::decode(section, "log_bodies", how),
            log_severity_texts: Texts::decode(section, "log_severity_texts", how),
            log_severity: section.optional("log_severity_number", WhenNull::Absent, |section| Severity {
                min: i32::try_from(section.i64("min", 0)).unwrap_or(i32::MAX),
                match_undefined: section.bool("match_undefined", false),
            }),
            metric_names: Texts::decode(section, "metric_names", how),
        };
        properties.check(section);
        properties
    }

    /// Properties of spans and of nothing else.
    pub(in crate::process) fn decode_for_spans(section: &mut Section<'_>) -> Self {
        let properties = Self::decode(section);
        if let Some(foreign) = properties.foreign(Signal::Traces) {
            section.error(foreign, "it does not apply to spans", "remove it");
        }
        properties
    }

    /// Every property and whether it is asked for.
    fn asked(&self) -> [(&'static str, bool); 10] {
        [
            ("services", self.services.is_some()),
            ("span_names", self.span_names.is_some()),
            ("span_kinds", self.span_kinds.is_some()),
            ("attributes", !self.attributes.is_empty()),
            ("resources", !self.resources.is_empty()),
            ("libraries", !self.libraries.is_empty()),
            ("log_bodies", self.log_bodies.is_some()),
            ("log_severity_texts", self.log_severity_texts.is_some()),
            ("log_severity_number", self.log_severity.is_some()),
            ("metric_names", self.metric_names.is_some()),
        ]
    }

    /// A property that says nothing about the items of `signal`. For metrics the Collector looks at names alone, and passes
    /// over the others in silence.
    pub(super) fn foreign(&self, signal: Signal) -> Option<&'static str> {
        let known: &[&str] = match signal {
            Signal::Traces => &["services", "span_names", "span_kinds", "attributes", "resources", "libraries"],
            Signal::Metrics => &["metric_names"],
            Signal::Logs => {
                &["attributes", "resources", "libraries", "log_bodies", "log_severity_texts", "log_severity_number"]
            }
        };
        self.asked().into_iter().find(|(name, asked)| *asked && !known.contains(name)).map(|(name, _)| name)
    }

    fn check(&self, section: &Section<'_>) {
        if section.is_sound() && !self.asked().iter().any(|(_, asked)| *asked) {
            let remedy = format!("one of: {}", self.asked().map(|(name, _)| name).join(", "));
            section.error("", "says nothing to match", remedy);
        }
        if let Some(Texts::Strict(kinds)) = &self.span_kinds
            && let Some(unknown) = kinds.iter().find(|kind| !KINDS[1..].contains(&kind.as_str()))
        {
            let reason = format!("{unknown:?} is no span kind");
            section.error("span_kinds", reason, format!("one of: {}", KINDS[1..].join(", ")));
        }
    }

    pub(in crate::process) fn matches_resource(&self, resource: &Resource<'_>) -> bool {
        if let Some(services) = &self.services {
            // What the Collector takes for the name where there is none.
            let name = resource.attributes().get("service.name").map_or(Cow::Borrowed("<nil-service-name>"), text);
            if !services.any(&name) {
                return false;
            }
        }
        self.resources.iter().all(|attribute| attribute.is_in(resource.attributes()))
    }

    pub(in crate::process) fn matches_scope(&self, scope: &Scope<'_>) -> bool {
        self.libraries.iter().all(|library| {
            library.name.any(&scope.name())
                && library.version.as_ref().is_none_or(|version| version.any(&scope.version()))
        })
    }

    pub(in crate::process) fn matches_span(&self, span: &Span<'_>) -> bool {
        let kind = || usize::try_from(span.kind()).ok().and_then(|kind| KINDS.get(kind)).copied().unwrap_or_default();
        self.span_names.as_ref().is_none_or(|names| names.any(&span.name()))
            && self.span_kinds.as_ref().is_none_or(|kinds| kinds.any(kind()))
            && self.attributes.iter().all(|attribute| attribute.is_in(span.attributes()))
    }
}

impl Properties {
    pub(super) fn matches_item(&self, place: &Place<'_, '_>, item: &Item<'_>) -> bool {
        self.metric_names.as_ref().is_none_or(|names| names.any(place.metric))
            && self.log_severity.is_none_or(|severity| severity.matches(item.severity_number()))
            && self.log_severity_texts.as_ref().is_none_or(|texts| texts.any(&item.severity_text()))
            && self.log_bodies.as_ref().is_none_or(|bodies| bodies.any(&text(&item.body())))
            && self.attributes.iter().all(|attribute| attribute.is_in(item.attributes()))
            && self.matches_resource(place.resource)
            && self.matches_scope(place.scope)
    }
}

impl Severity {
    fn matches(self, number: i32) -> bool {
        if number == 0 { self.match_undefined } else { number >= self.min }
    }
}

impl Texts {
    /// `None`: absent or empty, which asks for nothing.
    fn decode(section: &mut Section<'_>, key: &'static str, how: MatchType) -> Option<Self> {
        let texts = section.list(key);
        (!texts.is_empty()).then(|| Self::of(section, key, how, texts))
    }

    fn of(section: &Section<'_>, key: &str, how: MatchType, texts: Vec<String>) -> Self {
        match how {
            MatchType::Strict => Self::Strict(texts),
            MatchType::Regexp => {
                // An empty pattern matches everything.
                let compile = |text: &String| match Pattern::compile(text) {
                    Ok(pattern) => Some(pattern),
                    Err(problem) => {
                        section.error(key, format!("{text:?} is no valid pattern: {problem}"), "");
                        None
                    }
                };
                Self::Regexp(texts.iter().filter_map(compile).collect())
            }
        }
    }

    fn any(&self, text: &str) -> bool {
        match self {
            Self::Strict(texts) => texts.iter().any(|candidate| candidate == text),
            Self::Regexp(patterns) => patterns.iter().any(|pattern| pattern.is_match(text)),
        }
    }
}

impl Attribute {
    fn decode(section: &mut Section<'_>, how: MatchType) -> Self {
        let key = section.required_text("key", "name the attribute");
        let expected = match (section.plain("value"), how) {
            (None, _) => Expected::Any,
            (Some(value), MatchType::Strict) => Expected::Equal(value),
            (Some(Plain::Text(text)), MatchType::Regexp) => {
                Expected::Match(Texts::of(section, "value", how, vec![text]))
            }
            (Some(_), MatchType::Regexp) => {
                section.error("value", "match_type regexp takes a text here", "put it in quotes");
                Expected::Any
            }
        };
        Self { key, expected }
    }

    fn is_in(&self, attributes: &edit::Attributes<'_>) -> bool {
        let Some(value) = attributes.get(&self.key) else { return false };
        match &self.expected {
            Expected::Any => true,
            Expected::Equal(expected) => constant(expected) == *value,
            Expected::Match(texts) => match value {
                Value::Text(text) => texts.any(text),
                Value::Bool(value) => texts.any(&value.to_string()),
                Value::Int(value) => texts.any(&value.to_string()),
                Value::Double(value) => texts.any(&value.to_string()),
                Value::Empty | Value::Bytes(_) | Value::List(_) | Value::Map(_) => false,
            },
        }
    }
}

impl Library {
    fn decode(section: &mut Section<'_>, how: MatchType) -> Self {
        let name = section.text("name", "");
        let version = section.optional_text("version", Secrecy::Open);
        Self {
            name: Texts::of(section, "name", how, vec![name]),
            version: version.map(|version| Texts::of(section, "version", how, vec![version])),
        }
    }
}
